/** Routers hand in what they acknowledged, and the report names what the adopter's real database lacks. */

import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { snapshotTailSchema } from "../../../contract/routing-table.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog } from "../../../runtime/log.ts";
import { systemRandom } from "../../../runtime/random.ts";
import { type CellStore, createCellStore, storeRoles } from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import {
  type ControlFixture,
  callRouter,
  eventually,
  openCell,
  startControl,
} from "../../control.fixture.ts";
import { listAudit } from "../../store/audit.ts";
import { recentEvents } from "../../store/events.ts";
import { ackPagesMax } from "../../store/failover/acks.ts";
import { readReport } from "../../store/failover/report.ts";
import { cell, op, placement, router } from "../../store/schema.ts";
import { failover, failoverAck } from "../../store/schema-standby.ts";
import { startAmending } from "./amend.ts";
import {
  ackedWrite,
  annexCell,
  deadCell,
  failoverId,
  hostCell,
  keyOf,
  recordFailover,
} from "./report.fixture.ts";
import { makeRpoReport, type ReportEvents } from "./report.ts";

let server: TestPostgres;
let control: ControlFixture;
let adopter: CellStore;
const kept = z.object({ kept: z.number() });

beforeAll(async () => {
  server = await startTestPostgres();
  control = await startControl(await server.createDatabase("control"));
  adopter = await createCellStore(server, annexCell);
  await adopter.owner(
    "create table idempotency (tenant_id text not null, key text not null, primary key (tenant_id, key))",
  );
  await adopter.admin.query(
    `grant select on idempotency to ${storeRoles.moverRole};
     insert into idempotency values ('acme', 'arrived')`,
  );
  for (const id of [deadCell, hostCell, annexCell]) await openCell(control.database, id);
  const idempotency = { table: "idempotency", keyColumn: "key" };
  const stores = { default: { keyColumn: "tenant_id", mover: "env:IT", idempotency } };
  await control.database.read.update(cell).set({ stores });
  await recordFailover(control.database, ["acme", "globex"], "0/2000");
  await control.database.read.insert(placement).values(
    ["acme", "globex"].map((value) => ({
      ...{ key: keyOf(value), keyspace: "default", kind: "tenant" as const, value },
      ...{ cell: annexCell, epoch: 2, state: "active" as const, revision: 0, op: failoverId },
    })),
  );
});

afterAll(async () => {
  await adopter?.close();
  await control?.close();
  await server?.stop();
});

const page = (entries: readonly unknown[], change: Record<string, unknown> = {}) => ({
  ...{ router: "router-1", instance: "i1", failover: failoverId, cell: deadCell, entries },
  ...{ last: true, completeSinceMs: Date.now() - 60_000, nowMs: Date.now() },
  ...change,
});

const handIn = async (body: ReturnType<typeof page>) => {
  const client = await control.client("router", body.router);
  return client.call({
    method: "POST",
    path: "/v1/machine/router/acks",
    body,
    schema: kept,
    timeoutMs: 10_000,
  });
};

const quiet = createLog<ReportEvents>({
  ...{ clock: systemClock, part: "test", level: "error", write: () => {} },
});
const report = () =>
  makeRpoReport(
    {
      ...{ database: control.database, clock: systemClock, waitMs: 0, log: quiet },
      resolve: async () => adopter.moverUrl,
    },
    failoverId,
  );

/** Null: nobody knows since when it is there. */
const seenSince = (id: string, firstSeenAt: Date | null) =>
  control.database.read.update(router).set({ firstSeenAt }).where(eq(router.id, id));

