/**
 * The control plane's database is restored while a failover is open: it goes on where nobody can have what it
 * would give away, else it ends; and a cell that was let back since is in service.
 */
import { eq, inArray, sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { FailoverStep } from "../../../contract/failover-api.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemRandom } from "../../../runtime/random.ts";
import { enterRecovery } from "../../store/recovery-evidence.ts";
import { cell, fleet as fleetTable } from "../../store/schema.ts";
import { recoveryCell } from "../../store/schema-recovery.ts";
import { failover, standby } from "../../store/schema-standby.ts";
import { recoveryTurn } from "../recovery.ts";
import {
  type FailingFixture,
  type FakeFleet,
  keyOf,
  startFailingFixture,
} from "./failing.fixture.ts";

let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
});
afterAll(async () => {
  await fixture?.close();
});

/** Its executor is killed before this step has any effect. */
async function begunUntil(fleet: FakeFleet, step: FailoverStep): Promise<string> {
  const id = await fleet.begin();
  let kill: (why: Error) => void = () => {};
  const reached = Promise.withResolvers<void>();
  const executor = await fixture.lead({
    onBoundary: async (at) => {
      if (at.op !== id || at.step !== step) return;
      const killed = new Promise<never>((_, reject) => {
        kill = reject;
      });
      reached.resolve();
      await killed;
    },
  });
  await reached.promise;
  const closed = executor.close();
  kill(new Error("killed"));
  await closed;
  return id;
}

type Claimed = {
  readonly cell: string;
  readonly tenant: string;
  readonly epoch: number;
  readonly state?: "active" | "moved";
};

/** All say that they own what stands here, but for those that are silent and for what is given. */
async function recover(silent: readonly string[], claims: readonly Claimed[] = []): Promise<void> {
  const { database } = fixture;
  const presented = { revision: 0, epoch: 0, grant: 0 };
  const text = "it was restored";
  await enterRecovery(database, { who: "this database", text, presented }, systemClock.nowMs());
  const mute = sql.param([...silent]);
  await database.read.execute(sql`
    insert into cellfleet_control.recovery_claim (key, cell, state, epoch)
    select key, cell, 'active', epoch from cellfleet_control.placement
     where not deleted and cell <> all(${mute}::text[])
       and key <> all(${sql.param(claims.map(({ tenant }) => keyOf(tenant)))}::text[])`);
  for (const { cell: at, tenant, epoch, state = "active" } of claims) {
    await database.read.execute(sql`
      insert into cellfleet_control.recovery_claim (key, cell, state, epoch)
      values (${keyOf(tenant)}, ${at}, ${state}, ${epoch})`);
  }
  await database.read.update(recoveryCell).set({ state: "reported" });
  if (silent.length > 0) {
    const gone = inArray(recoveryCell.cell, [...silent]);
    await database.read.update(recoveryCell).set({ state: "frozen" }).where(gone);
  }
  const mode = async () => (await database.read.select().from(fleetTable))[0]?.mode;
  while ((await mode()) === "recovering") {
    await recoveryTurn({
      ...{ database, clock: systemClock, random: systemRandom, leaseTtlMs: 40 },
      onError: (error) => {
        throw error;
      },
    });
    // Losers have heard that they are.
    await database.read.update(cell).set({ appliedRevision: sql`2000000000` });
  }
  await database.read.update(cell).set({ appliedRevision: 0 });
}

const cellOf = async (id: string) =>
  must((await fixture.database.read.select().from(cell).where(eq(cell.id, id)))[0], id);
const isOpen = async (id: string) =>
  must((await fixture.database.read.select().from(failover).where(eq(failover.op, id)))[0], id)
    .open;
const standbyOf = async (annex: string) =>
  must(
    (await fixture.database.read.select().from(standby).where(eq(standby.annex, annex)))[0],
    annex,
  );

test("one that was giving keys away goes on when all others have spoken: nobody else has them", async () => {
  const fleet = await fixture.fleet({ tenants: 6 });
  const id = await begunUntil(fleet, "adopting");
  // After the backup an annex had adopted one key; another went on to somebody that nobody knows here.
  const [first = "", second = ""] = fleet.tenants;
  await recover(
    [fleet.origin],
    [
      { cell: fleet.annexes[0].id, tenant: first, epoch: 4 },
      { cell: fleet.annexes[1].host, tenant: second, epoch: 5, state: "moved" },
    ],
  );
  expect(await fixture.see(id)).toMatchObject({ step: "adopting", state: "running" });
  expect(await isOpen(id)).toBe(true);
  const executor = await fixture.lead();
  const run = await fixture.until(id, ({ step }) => step === "done");
  await executor.close();
  expect(run.attempt).toBeGreaterThan(1000);
  const placed = await fleet.placed();
  const served = Object.entries(placed).filter(([, at]) => at.endsWith(" active"));
  expect(served.map(([tenant]) => tenant).sort()).toEqual(
    fleet.tenants.filter((tenant) => tenant !== second).sort(),
  );
  expect(placed[second]).toContain("unavailable");
});

