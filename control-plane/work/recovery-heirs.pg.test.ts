/**
 * A restored control plane and a former owner: what a zombie claims in good faith is not its own while the standby
 * that may have taken it over is silent, until that speaks or is given up.
 */
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { recoverySchema } from "../../contract/recovery-api.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { recoveryEndpoints } from "../api/recovery.ts";
import {
  agentRequest,
  type ControlFixture,
  eventually,
  openCell,
  startControl,
} from "../control.fixture.ts";
import { shownOwner } from "../store/failover/view.ts";
import { enterRecovery } from "../store/recovery-evidence.ts";
import { entry, RecordedCell } from "./recovery.fixture.ts";
import { recoveryTurn } from "./recovery.ts";

const origin = "cell-01";
const annex = "sb-cell-01-cell-02";
let postgres: TestPostgres;
let control: ControlFixture;
let databases = 0;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(async () => {
  await postgres?.stop();
});
/** The backup: cell-01 owns `acme`, and cell-02 keeps its standby. */
beforeEach(async () => {
  databases += 1;
  control = await startControl(await postgres.createDatabase(`heirs${databases}`), (context) =>
    recoveryEndpoints(context),
  );
  const { database } = control;
  for (const id of [origin, "cell-02", annex]) await openCell(database, id);
  await run(`update cellfleet_control.cell
                set annex_origin = '${origin}', annex_host = 'cell-02' where id = '${annex}'`);
  await run(`insert into cellfleet_control.standby
               (annex, origin, host, provider, bucket_lo, bucket_hi, state, listed_at)
             values ('${annex}', '${origin}', 'cell-02', 'logical', 0, 255, 'ready', 1)`);
  await run(`insert into cellfleet_control.placement
               (key, keyspace, kind, value, cell, epoch, state, revision, op)
             values ('default/tenant/acme', 'default', 'tenant', 'acme', '${origin}', 1, 'active', 1, '')`);
});
afterEach(async () => {
  const troubles = control?.troubles ?? [];
  await control?.close();
  expect(troubles).toEqual([]);
});

const run = (text: string) => control.database.read.execute(sql.raw(text));
const cellOf = async (id: string, entries: Parameters<typeof entry>[]) =>
  new RecordedCell(
    id,
    await control.client("agent", id),
    entries.map((one) => entry(...one)),
    1000,
  );
const owner = async () => {
  const { rows } = await run(
    `select cell || ' ' || state as at from cellfleet_control.placement where value = 'acme'`,
  );
  return rows[0]?.["at"];
};
const fleetMode = async () =>
  (await run(`select mode from cellfleet_control.fleet`)).rows[0]?.["mode"];
/** They call until the control plane has heard and told all. */
async function recover(
  cells: readonly RecordedCell[],
  leaseLeftMs = 0,
  { mode = "timed", leaseInPart = false } = {},
): Promise<void> {
  const leaseMode = { mode, number: 1 };
  for (const cell of cells) await cell.call({ leaseLeftMs, leaseInPart, leaseMode });
  for (const cell of cells) await cell.report();
  await eventually(
    async () => {
      for (const cell of cells) await cell.call();
      await recoveryTurn({
        ...{ database: control.database, clock: systemClock, random: systemRandom, leaseTtlMs: 1 },
        onError: (error) => control.troubles.push(error),
      });
      return fleetMode();
    },
    (now) => now === "normal",
  );
  for (const cell of cells) await cell.call({ wantLease: true });
  for (const cell of cells) await cell.call();
}

test("a zombie's claim is kept from it while the standby is silent, and the heir has its own when it is back", async () => {
  const zombie = await cellOf(origin, [["acme", "active", 1]]);
  const host = await cellOf("cell-02", []);
  await recover([zombie, host]);
  expect(await owner()).toBe(`${origin} unavailable`);
  expect(zombie.owns("acme")).toBe(false);
  const shown = await shownOwner(control.database.read, {
    ...{ key: "default/tenant/acme", cell: origin, state: "unavailable" },
  });
  expect(shown.unserved?.reason).toContain("cell-02 may own it since the backup");
  expect(shown.unserved?.next_steps).toContain('cellctl recovery give-up cell-02 --reason "…"');
  expect(zombie.grant).toBeGreaterThan(0);
  // It has a lease by now, which was granted for other keys; and what an earlier recovery heard of one is void.
  await run(`update cellfleet_control.recovery_cell set leased = true`);
  const third = await cellOf(annex, [["acme", "active", 2]]);
  await third.call();
  expect((await run(`select * from cellfleet_control.recovery_cell where leased`)).rows).toEqual(
    [],
  );
  await recover([zombie, host, third], 3000);
  expect(await owner()).toBe(`${annex} active`);
  expect([zombie.owns("acme"), third.owns("acme")]).toEqual([false, true]);
  const events = `select object from cellfleet_control.event where kind = 'recovery.taken-over'`;
  expect((await run(events)).rows).toEqual([{ object: origin }]);
});

