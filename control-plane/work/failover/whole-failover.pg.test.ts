/** A failover from its first row to its end, with everything around it as plain values. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must } from "../../../runtime/assert.ts";
import { listEvents } from "../../store/events.ts";
import { fateOf } from "../../store/failover/wave.ts";
import { cell } from "../../store/schema.ts";
import { disowned } from "../../store/schema-recovery.ts";
import { failover, failoverKey, standby } from "../../store/schema-standby.ts";
import { type FailingFixture, keyOf, startFailingFixture, usedIn } from "./failing.fixture.ts";

// One executor follows all of them at once.
let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
  await fixture.lead();
});
afterAll(async () => {
  await fixture.close();
});

const cellOf = async (id: string) => {
  const [row] = await fixture.database.read.select().from(cell).where(eq(cell.id, id));
  return must(row, id);
};

test.concurrent("a dead cell's tenants get new owners, wave by wave, and then go on into whole cells", async () => {
  const { fleet: make, until, database, reports, asked } = fixture;
  const fleet = await make({ tenants: 24, leaseTtlMs: 300 });
  const grantedAt = (await cellOf(fleet.origin)).leaseGrantedAt?.getTime() ?? 0;
  const id = await fleet.begin();
  const run = await until(id, ({ step }) => step === "done");
  const [row] = await database.read.select().from(failover).where(eq(failover.op, id));
  // R3: nothing is cut, let alone given away, before the last lease is certainly over.
  expect(row?.fencedAt?.getTime()).toBeGreaterThanOrEqual(grantedAt + 300);
  expect(row?.open).toBe(false);
  // R4: an annex's stream is cut before anything is prepared there, once, and all of that before the first key.
  for (const { id: annex } of fleet.annexes) {
    const own = fleet.log.filter((line) => line.endsWith(` ${annex}`));
    expect(own.slice(0, 2)).toEqual([`sever ${annex}`, `activate ${annex}`]);
    expect(own.filter((line) => line.startsWith("activate"))).toHaveLength(1);
  }
  const first = (what: string) => fleet.log.findIndex((line) => line.startsWith(what));
  const last = (what: string) => fleet.log.findLastIndex((line) => line.startsWith(what));
  expect(last("sever")).toBeLessThan(first("adopt"));
  expect(last("activate")).toBeLessThan(first("adopt"));
  expect(first("too early")).toBe(-1);
  const origin = await cellOf(fleet.origin);
  expect(origin).toMatchObject({ state: "quarantined", revoking: true, halted: true });
  expect(run.progress).toEqual({
    ...{ keys: 24, adopted: 24, routed: 24, unavailable: 0, quarantined: 0, reprotected: 24 },
  });
  const placed = Object.values(await fleet.placed());
  expect(placed.every((one) => one.endsWith(" 5 active") && !one.startsWith("sb-"))).toBe(true);
  expect(await usedIn(database, fleet)).toMatchObject({
    [fleet.origin]: 0,
    [fleet.annexes[0].id]: 0,
  });
  const fates = await database.read.select().from(failoverKey).where(eq(failoverKey.failover, id));
  expect(new Set(fates.map(({ key }) => key)).size).toBe(24);
  // Two of each annex are tried first.
  expect(fates.filter(({ wave }) => wave === 0)).toHaveLength(4);
  const lost = await database.read.select().from(disowned).where(eq(disowned.cell, fleet.origin));
  expect(lost.every(({ state, epoch }) => state === "moved" && epoch === 3)).toBe(true);
  expect(lost).toHaveLength(24);
  for (const step of ["confirmed", "revoking", "severing", "adopting", "routing", "verifying"]) {
    expect(run.phases[step]).toBeGreaterThanOrEqual(0);
  }
  expect(reports).toContain(id);
  // No provider runs these cells.
  expect(asked.filter((one) => one.includes(fleet.origin))).toEqual([]);
  const states = await database.read.select().from(standby).where(eq(standby.origin, fleet.origin));
  expect(states.map(({ state }) => state)).toEqual(["adopted", "adopted"]);
  expect(states.every(({ remoteLsn }) => remoteLsn === "0/10")).toBe(true);
  const events = await listEvents(database.read, 0, 1000);
  expect(events.filter(({ object }) => object === fleet.origin).map(({ kind }) => kind)).toEqual([
    "failover.begun",
    "failover.severed",
    "failover.adopted",
    "failover.verified",
    "failover.done",
  ]);
});

test.concurrent("an annex that does not answer is not adopted from: its keys are unavailable, by name; the others go on", async () => {
  const { fleet: make, until, database } = fixture;
  const fleet = await make();
  const [dead, alive] = fleet.annexes;
  dead.answers = false;
  const id = await fleet.begin();
  const run = await until(id, ({ step }) => step === "done");
  const { adopted, unavailable } = run.progress;
  expect(adopted + unavailable).toBe(12);
  expect(adopted).toBeGreaterThan(0);
  expect(unavailable).toBeGreaterThan(0);
  const placed = await fleet.placed();
  const left = Object.entries(placed).filter(([, at]) => at === `${fleet.origin} 3 unavailable`);
  expect(left).toHaveLength(unavailable);
  const fate = await fateOf(database.read, keyOf(left[0]?.[0] ?? ""));
  expect(fate).toMatchObject({ failover: id, fate: "unavailable" });
  expect(fate?.reason).toContain(`${dead.id}: its agent has not recorded the order`);
  expect(fate?.reason).toContain(`cellctl failover start ${fleet.origin}`);
  expect(fleet.log).not.toContain(`sever ${dead.id}`);
  // It is back: another failover of the same cell takes what is left.
  dead.answers = true;
  const again = await fleet.begin();
  const second = await until(again, ({ step }) => step === "done");
  expect(second.progress).toMatchObject({ adopted: unavailable, unavailable: 0 });
  expect(Object.values(await fleet.placed()).every((one) => one.endsWith("5 active"))).toBe(true);
  expect(alive.id).not.toBe(dead.id);
});

test.concurrent("an annex whose database never records that its stream is cut is given nothing", async () => {
  const { fleet: make, until } = fixture;
  const fleet = await make();
  fleet.annexes[0].recordsOpen = false;
  const id = await fleet.begin();
  const run = await until(id, ({ step }) => step === "done");
  expect(run.progress.adopted).toBeGreaterThan(0);
  expect(run.progress.unavailable).toBeGreaterThan(0);
  expect(run.evidence.annexes[fleet.annexes[0].id]).toMatchObject({
    ...{ status: "left-out", reason: "its agent has not recorded that the stream is cut" },
  });
});

test.concurrent("a copy in a host that is quarantined, as one that was set back in time, is not adopted from", async () => {
  const { fleet: make, until, database } = fixture;
  const fleet = await make();
  const [apart] = fleet.annexes;
  const [row] = await database.read.select().from(standby).where(eq(standby.annex, apart.id));
  const host = must(row?.host, apart.id);
  await database.read.update(cell).set({ state: "quarantined" }).where(eq(cell.id, host));
  const id = await fleet.begin();
  const run = await until(
    id,
    ({ progress: { adopted, unavailable } }) => adopted + unavailable === 12,
  );
  expect(run.progress.unavailable).toBeGreaterThan(0);
  expect(run.evidence.annexes[apart.id]?.reason).toBe(`its host ${host} is quarantined`);
  expect(fleet.log).not.toContain(`sever ${apart.id}`);
});

test.concurrent("cell and partners die together: nobody guesses, and every key says why", async () => {
  const { fleet: make, until, unseverable } = fixture;
  const fleet = await make({ tenants: 5 });
  const [first, second] = fleet.annexes;
  first.answers = false;
  unseverable.add(second.id);
  const id = await fleet.begin();
  const run = await until(id, ({ step }) => step === "done");
  expect(run.progress).toMatchObject({ keys: 5, adopted: 0, unavailable: 5 });
  expect(new Set(Object.values(await fleet.placed()))).toEqual(
    new Set([`${fleet.origin} 3 unavailable`]),
  );
  expect(run.evidence.annexes[second.id]?.reason).toContain("does not answer");
});

test.concurrent("a promise is waited out; proof that the origin is dead ends that wait, and not the one for the lease", async () => {
  const { fleet: make, until, see, provedDead, database } = fixture;
  const fleet = await make({ leaseTtlMs: 250 });
  fleet.annexes[0].promiseMs = 60_000;
  const id = await fleet.begin();
  await until(id, ({ headline }) => headline.includes("promised"));
  expect((await see(id)).step).toBe("revoking");
  provedDead.add(fleet.origin);
  const run = await until(id, ({ step }) => step === "done");
  expect(run.evidence.proof).toContain("the provider");
  const [order] = await database.read
    .select()
    .from(standby)
    .where(eq(standby.annex, fleet.annexes[0].id));
  expect(order?.orderProved).toBe(true);
  const dead = await make({ leaseTtlMs: 250 });
  dead.annexes[0].promiseMs = 60_000;
  const grantedAt = (await cellOf(dead.origin)).leaseGrantedAt?.getTime() ?? 0;
  const known = await dead.begin({ provedDead: true });
  await until(known, ({ step }) => step === "done");
  const [row] = await database.read.select().from(failover).where(eq(failover.op, known));
  expect(row?.fencedAt?.getTime()).toBeGreaterThanOrEqual(grantedAt + 250);
});

test.concurrent("a cell that gave itself leases is waited for by the longest that it can have had, from the order on", async () => {
  const { fleet: make, until, database } = fixture;
  const fleet = await make({ leaseTtlMs: 40 });
  // Its last grant is long over; what it gave itself since nobody has recorded.
  await database.read
    .update(cell)
    .set({ leaseMode: "manual", leaseModeNumber: 1, leaseModeAcked: 1, leaseGrantedAt: longAgo() })
    .where(eq(cell.id, fleet.origin));
  fleet.annexes[0].promiseMs = 60_000;
  const id = await fleet.begin({ provedDead: true });
  const run = await until(id, ({ step }) => step === "revoking");
  expect(run.evidence.lease?.waitMs).toBeGreaterThan(10_000);
  const { headline } = await until(id, (one) => one.headline.includes("gets no lease any more"));
  expect(headline).not.toContain("promised");
  await fixture.wish(id, "abort");
  await until(id, ({ step }) => step === "restoring");
  const timed = await make({ leaseTtlMs: 40 });
  await database.read
    .update(cell)
    .set({ leaseGrantedAt: longAgo() })
    .where(eq(cell.id, timed.origin));
  const other = await timed.begin();
  const { evidence } = await until(other, ({ step }) => step === "done");
  expect(evidence.lease?.waitMs).toBe(0);
});
const longAgo = () => new Date(Date.now() - 3_600_000);

test.concurrent("called off before anything is cut: the cell may have its lease again, its annexes may promise", async () => {
  const { fleet: make, until, wish, database } = fixture;
  const fleet = await make({ leaseTtlMs: 60_000 });
  const id = await fleet.begin();
  await until(id, ({ step }) => step === "revoking");
  await wish(id, "abort");
  await until(id, ({ step }) => step === "restoring" || step === "cancelled");
  const back = await cellOf(fleet.origin);
  expect(back).toMatchObject({ state: "active", goal: "active", revoking: false, halted: false });
  await database.read
    .update(cell)
    .set({ leaseGrantedAt: new Date(Date.now() + 1000) })
    .where(eq(cell.id, fleet.origin));
  const run = await until(id, ({ step }) => step === "cancelled");
  expect(run.headline).toContain("has a lease");
  const rows = await database.read.select().from(standby).where(eq(standby.origin, fleet.origin));
  expect(
    rows.every((one) => one.state === "announcing" && one.orderFailover === null && !one.orderOpen),
  ).toBe(true);
  expect(fleet.log).toEqual([]);
  expect(new Set(Object.values(await fleet.placed()))).toEqual(
    new Set([`${fleet.origin} 3 active`]),
  );
});

test.concurrent("planned: live moves empty the cell, which serves to the last; its keys are in whole cells", async () => {
  const { fleet: make, until } = fixture;
  const fleet = await make({ tenants: 7 });
  const id = await fleet.begin({ mode: "planned" });
  const run = await until(id, ({ step }) => step === "done");
  expect(run.progress).toMatchObject({ keys: 7, adopted: 7 });
  expect(await cellOf(fleet.origin)).toMatchObject({
    ...{ state: "cordoned", revoking: false, halted: false, usedTenants: 0 },
  });
  expect(fleet.log).toEqual([]);
  const placed = Object.values(await fleet.placed());
  expect(placed.every((one) => one.endsWith("4 active") && !one.startsWith(fleet.origin))).toBe(
    true,
  );
});