test("one that had severed nothing ends, and its cell stands as before", async () => {
  const fleet = await fixture.fleet({ tenants: 3 });
  const id = await begunUntil(fleet, "revoking");
  expect(await cellOf(fleet.origin)).toMatchObject({ revoking: true, state: "quarantined" });
  await recover([]);
  expect(await fixture.see(id)).toMatchObject({ step: "failed", state: "failed" });
  expect(await isOpen(id)).toBe(false);
  expect(await cellOf(fleet.origin)).toMatchObject({
    ...{ revoking: false, halted: false, state: "active", goal: "active" },
  });
  const one = await standbyOf(fleet.annexes[0].id);
  expect(one).toMatchObject({ state: "announcing", orderFailover: null });
  expect(Object.values(await fleet.placed())).toEqual(Array(3).fill(`${fleet.origin} 3 active`));
});

test("a cell that a control plane has granted since is in service: nothing is taken from it", async () => {
  const fleet = await fixture.fleet({ tenants: 2 });
  const id = await begunUntil(fleet, "adopting");
  const known = { controlGrantSeen: 900, systemIdentifier: "1" };
  await fixture.database.read.update(cell).set(known).where(eq(cell.id, fleet.origin));
  await recover(
    [],
    fleet.tenants.map((tenant) => ({ cell: fleet.origin, tenant, epoch: 9 })),
  );
  expect(await fixture.see(id)).toMatchObject({ step: "failed" });
  expect(await cellOf(fleet.origin)).toMatchObject({
    ...{ revoking: false, state: "active", systemIdentifier: "" },
  });
  const placed = Object.values(await fleet.placed());
  expect(placed.every((at) => at.startsWith(`${fleet.origin} `))).toBe(true);
  // Where the backup had the failover's end, and not the cell's return.
  const apart = {
    revoking: true,
    halted: true,
    state: "quarantined",
    goal: "quarantined",
  } as const;
  const again = { ...apart, grant: 7, controlGrantSeen: 901 };
  await fixture.database.read.update(cell).set(again).where(eq(cell.id, fleet.origin));
  await recover([]);
  expect(await cellOf(fleet.origin)).toMatchObject({ revoking: false, state: "cordoned" });
});

test("a zombie that lived by promises after the backup stays apart", async () => {
  const fleet = await fixture.fleet({ tenants: 1 });
  const apart = {
    revoking: true,
    halted: true,
    state: "quarantined",
    goal: "quarantined",
  } as const;
  const own = { ...apart, grantSeen: 950, controlGrantSeen: 7 };
  await fixture.database.read.update(cell).set(own).where(eq(cell.id, fleet.origin));
  await recover([]);
  expect(await cellOf(fleet.origin)).toMatchObject({ revoking: true, state: "quarantined" });
});

test("where somebody is missing it goes no further: he may have what it would give away", async () => {
  const fleet = await fixture.fleet({ tenants: 4 });
  const id = await begunUntil(fleet, "adopting");
  const [first = "", ...rest] = fleet.tenants;
  const [annex, host] = [fleet.annexes[0].id, fleet.annexes[1].host];
  await recover([fleet.origin, host], [{ cell: annex, tenant: first, epoch: 4 }]);
  expect(await fixture.see(id)).toMatchObject({ step: "failed", state: "failed" });
  expect(await cellOf(fleet.origin)).toMatchObject({ revoking: true, state: "quarantined" });
  const placed = await fleet.placed();
  expect(placed[first]).toContain(`${annex} `);
  expect(rest.every((tenant) => placed[tenant] === `${fleet.origin} 3 unavailable`)).toBe(true);
  // The keeper sees to what it owns.
  expect(await standbyOf(annex)).toMatchObject({ state: "adopted" });
  expect(await standbyOf(fleet.annexes[1].id)).toMatchObject({ state: "adopting" });
});
