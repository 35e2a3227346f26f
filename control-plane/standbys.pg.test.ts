/** Standbys over the API: told with what is behind and who has none, added by an operator, sent away. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { dryRunSchema, list } from "../contract/control-api.ts";
import { standbySchema } from "../contract/standby-api.ts";
import { protectionSchema, standbyChangedSchema } from "../contract/standby-requests.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { standbyEndpoints } from "./api/standbys.ts";
import { type ControlFixture, openCell, startControl } from "./control.fixture.ts";
import { codeOf } from "./plane.fixture.ts";
import { listAudit } from "./store/audit.ts";
import { readCells } from "./store/fleet-store.ts";
import { cell } from "./store/schema.ts";
import { standby } from "./store/schema-standby.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let client: JsonClient;
const timeoutMs = 10_000;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("standbys"), standbyEndpoints);
  client = await control.client("operator");
  const stores = { default: { database: "env:DB", mover: "env:MOVER" } };
  for (const id of ["cell-01", "cell-02", "cell-03"]) {
    await openCell(control.database, id);
    const set = { stores, usedTenants: 10, failureDomain: id === "cell-03" ? "cell-02" : id };
    await control.database.read.update(cell).set(set).where(eq(cell.id, id));
  }
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const wanted = {
  ...{ origin: "cell-01", host: "cell-02", buckets: { lo: 0, hi: 127 } },
  stores: { default: { database: "env:SB", mover: "env:SB_MOVER" } },
};
const get = <T>(path: string, schema: import("zod").ZodType<T>) =>
  client.call({ method: "GET", path, schema, timeoutMs });
const add = <T>(body: object, schema: import("zod").ZodType<T>) =>
  client.call({ method: "POST", path: "/v1/standbys", body, schema, timeoutMs });
const remove = <T>(id: string, body: object, schema: import("zod").ZodType<T>) =>
  client.call({ method: "DELETE", path: `/v1/standbys/${id}`, body, schema, timeoutMs });
const set = (values: Partial<typeof standby.$inferInsert>) =>
  control.database.read.update(standby).set(values);

test("a standby of an operator's own is an annex: no cell in lists, no room of its own", async () => {
  const plan = await add({ ...wanted, dryRun: true }, dryRunSchema);
  expect(plan.plan.steps[0]?.text).toContain("sb-cell-01-cell-02 is to keep buckets 0-127");
  expect((await get("/v1/standbys", list(standbySchema))).items).toEqual([]);

  const added = await add({ ...wanted, reason: "by hand" }, standbyChangedSchema);
  expect(added.standby).toMatchObject({
    ...{ id: "sb-cell-01-cell-02", origin: "cell-01", host: "cell-02", state: "planned" },
    ...{ buckets: { lo: 0, hi: 127 }, lagBytes: null, lagSeconds: null, keys: 0, warm: false },
  });
  expect(added.next_steps.join("\n")).toContain("cellctl agent --cell sb-cell-01-cell-02");
  const [annex] = (await readCells(control.database.read)).filter((one) => one.annex !== null);
  expect(annex).toMatchObject({
    ...{
      id: "sb-cell-01-cell-02",
      provider: "none",
      annex: { origin: "cell-01", host: "cell-02" },
    },
    capacity: { tenants: 0, bytes: 0, rps: 0 },
  });
  const [entry] = await listAudit(control.database.read, { before: 1e9, limit: 1 });
  expect(entry).toMatchObject({ action: "standby.create", reason: "by hand" });
});

test("what would not help in a failover, or could not be streamed, is refused", async () => {
  const refused = { ...wanted, origin: "cell-02", host: "cell-03" };
  expect(await codeOf(add(refused, standbyChangedSchema))).toBe("STATE_CONFLICT");
  const other = { other: wanted.stores.default };
  expect(await codeOf(add({ ...wanted, stores: other }, standbyChangedSchema))).toBe(
    "VALIDATION_FAILED",
  );
  expect(await codeOf(get("/v1/standbys/sb-nobody", standbySchema))).toBe("STANDBY_UNKNOWN");
});

test("who could not be taken over is told, with a reason", async () => {
  const now = new Date();
  await set({ state: "ready", lagBytes: 7, heartbeatAgeMs: 500, reportedAt: now, listedAt: 1 });
  const [one] = (await get("/v1/standbys", list(standbySchema))).items;
  expect(one).toMatchObject({ state: "ready", lagBytes: 7 });
  expect(one?.lagSeconds).toBeGreaterThanOrEqual(0.5);
  const { items } = await get("/v1/protection", list(protectionSchema));
  expect(items.map(({ id, unprotected, buckets }) => ({ id, unprotected, buckets }))).toEqual([
    { id: "cell-01", unprotected: 5, buckets: 128 },
    { id: "cell-02", unprotected: 10, buckets: 0 },
    { id: "cell-03", unprotected: 10, buckets: 0 },
  ]);
  expect(items[1]?.reason).toContain("run by hand: cellctl standby add cell-02");
});

test("sent away, it is left out of the origin's next list; in a failover's hands it stays", async () => {
  await set({ state: "adopted" });
  expect(await codeOf(remove("sb-cell-01-cell-02", {}, standbyChangedSchema))).toBe(
    "STATE_CONFLICT",
  );
  await set({ state: "ready" });
  const left = await remove("sb-cell-01-cell-02", { reason: "old" }, standbyChangedSchema);
  expect(left.standby).toMatchObject({ state: "leaving", reason: "old" });
  const [row] = await control.database.read.select().from(standby);
  expect(row?.unlistedAt).toBe(1);
  const [origin] = await control.database.read.select().from(cell).where(eq(cell.id, "cell-01"));
  expect(origin?.partnerRevision).toBe(1);
});
