/**
 * A failover whose executor is stopped at each boundary of each step of the table, and that another one finishes.
 * Nothing happens twice, and nothing an earlier attempt sends has an effect.
 */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { FailoverStep } from "../../../contract/failover-api.ts";
import {
  failoverTransitions,
  isFailoverEnd,
  nextFailoverStep,
} from "../../core/failover/failover-state.ts";
import { Abandoned } from "../../store/abandoned.ts";
import { adoptWave, readRemaining } from "../../store/failover/adopt.ts";
import { enterFailover } from "../../store/failover/enter.ts";
import { findRun } from "../../store/failover/evidence.ts";
import { cell } from "../../store/schema.ts";
import { failoverKey } from "../../store/schema-standby.ts";
import { type FailingFixture, startFailingFixture, usedIn } from "./failing.fixture.ts";

let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
});
afterAll(async () => {
  for (const end of hanging) end();
  await fixture.close();
});

/** As a process that is killed: it goes no further, until the test is over. */
const hanging: Array<() => void> = [];
const hang = (): Promise<never> =>
  new Promise((_, reject) => {
    hanging.push(() => reject(new Error("killed")));
  });

/** The straight way of an unplanned failover, step by step along the table. */
const straight = ["stopped", "severed", "adopted", "routed", "verified", "reprotected"] as const;
const steps: FailoverStep[] = ["confirmed", "revoking"];
for (const event of straight) {
  const at = steps.at(-1) ?? "confirmed";
  const next = nextFailoverStep(at, event);
  if (next !== undefined && !isFailoverEnd(next)) steps.push(next);
}
const asides: readonly FailoverStep[] = ["evacuating", "restoring", "halted"];
type Boundary = readonly [FailoverStep, "before" | "after"];
const boundaries: Boundary[] = steps.flatMap((step): Boundary[] => [
  [step, "before"],
  [step, "after"],
]);

/** An executor that leads until it stands there, and is heard of no more. */
async function killedAt(
  id: string,
  [step, when]: Boundary,
  meanwhile: () => Promise<void> = async () => {},
): Promise<void> {
  let reached: (value: unknown) => void = () => {};
  const standing = new Promise((resolve) => {
    reached = resolve;
  });
  const executor = await fixture.lead({
    onBoundary: async (at) => {
      if (at.op !== id || at.step !== step || at.when !== when) return;
      reached(undefined);
      await hang();
    },
  });
  await standing;
  await meanwhile();
  // Nobody waits for what hangs: the next term's executor comes while this one still stands there.
  void executor.close().catch(() => undefined);
}

test("every step of the table that has an effect is stopped at by a test of this file", () => {
  const stoppedAt = [...steps, ...asides];
  const withEffect = Object.entries(failoverTransitions).flatMap(([step, next]) =>
    Object.keys(next).length === 0 ? [] : [step],
  );
  expect(new Set<string>(stoppedAt)).toEqual(new Set(withEffect));
});

test("the straight way is in the table, and ends", () => {
  expect(steps).toEqual([
    ...["confirmed", "revoking", "severing", "adopting", "routing", "verifying", "reprotecting"],
  ]);
  expect(failoverTransitions.reprotecting).toEqual({ reprotected: "done" });
});

test("an executor that stops at any boundary is followed by one that goes on; every key is adopted once", async () => {
  const fleet = await fixture.fleet({ tenants: 6, leaseTtlMs: 60 });
  const id = await fleet.begin();
  for (const boundary of boundaries) await killedAt(id, boundary);
  const last = await fixture.lead();
  const run = await fixture.until(id, (one) => one.step === "done");
  expect(run.attempt).toBeGreaterThanOrEqual(boundaries.length);
  expect(run.progress).toMatchObject({ keys: 6, adopted: 6, reprotected: 6, unavailable: 0 });
  // Once adopted, once moved on: no key was given away twice.
  expect(Object.values(await fleet.placed()).every((one) => one.endsWith(" 5 active"))).toBe(true);
  const fates = await fixture.database.read
    .select()
    .from(failoverKey)
    .where(eq(failoverKey.failover, id));
  expect(fates).toHaveLength(6);
  expect((await usedIn(fixture.database, fleet))[fleet.origin]).toBe(0);
  const { annexes } = fleet;
  for (const { id: annex } of annexes) {
    const own = fleet.log.filter((line) => line.endsWith(annex));
    const at = (word: string) => own.findIndex((line) => line.startsWith(word));
    const lastAt = (word: string) => own.findLastIndex((line) => line.startsWith(word));
    // Cut and prepared as often as it was begun: never prepared before it was cut, and in the end after that.
    expect(at("sever")).toBeGreaterThanOrEqual(0);
    expect(at("activate")).toBeGreaterThan(at("sever"));
    expect(lastAt("activate")).toBeGreaterThan(lastAt("sever"));
  }
  await last.close();
});

