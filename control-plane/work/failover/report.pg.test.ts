/** Routers hand in what they acknowledged, and the report names what the adopter's real database lacks. */

import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { snapshotTailSchema } from "../../../contract/routing-table.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog } from "../../../runtime/log.ts";
import { type CellStore, createCellStore, storeRoles } from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { type ControlFixture, callRouter, openCell, startControl } from "../../control.fixture.ts";
import { ackPagesMax } from "../../store/failover/acks.ts";
import { readReport } from "../../store/failover/report.ts";
import { cell } from "../../store/schema.ts";
import { failover, failoverAck } from "../../store/schema-standby.ts";
import {
  ackedWrite,
  annexCell,
  deadCell,
  failoverId,
  hostCell,
  recordFailover,
} from "./report.fixture.ts";
import { makeRpoReport } from "./report.ts";

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

const report = () =>
  makeRpoReport(
    {
      ...{ database: control.database, clock: systemClock, waitMs: 0 },
      log: createLog({ clock: systemClock, part: "test", level: "error", write: () => {} }),
      resolve: async () => adopter.moverUrl,
    },
    failoverId,
  );

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

test("a router that served lately and says nothing makes it a bound, with seconds for every tenant", async () => {
  await callRouter(await control.client("router", "router-2"), "router-2");
  const made = await report();
  expect([made.method, made.methodReason]).toEqual([
    "bound",
    "router-2 served the fleet lately and did not hand in what it acknowledged",
  ]);
  expect(made.tenants.map(({ boundSeconds }) => boundSeconds !== null)).toEqual([true, true]);
});

test("an adopter that cannot be asked leaves its writes unknown, never lost or found", async () => {
  const { totals } = await makeRpoReport(
    {
      ...{ database: control.database, clock: systemClock, waitMs: 0 },
      log: createLog({ clock: systemClock, part: "test", level: "error", write: () => {} }),
      resolve: async () => "postgres://nobody@127.0.0.1:1/none",
    },
    failoverId,
  );
  expect(totals).toMatchObject({ lost: 0, unknown: 3, found: 0 });
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
