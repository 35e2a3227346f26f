/** A cell that was failed over returns: it is granted nothing, it says why, and the only way back is empty. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { acceptedSchema, cellSchema } from "../contract/control-api.ts";
import type { CellId } from "../contract/ids.ts";
import type { ProvidedCell } from "../contract/provider-api.ts";
import { systemClock } from "../runtime/clock.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { systemRandom } from "../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellEndpoints } from "./api/cells.ts";
import { recoveryEndpoints } from "./api/recovery.ts";
import { salvageEndpoints } from "./api/salvage.ts";
import {
  type ControlFixture,
  callAgent,
  eventually,
  openCell,
  startControl,
} from "./control.fixture.ts";
import { insertSalvage } from "./store/failover/salvage.ts";
import { insertOp } from "./store/ops.ts";
import { cell, leader, op, placement } from "./store/schema.ts";
import { salvageRow } from "./store/schema-salvage.ts";
import { deadCell, failoverId, keyOf, recordFailover } from "./work/failover/report.fixture.ts";
import { startSalvaging } from "./work/failover/salvage.ts";

let server: TestPostgres;
let control: ControlFixture;
let admin: JsonClient;
const salvageId = "op_1salvage0001";
const dead: string = deadCell;

beforeAll(async () => {
  server = await startTestPostgres();
  control = await startControl(await server.createDatabase("control"), (context) => [
    ...cellEndpoints(context),
    ...recoveryEndpoints(context),
    ...salvageEndpoints(context),
  ]);
  admin = await control.client("admin");
  const { database } = control;
  for (const id of [dead, "cell-02", "sb-cell-01-cell-02"]) await openCell(database, id);
  await database.read
    .update(cell)
    .set({
      state: "quarantined",
      goal: "quarantined",
      revoking: true,
      halted: true,
      provider: "local",
    })
    .where(eq(cell.id, dead));
  await recordFailover(database, ["acme"], "0/2000");
  await insert("cell.failover", failoverId, "reprotecting", "running");
  await database.read.insert(placement).values({
    ...{ key: keyOf("acme"), keyspace: "default", kind: "tenant", value: "acme", epoch: 2 },
    ...{ cell: "sb-cell-01-cell-02", state: "active", revision: 1, op: failoverId },
  });
});

afterAll(async () => {
  await control?.close();
  await server?.stop();
});

const insert = (
  kind: "cell.failover" | "cell.salvage",
  id: string,
  step: string,
  state: "running" | "done",
) =>
  control.database.transaction((tx) =>
    insertOp(tx, {
      ...{ id, kind, object: dead, step, state, headline: "", input: {}, actor: "test" },
      plan: { kind, steps: [], skipped: [] },
      ...{ reason: "", revision: null, nowMs: Date.now(), deadlineMs: undefined },
    }),
  );

const send = (path: string, body: Record<string, unknown> = {}) =>
  admin.call({
    ...{ method: "POST", path: `/v1/cells/${dead}${path}`, body },
    schema: z.unknown(),
    timeoutMs: 10_000,
  });

const beginsToServe = { wantLease: true, database: { systemIdentifier: "the-old-one" } };

test("it is granted no lease, and its agent and `cell get` say why and what to do", async () => {
  const agent = await control.client("agent", dead);
  const { lease, leaseRefused } = await callAgent(agent, dead, beginsToServe);
  expect(lease).toBeUndefined();
  expect(leaseRefused).toContain("failed over");
  expect(leaseRefused).toContain(`cellctl cell salvage ${dead}`);
  const shown = await admin.call({
    ...{ method: "GET", path: `/v1/cells/${dead}`, schema: cellSchema, timeoutMs: 10_000 },
  });
  expect(shown.healthReason).toContain("failed over: its tenants are served elsewhere");
});

test("it is not let back with its database as it is, and the refusal names the way", async () => {
  await expect(send("/readmit", { reason: "it looks well" })).rejects.toMatchObject({
    code: "STATE_CONFLICT",
    nextSteps: [
      `cellctl cell salvage ${dead}`,
      `cellctl cell wipe ${dead}`,
      `cellctl failover restore ${dead}`,
    ],
  });
  const agent = await control.client("agent", dead);
  expect((await callAgent(agent, dead, beginsToServe)).lease).toBeUndefined();
});

test("keys of which it has the only copy keep it from being wiped; asked to, they go on from there", async () => {
  const { read } = control.database;
  const key = keyOf("globex");
  await read.insert(placement).values({
    ...{ key, keyspace: "default", kind: "tenant", value: "globex", epoch: 1 },
    ...{ cell: dead, state: "unavailable", revision: 1, op: failoverId },
  });
  const adopt = (body: Record<string, unknown> = {}) => send("/salvage/adopt", body);
  const stateOf = async () =>
    (await read.select().from(placement).where(eq(placement.key, key)))[0]?.state;
  await expect(send("/wipe")).rejects.toMatchObject({
    message: expect.stringContaining("has the only copy of 1 keys"),
    nextSteps: expect.arrayContaining([`cellctl cell salvage ${dead} adopt`]),
  });
  const step = (to: string) => read.update(op).set({ step: to }).where(eq(op.id, failoverId));
  await step("adopting");
  await expect(adopt()).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  await step("reprotecting");
  await adopt({ dryRun: true });
  expect(await stateOf()).toBe("unavailable");
  await adopt({ reason: "it is the database that died" });
  expect(await stateOf()).toBe("pending");
  const agent = await control.client("agent", dead);
  const { changes, lease } = await callAgent(agent, dead, { appliedRevision: 0 });
  expect(changes.find((one) => one.key === key)?.state).toBe("active");
  expect(lease).toBeUndefined();
  await expect(adopt()).rejects.toMatchObject({
    nextSteps: [`cellctl cell salvage ${dead}`, `cellctl move ls --cell ${dead}`],
  });
  await read.delete(placement).where(eq(placement.key, key));
});

test("it is not wiped before what only it has was salvaged and decided about", async () => {
  await expect(send("/wipe")).rejects.toMatchObject({ code: "SALVAGE_UNFIT" });
  await expect(send("/wipe", { discardUnsalvaged: true })).rejects.toMatchObject({
    code: "VALIDATION_FAILED",
  });
  await insert("cell.salvage", salvageId, "done", "done");
  await control.database.transaction((tx) =>
    insertSalvage(tx, { op: salvageId, cell: dead, failover: failoverId }),
  );
  await control.database.read.insert(salvageRow).values({
    ...{ salvage: salvageId, annex: "", store: "main", tableName: "public.orders", tenant: "acme" },
    ...{ identity: { id: "1" }, row: { id: "1" }, first: "insert", last: "insert", lsn: "0/3000" },
    ...{ committedAt: "", verdict: "conflict" },
  });
  await expect(send("/wipe")).rejects.toMatchObject({
    message: `Nobody has decided about 1 rows that only ${dead} has. Nothing was wiped.`,
  });
  await send("/salvage/decide", { decision: "discard", tenant: "globex" });
  await expect(send("/wipe")).rejects.toMatchObject({ code: "SALVAGE_UNFIT" });
  await send("/salvage/decide", { decision: "discard", reason: "test data" });
});

test("it holds the only copy of a key: that is not wiped either, unless it is given up by name", async () => {
  const { read } = control.database;
  await read.insert(placement).values({
    ...{ key: keyOf("only"), keyspace: "default", kind: "tenant", value: "only", epoch: 1 },
    ...{ cell: dead, state: "unavailable", revision: 1, op: failoverId },
  });
  await expect(send("/wipe")).rejects.toMatchObject({ code: "SALVAGE_UNFIT" });
  await read.delete(placement).where(eq(placement.value, "only"));
});

test("wiped, it comes back empty under its id, with another database, and serves again", async () => {
  const { database, context } = control;
  const asked: string[] = [];
  const provided = (id: CellId, state: ProvidedCell["state"]): ProvidedCell => ({
    ...{ id, state, text: "", services: {}, stores: {} },
  });
  const [seat] = await database.read.update(leader).set({ term: 7 }).returning();
  const loop = startSalvaging({
    ...{ database, clock: systemClock, random: systemRandom, lead: { term: () => seat?.term } },
    resolve: async () => "",
    provider: {
      act: async (_id, action) => {
        // While it is destroyed, and until it runs, it is granted nothing.
        const [row] = await database.read.select().from(cell).where(eq(cell.id, dead));
        asked.push(`${action} ${row?.state} ${row?.revoking}`);
        return provided(deadCell, action === "destroy" ? "absent" : "running");
      },
      look: async () => provided(deadCell, "running"),
      close: async () => {},
    },
    logTo: { clock: systemClock, part: "test", level: "error", write: () => {} },
    onError: () => {},
  });
  const accepted = await admin.call({
    ...{ method: "POST", path: `/v1/cells/${dead}/wipe`, body: {} },
    ...{ schema: acceptedSchema, timeoutMs: 10_000 },
  });
  const see = async () =>
    (await database.read.select().from(op).where(eq(op.id, accepted.op.id)))[0];
  await eventually(see, (row) => row?.step === "opening");
  // What is known of its health is of its life before: until its agent has called, it does not serve.
  await systemClock.sleep(700);
  expect((await see())?.state).toBe("running");
  const agent = await control.client("agent", dead);
  const fresh = { wantLease: true, database: { systemIdentifier: "a-new-one" } };
  expect((await callAgent(agent, dead, fresh)).lease?.ttlMs).toBe(context.settings.leaseTtlMs);
  const ended = await eventually(see, (row) => row?.state !== "running");
  await loop.close();
  expect([ended?.state, ended?.headline]).toEqual(["done", `${dead} is back, empty, and serves`]);
  expect(asked).toEqual(["destroy quarantined true", "create quarantined true"]);
  const home = await admin.call({
    ...{ method: "GET", path: `/v1/cells/${dead}/homecoming`, timeoutMs: 10_000 },
    schema: z.object({ keys: z.array(z.string()) }),
  });
  expect(home.keys).toEqual([keyOf("acme")]);
});