test("a planned one goes on where it was stopped, and the cell is emptied once", async () => {
  const fleet = await fixture.fleet({ tenants: 5 });
  const id = await fleet.begin({ mode: "planned" });
  await killedAt(id, ["confirmed", "after"]);
  await killedAt(id, ["evacuating", "before"]);
  await killedAt(id, ["evacuating", "after"]);
  const last = await fixture.lead();
  const run = await fixture.until(id, ({ step }) => step === "done");
  expect(run.progress).toMatchObject({ keys: 5, adopted: 5, unavailable: 0 });
  const placed = Object.values(await fleet.placed());
  expect(placed.every((one) => one.endsWith(" 4 active") && !one.startsWith(fleet.origin))).toBe(
    true,
  );
  await last.close();
});

test("one that is called off gives the lease back, whoever goes on with it", async () => {
  const fleet = await fixture.fleet({ tenants: 4, leaseTtlMs: 20_000 });
  const id = await fleet.begin();
  await killedAt(id, ["revoking", "before"], () => fixture.wish(id, "abort"));
  await killedAt(id, ["restoring", "before"]);
  await fixture.database.read
    .update(cell)
    .set({ leaseGrantedAt: new Date(Date.now() + 1000) })
    .where(eq(cell.id, fleet.origin));
  await killedAt(id, ["restoring", "after"]);
  const last = await fixture.lead();
  await fixture.until(id, ({ step }) => step === "cancelled");
  expect(Object.values(await fleet.placed())).toEqual(
    Array.from({ length: 4 }, () => `${fleet.origin} 3 active`),
  );
  await last.close();
});

test("one that is halted stays so without its executor, and goes on when somebody says so", async () => {
  const fleet = await fixture.fleet({ tenants: 20 });
  const [annex] = fleet.annexes;
  annex.onApplied = () => {
    annex.boot = "2";
    annex.onApplied = () => {};
  };
  const id = await fleet.begin();
  await killedAt(id, ["halted", "before"]);
  expect((await fixture.see(id)).step).toBe("halted");
  await fixture.wish(id, "resume");
  await killedAt(id, ["halted", "after"]);
  const last = await fixture.lead();
  // Not done before somebody has decided about what is quarantined.
  const run = await fixture.until(id, (one) => one.step === "reprotecting");
  expect(run.progress).toMatchObject({ keys: 20, adopted: 18, quarantined: 2 });
  await last.close();
});

test("what an earlier attempt, or a deposed leader, sends is void; a wave that is sent twice changes nothing", async () => {
  const { database } = fixture;
  const fleet = await fixture.fleet({ tenants: 4, leaseTtlMs: 0 });
  const id = await fleet.begin();
  const executor = await fixture.lead({
    onBoundary: async (at) => {
      if (at.op === id && at.step === "adopting") await hang();
    },
  });
  const run = await fixture.until(id, ({ step }) => step === "adopting");
  const annex = fleet.annexes[0].id;
  const keys = (await readRemaining(database.read, run)).map((one) => ({
    ...{ ...one, annex, reason: "" },
  }));
  const [first, ...rest] = keys;
  if (first === undefined) throw new Error("no key");
  const turn = { term: executor.term, run };
  const older = { ...turn, run: { ...run, attempt: run.attempt - 1 } };
  await expect(adoptWave(database, older, { number: 0, keys })).rejects.toThrow(Abandoned);
  await expect(
    adoptWave(database, { ...turn, term: executor.term - 1 }, { number: 0, keys }),
  ).rejects.toThrow(Abandoned);
  expect(await adoptWave(database, turn, { number: 0, keys: [first] })).toMatchObject({ keys: 1 });
  expect(await adoptWave(database, turn, { number: 0, keys: [first] })).toMatchObject({ keys: 0 });
  // Another epoch than the one that was looked at: somebody else moved it meanwhile.
  const stale = rest.map((one) => ({ ...one, epoch: one.epoch - 1 }));
  expect(await adoptWave(database, turn, { number: 1, keys: stale })).toMatchObject({ keys: 0 });
  const tooOld = { ...run, version: run.version - 1 };
  const change = { step: "routing", state: "running", headline: "too late" } as const;
  expect(await enterFailover(database, executor.term, tooOld, change)).toBe("raced");
  expect(await enterFailover(database, executor.term - 1, run, change)).toBe("deposed");
  const used = await usedIn(database, fleet);
  expect(used).toMatchObject({ [fleet.origin]: 3, [annex]: 1 });
  expect((await findRun(database.read, id))?.step).toBe("adopting");
});