test("where it turns out that nobody took over, the key is its owner's again", async () => {
  const zombie = await cellOf(origin, [["acme", "active", 1]]);
  const host = await cellOf("cell-02", []);
  await recover([zombie, host]);
  const standby = await cellOf(annex, []);
  await recover([zombie, host, standby]);
  expect(await owner()).toBe(`${origin} active`);
  expect(zombie.owns("acme")).toBe(true);
});

test("a cell that held a lease when it was first heard was taken over by nobody", async () => {
  const living = await cellOf(origin, [["acme", "active", 1]]);
  const host = await cellOf("cell-02", []);
  // By its second call it has none any more: a recovering control plane grants nothing.
  await recover([living, host], 3000);
  expect(await owner()).toBe(`${origin} active`);
  expect(living.owns("acme")).toBe(true);
});

test("one that gives itself leases may do so after a power-off: unless its database runs since before the backup", async () => {
  const zombie = await cellOf(origin, [["acme", "active", 1]]);
  const host = await cellOf("cell-02", []);
  await recover([zombie, host], 3000, { mode: "manual" });
  expect(await owner()).toBe(`${origin} unavailable`);
});

test("a cell with manual leases that was never off was taken over by nobody", async () => {
  const living = await cellOf(origin, [["acme", "active", 1]]);
  const host = await cellOf("cell-02", []);
  const { boot } = agentRequest(origin).database;
  await run(`update cellfleet_control.cell set boot = '${boot}' where id = '${origin}'`);
  await recover([living, host], 3000, { mode: "manual" });
  expect(await owner()).toBe(`${origin} active`);
});

test("where it has stopped a silent partner's keys, another standby speaks for it: unless that was ordered, or it was started anew", async () => {
  const spoken = "sb-cell-01-cell-03";
  await openCell(control.database, spoken);
  await run(`insert into cellfleet_control.standby
               (annex, origin, host, provider, bucket_lo, bucket_hi, state, listed_at)
             values ('${spoken}', '${origin}', 'cell-03', 'logical', 0, 255, 'ready', 1)`);
  const { boot } = agentRequest(origin).database;
  const bootOf = (text: string) =>
    run(`update cellfleet_control.cell set boot = '${text}' where id = '${origin}'`);
  const partly = { leaseInPart: true };
  await bootOf(boot);
  const living = await cellOf(origin, [["acme", "active", 1]]);
  const others = [await cellOf("cell-02", []), await cellOf(spoken, [])];
  await recover([living, ...others], 3000, partly);
  expect(await owner()).toBe(`${origin} active`);
  // The same again, after a start that the backup does not know.
  await enterRecovery(control.database, again, systemClock.nowMs());
  await bootOf("another");
  await recover([living, ...others], 3000, partly);
  expect(await owner()).toBe(`${origin} unavailable`);
});
const presented = { revision: 0, epoch: 0, grant: 0 };
const again = { who: "this database", text: "it was restored", presented };

test("an admin may give up a lost cell with the standbys in it, and is told what that costs", async () => {
  const zombie = await cellOf(origin, [["acme", "active", 1]]);
  const other = await cellOf("cell-02", []);
  await recover([zombie]);
  expect(await owner()).toBe(`${origin} unavailable`);
  const admin = await control.client("admin");
  const giveUp = (cell: string) =>
    admin.call({
      ...{ method: "POST", path: "/v1/recovery/resolve", timeoutMs: 10_000 },
      body: { cell, action: "give-up", reason: "the rack burnt down" },
      schema: recoverySchema,
    });
  const { next_steps } = await admin.call({
    ...{ method: "GET", path: "/v1/recovery", timeoutMs: 10_000, schema: recoverySchema },
  });
  expect(next_steps).toEqual([
    "cellctl cell start cell-02",
    'cellctl recovery give-up cell-02 --reason "…"   (if it is lost for good)',
  ]);
  await expect(giveUp(origin)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  const { cells } = await giveUp("cell-02");
  const lost = cells.filter(({ state }) => state === "lost");
  expect(lost.map(({ cell, annex: id }) => [cell, id])).toEqual([
    ["cell-02", undefined],
    ["cell-02", annex],
  ]);
  await recover([zombie]);
  expect(await owner()).toBe(`${origin} active`);
  expect(zombie.owns("acme")).toBe(true);
  const told = await run(
    `select text from cellfleet_control.event where kind = 'recovery.given-up'`,
  );
  expect(told.rows[0]?.["text"]).toContain("is lost");
  // Who was given up and speaks after all is heard.
  expect((await other.call()).report).toBe("ownership");
  await recover([zombie, other]);
  const { rows } = await run(`select cell, state from cellfleet_control.recovery_cell`);
  expect(rows).toEqual([{ cell: annex, state: "lost" }]);
});