test("a router is asked in its long poll, at once, and not again once it has handed in", async () => {
  const { database, publisher } = control;
  const client = await control.client("router", "router-1");
  const open = (fencedAt: Date | null) =>
    database.read.update(failover).set({ fencedAt }).where(eq(failover.op, failoverId));
  await publisher.refresh();
  const lines = (await publisher.snapshot()).chunks.map((one) => Buffer.from(one).toString("utf8"));
  const tail = lines.join("").trimEnd().split("\n").at(-1) ?? "";
  const { checksum } = snapshotTailSchema.parse(JSON.parse(tail));
  const current = { revision: publisher.revision(), checksum };

  // The cell may still acknowledge: a list would lack that.
  await open(null);
  const before = await callRouter(client, "router-1", current);
  expect([before.answer.kind, before.collect]).toEqual(["unchanged", undefined]);

  const startedMs = performance.now();
  const waiting = callRouter(client, "router-1", { ...current, waitMs: 9000 });
  await systemClock.sleep(50);
  await open(new Date());
  await database.pool.query("select pg_notify('cellfleet_op', $1)", [failoverId]);
  const told = await waiting;
  expect(told.collect).toEqual([{ failover: failoverId, cell: deadCell }]);
  expect(performance.now() - startedMs).toBeLessThan(5000);

  // A router that is busy with that calls in again: it is told, but its poll waits.
  const again = await callRouter(client, "router-1", { ...current, waitMs: 100 });
  expect(again.collect).toEqual(told.collect);
  const done = await callRouter(client, "router-1", { ...current, collected: [failoverId] });
  expect(done.collect).toBeUndefined();
});

test("the report names exactly what the adopter lacks, and counts false alarms", async () => {
  const entries = [
    ackedWrite("acme", "safe"),
    ackedWrite("acme", "found", { lsn: "0/3000", idempotencyKey: "arrived" }),
    ackedWrite("acme", "lost", { lsn: "0/3000", idempotencyKey: "never-arrived" }),
    ackedWrite("globex", "unknown", { lsn: "0/3000" }),
  ];
  await handIn(page(entries));
  await handIn(page(entries)); // The answer was lost on the way: it says it again.
  expect(await control.database.read.$count(failoverAck)).toBe(1);
  const made = await report();
  expect(made.totals).toMatchObject({ keys: 2, acked: 4, lost: 1, unknown: 1, found: 1 });
  expect(
    made.tenants.map(({ lost, unknown }) => [...lost, ...unknown].map((one) => one.requestId)),
  ).toEqual([["lost"], ["unknown"]]);
  expect([made.method, made.methodReason]).toEqual([
    "exact",
    `every router that served ${deadCell} handed in what it acknowledged`,
  ]);
  expect(await readReport(control.database.read, failoverId)).toEqual(made);
});

test("a cell was detected when witnesses confirmed its death, not when somebody decided", async () => {
  const { read } = control.database;
  const began = Date.parse((await report()).detectedAt);
  const [row] = await read.select({ createdAt: failover.createdAt }).from(failover);
  expect(began).toBe(row?.createdAt.getTime());
  await read.update(failover).set({ report: null, evidence: { goneForMs: 48_000 } });
  expect(Date.parse((await report()).detectedAt)).toBe(began - 48_000);
});

test("a router that served lately and says nothing makes it a bound, with seconds for every tenant", async () => {
  await callRouter(await control.client("router", "router-2"), "router-2");
  await seenSince("router-2", null);
  const made = await report();
  expect([made.method, made.methodReason]).toEqual([
    "bound",
    "router-2 served the fleet lately and did not hand in what it acknowledged",
  ]);
  expect(made.tenants.map(({ boundSeconds }) => boundSeconds !== null)).toEqual([true, true]);
});

