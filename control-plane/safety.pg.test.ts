/** The lever, switches and limits over a real control plane: set, obeyed, gone past by name, and in the audit log. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { acceptedSchema, auditEntrySchema, list } from "../contract/control-api.ts";
import { leverSchema, safetySchema, switchSchema } from "../contract/safety-api.ts";
import { type MovesApi, refusal, startMovesApi } from "./moves.fixture.ts";
import { overridesOf, requireStillSafe } from "./store/safety.ts";

let api: MovesApi;
beforeAll(async () => {
  api = await startMovesApi();
});
afterAll(async () => {
  await api?.close();
});

const put = (path: string, body: unknown) =>
  api.client.call({ method: "PUT", path, body, schema: acceptedSchema, timeoutMs: 30_000 });
const post = (path: string, body: unknown) => api.post(path, body, acceptedSchema);
const now = (operation: Parameters<typeof requireStillSafe>[1], override: readonly string[] = []) =>
  requireStillSafe(api.control.database.read, operation, override);

test("the lever stops what can wait, says who engaged it, and lets repairs go on", async () => {
  await expect(refusal(post("/v1/lever/engage", {}))).resolves.toMatchObject({
    code: "VALIDATION_FAILED",
  });
  await post("/v1/lever/engage", { reason: "month end" });
  expect(await api.get("/v1/lever", leverSchema)).toMatchObject({
    engaged: true,
    reason: "month end",
  });
  await expect(refusal(post("/v1/lever/engage", { reason: "twice" }))).resolves.toMatchObject({
    code: "STATE_CONFLICT",
  });
  const refused = await refusal(api.post("/v1/cells/cell-01/cordon", {}, z.unknown()));
  expect(refused).toMatchObject({
    code: "LEVER_ENGAGED",
    message: expect.stringContaining("month end"),
  });
  await expect(now({ kind: "cell.uncordon", cell: "cell-01" })).resolves.toBeUndefined();
  await expect(now({ kind: "failover.unplanned", cell: "cell-01" })).resolves.toBeUndefined();
});

test("a person goes past it by name, with a reason, and that is recorded", async () => {
  const without = api.post("/v1/cells/cell-01/cordon", { override: ["lever"] }, z.unknown());
  await expect(refusal(without)).resolves.toMatchObject({ code: "VALIDATION_FAILED" });
  const { op } = await post("/v1/cells/cell-01/cordon", {
    override: ["lever"],
    reason: "it burns",
  });
  expect(op.kind).toBe("cell.cordon");
  const { items } = await api.get("/v1/audit?limit=20", list(auditEntrySchema));
  expect(items.find(({ action }) => action === "safety.override")).toMatchObject({
    object: "cell-01",
    reason: "it burns",
    after: { operation: "cell.cordon", rules: [{ rule: "lever" }] },
  });
});

test("it is asked again when the operation takes effect, and remembers what was gone past", async () => {
  const operation = { kind: "cell.cordon", cell: "cell-01" } as const;
  await expect(refusal(now(operation))).resolves.toMatchObject({ code: "LEVER_ENGAGED" });
  await expect(now(operation, overridesOf({ override: ["lever"] }))).resolves.toBeUndefined();
  await post("/v1/lever/release", { reason: "the month is over" });
  await expect(now(operation)).resolves.toBeUndefined();
});

test("a closed switch stops what it names and nothing else", async () => {
  await put("/v1/switches/deploys", { open: false, kinds: ["move.*"], reason: "release 7" });
  const { items } = await api.get("/v1/switches", list(switchSchema));
  expect(items).toMatchObject([{ id: "deploys", open: false, kinds: ["move.*"] }]);
  await expect(refusal(now({ kind: "move.start", tenants: 1 }))).resolves.toMatchObject({
    code: "SAFETY_RULE",
  });
  await expect(now({ kind: "cell.cordon", cell: "cell-01" })).resolves.toBeUndefined();
  await put("/v1/switches/deploys", { open: true });
  await expect(now({ kind: "move.start", tenants: 1 })).resolves.toBeUndefined();
});

test("a switch that is not there is neither opened nor forgotten, and one names what somebody does", async () => {
  const forget = (id: string) =>
    api.client.call({
      ...{ method: "DELETE", path: `/v1/switches/${id}`, body: {} },
      ...{ schema: acceptedSchema, timeoutMs: 30_000 },
    });
  await expect(refusal(forget("deplyos"))).resolves.toMatchObject({
    code: "NOT_FOUND",
    nextSteps: ["Did you mean deploys?", "cellctl lever switches"],
  });
  await expect(refusal(put("/v1/switches/deplyos", { open: true }))).resolves.toMatchObject({
    code: "NOT_FOUND",
  });
  const odd = put("/v1/switches/odd", { open: false, kinds: ["moves.*"] });
  await expect(refusal(odd)).resolves.toMatchObject({
    code: "VALIDATION_FAILED",
    message: expect.stringContaining("move.start"),
  });
  await put("/v1/switches/fresh", { open: true, kinds: ["move.*"] });
  await forget("fresh");
  const { items } = await api.get("/v1/switches", list(switchSchema));
  expect(items.map(({ id }) => id)).toEqual(["deploys"]);
});

test("a limit that the whole fleet could not meet is refused", async () => {
  await expect(refusal(put("/v1/safety/limits", { healthyCellsMin: 900 }))).resolves.toMatchObject({
    code: "VALIDATION_FAILED",
    message: expect.stringContaining("--healthy-cells 900"),
  });
  await expect(refusal(put("/v1/safety/limits", { openCellsMin: 900 }))).resolves.toMatchObject({
    code: "VALIDATION_FAILED",
  });
});

test("limits are kept, and what is not said stays as it was", async () => {
  await put("/v1/safety/limits", { motionFloor: 1, motionShareMax: 0 });
  await put("/v1/safety/limits", { waitAfterFailoverMs: 60_000 });
  const { limits } = await api.get("/v1/safety", safetySchema);
  expect(limits).toMatchObject({ motionFloor: 1, motionShareMax: 0, waitAfterFailoverMs: 60_000 });
  await expect(refusal(now({ kind: "move.start", tenants: 2 }))).resolves.toMatchObject({
    code: "SAFETY_RULE",
    message:
      "move.start is refused by the rule motion: 2 of 7 tenants would be in motion, 1 may be.",
  });
});
