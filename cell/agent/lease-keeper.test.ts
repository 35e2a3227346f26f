/** The lease in a process whose clocks are moved by hand. */
import { expect, test } from "vitest";
import type { Clock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import type { DatabaseFacts } from "../store/facts.ts";
import { withoutStandbys } from "../store/standby-facts.fixture.ts";
import type { AgentEvents } from "./events.ts";
import { LeaseKeeper } from "./lease-keeper.ts";

const boot = "2026-11-22T00:00:00.000Z";
const ttlMs = 60_000;

function setUp() {
  let wallMs = 1_000_000;
  let monoMs = 500;
  const events: string[] = [];
  const clock: Clock = {
    nowMs: () => wallMs,
    monotonicMs: () => monoMs,
    after: () => ({ cancel: () => {} }),
    sleep: async () => {},
  };
  const log = createLog<AgentEvents>({
    ...{ clock, part: "agent", level: "info" },
    write: (line) => events.push(JSON.parse(line).event),
  });
  const keeper = new LeaseKeeper(clock, log);
  const facts = (lease: DatabaseFacts["lease"]): DatabaseFacts => ({
    ...{ cell: "cell-01", systemIdentifier: "1", timeline: 1, boot, clock: boot },
    ...{ grant: lease.grant, lease, epochMax: 1, appliedRevision: 1, inRecovery: false },
    ...{ stage: "enforce", stageNumber: 0, wouldRefuse: {}, guardedTables: 1, schemaVersion: null },
    standby: withoutStandbys,
  });
  return {
    keeper,
    events,
    grant: (grant: number) => keeper.take({ grant, ttlMs, boot, sentMonoMs: monoMs }),
    observe: (lease: DatabaseFacts["lease"]) => keeper.observe(facts(lease), monoMs, monoMs),
    pass: (ms: number) => {
      wallMs += ms;
      monoMs += ms;
      keeper.tick();
    },
    stepWall: (ms: number) => {
      wallMs += ms;
      keeper.tick();
    },
  };
}

test("a lease ends by the monotonic clock, is ended in the database once, and begins anew", () => {
  const { keeper, events, grant, pass } = setUp();
  grant(1);
  expect(keeper.isRenewalDue()).toBe(false);
  pass(20_000);
  expect(keeper.isRenewalDue()).toBe(true);
  pass(40_000);
  expect(keeper.remainingMs()).toBe(0);
  expect(keeper.grantToEnd()).toBe(1);
  keeper.noteEnded(1);
  expect(keeper.grantToEnd()).toBeUndefined();
  grant(2);
  expect(keeper.remainingMs()).toBeGreaterThan(0);
  pass(ttlMs);
  expect(keeper.grantToEnd()).toBe(2);
  expect(events).toEqual(["lease.held", "lease.lost", "lease.held", "lease.lost"]);
});

test("a wall clock that jumps ahead takes the time away: the machine may have slept", () => {
  const { keeper, grant, stepWall } = setUp();
  grant(1);
  stepWall(3_600_000);
  expect(keeper.remainingMs()).toBe(0);
  expect(keeper.grantToEnd()).toBe(1);
});

test("a wall clock that falls back gives nothing, also when it comes back in steps", () => {
  const { keeper, grant, stepWall, pass } = setUp();
  grant(1);
  const before = keeper.remainingMs();
  stepWall(-3_600_000);
  expect(keeper.remainingMs()).toBe(before);
  pass(1000);
  expect(keeper.remainingMs()).toBe(before - 1000);
});

test("small differences between the clocks are no jump", () => {
  const { keeper, grant, stepWall } = setUp();
  grant(1);
  const before = keeper.remainingMs();
  stepWall(400);
  expect(keeper.remainingMs()).toBe(before);
});

test("a grant that the database does not hold any more is over here too", () => {
  const { keeper, grant, observe } = setUp();
  grant(3);
  observe({ live: false, remainingMs: 0, grant: 3 });
  expect(keeper.remainingMs()).toBe(0);
  // Its clock falls back and the row looks alive: it is ended for good.
  observe({ live: true, remainingMs: ttlMs, grant: 3 });
  expect(keeper.remainingMs()).toBe(0);
  expect(keeper.grantToEnd()).toBe(3);
});

test("an agent that starts when the lease has ended knows that there was one", () => {
  const { keeper, observe } = setUp();
  expect(keeper.grantMax).toBe(0);
  observe({ live: false, remainingMs: 0, grant: 3 });
  expect(keeper.remainingMs()).toBe(0);
  expect(keeper.grantMax).toBe(3);
});