test("a router that comes back late names what it acknowledged: the report is amended, and says so", async () => {
  const { database } = control;
  // Its tenants went on into a whole cell meanwhile, and the annex is gone.
  await database.read.update(placement).set({ cell: hostCell, epoch: 3 });
  await database.read.insert(op).values({
    ...{ id: failoverId, kind: "cell.failover", object: deadCell, state: "done", step: "done" },
    ...{ headline: "", plan: {}, input: {}, actor: "test", reason: "" },
  });
  const kept = await readReport(database.read, failoverId);
  expect([kept?.method, kept?.revision]).toEqual(["bound", 2]);
  const client = await control.client("router", "router-2");
  const asked = await callRouter(client, "router-2");
  expect(asked.collect).toEqual([{ failover: failoverId, cell: deadCell }]);
  // One that has handed in is not asked again: started again since, it would seem to have forgotten.
  const first = await control.client("router", "router-1");
  const again = () => callRouter(first, "router-1");
  await eventually(again, ({ collect }) => collect === undefined);

  const amending = startAmending({
    world: {
      ...{ database, clock: systemClock, log: quiet },
      resolve: async () => adopter.moverUrl,
    },
    ...{ random: systemRandom, lead: { term: () => 1 }, intervalMs: 20, onError: () => {} },
  });
  const entries = [
    ackedWrite("acme", "late-lost", { lsn: "0/4000", idempotencyKey: "gone" }),
    ackedWrite("acme", "late-found", { lsn: "0/4000", idempotencyKey: "arrived" }),
  ];
  await handIn(page(entries, { router: "router-2" }));
  const after = await eventually(
    () => readReport(database.read, failoverId),
    (one) => one?.revision === 3,
  );
  await amending.close();
  expect([after?.method, after?.amendedAt]).toEqual(["exact", expect.any(String)]);
  expect(after?.totals).toMatchObject({ lost: 2, unknown: 1, found: 2 });
  const lost = after?.tenants.flatMap((one) => one.lost.map(({ requestId }) => requestId));
  expect(lost?.toSorted()).toEqual(["late-lost", "lost"]);

  const [entry] = await listAudit(database.read, {
    ...{ before: Number.MAX_SAFE_INTEGER, limit: 1, action: "failover.amend-report" },
  });
  expect(entry).toMatchObject({
    ...{ object: deadCell, outcome: "accepted" },
    ...{ before: { method: "bound", revision: 2 }, after: { method: "exact", revision: 3 } },
  });
  const told = await recentEvents(database.read, 1);
  expect(told[0]).toMatchObject({ kind: "failover.amended", object: deadCell });
  expect(told[0]?.text).toContain("1 more lost");
});

test("a router that began after the cell was cut off has no part in it", async () => {
  const { database } = control;
  await callRouter(await control.client("router", "router-9"), "router-9");
  await handIn(page([], { router: "router-9", completeSinceMs: Date.now() }));
  expect((await report()).method).toBe("exact");
  await seenSince("router-9", null);
  expect((await report()).method).toBe("bound");
  await database.read.delete(router).where(eq(router.id, "router-9"));
  await database.read.delete(failoverAck).where(eq(failoverAck.router, "router-9"));
});

test("an adopter that cannot be asked leaves its writes unknown, never lost or found", async () => {
  const { totals } = await makeRpoReport(
    {
      ...{ database: control.database, clock: systemClock, waitMs: 0, log: quiet },
      resolve: async () => "postgres://nobody@127.0.0.1:1/none",
    },
    failoverId,
  );
  // What was found to be lost before stays so.
  expect(totals).toMatchObject({ lost: 2, unknown: 3, found: 0 });
});

test("nobody hands in for another router, an unknown failover, or without end", async () => {
  const client = await control.client("router", "router-3");
  const call = (body: unknown) =>
    client.call({
      method: "POST",
      path: "/v1/machine/router/acks",
      body,
      schema: kept,
      timeoutMs: 10_000,
    });
  await expect(call(page([], { router: "router-1" }))).rejects.toMatchObject({ code: "FORBIDDEN" });
  await expect(
    call(page([], { router: "router-3", failover: "op_1failover999" })),
  ).rejects.toMatchObject({ code: "FAILOVER_UNKNOWN" });
  await control.database.read.insert(failoverAck).values(
    Array.from({ length: ackPagesMax }, (_, number) => ({
      ...{ failover: failoverId, router: "router-3", instance: `i${number}`, entries: [] },
      ...{ completeSinceMs: 0, routerNowMs: 0, last: false },
    })),
  );
  await expect(call(page([], { router: "router-3" }))).rejects.toMatchObject({
    code: "VALIDATION_FAILED",
  });
});
