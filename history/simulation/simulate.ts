/**
 * One run: a seed, a scenario, and at most one of the known mistakes. What customers, databases and the
 * control plane would have recorded goes to the checker, which knows nothing of the simulation.
 */
import { checkHistory } from "../check.ts";
import type { Verdict } from "../model.ts";
import type { BugName, Scenario } from "./bugs.ts";
import { rowsOf } from "./cell.ts";
import {
  createFleet,
  cronJob,
  customer,
  type Fleet,
  leaseOf,
  neighbour,
  outboxWorker,
  reader,
  registerUser,
  tenant,
} from "./fleet.ts";
import { carryOut, createMove, createStream, purgeSource, settleNeighbour } from "./move.ts";
import { takeOver } from "./takeover.ts";
import { type Actor, pause } from "./world.ts";

type Run = {
  readonly verdict: Verdict;
  /** Everybody came to an end within the steps allowed. */
  readonly ended: boolean;
};

const stepsMax = 60_000;
const customers = 5;
const ordersEach = 12;

export function simulate(seed: number, scenario: Scenario, bug?: BugName): Run {
  const fleet = createFleet(seed, bug);
  const { world, cells } = fleet;
  settleNeighbour(fleet);
  fleet.dedupes = scenario !== "move";
  const told = world.start(storyOf(fleet, scenario));
  for (let n = 0; n < customers; n += 1) world.start(customer(fleet, `customer-${n}`, ordersEach));
  world.start(reader(fleet, "reader-1", 20));
  world.start(reader(fleet, "reader-2", 20));
  if (scenario === "move") {
    // After a takeover a register may have lost what was set, and a message may be sent again.
    for (const name of ["swap-1", "swap-2"]) world.start(registerUser(fleet, name, 15));
    for (const cell of cells) world.start(outboxWorker(fleet, cell));
  }
  for (const cell of cells) world.start(cronJob(fleet, cell, 30));
  const ended = world.run(() => told.ended && fleet.requests === customers * ordersEach, stepsMax);
  // Whatever is still under way may come to its end.
  world.run(() => false, 400);
  return { verdict: judge(fleet), ended };
}

function* storyOf(fleet: Fleet, scenario: Scenario): Actor {
  const { world } = fleet;
  const [a, b, c] = fleet.cells;
  yield* pause(world, 200);
  if (scenario === "takeover") {
    const standby = createStream(world, { from: a, to: b, position: 0 }, true);
    standby.on = true;
    const grants = { until: 0, on: true };
    a.lease = { until: 0, boot: a.boot };
    world.start(leaseOf(fleet, a, grants));
    yield* pause(world, 600);
    const dies = !world.has("lease-from-response") && world.chance() < 0.5;
    yield* takeOver(fleet, { cell: a, standby, grants, dies: dies || world.has("no-boot-check") });
    return;
  }
  const standby = createStream(world, { from: b, to: c, position: 0 }, true);
  standby.on = scenario === "move-then-takeover" && !world.has("purge-early");
  const there = createMove(fleet, b);
  yield* carryOut(fleet, there, scenario === "move" ? 3 : 0);
  if (scenario === "move-then-takeover") {
    const activated = b.log.length;
    if (world.has("purge-early")) yield* purgeSource(fleet, there);
    else yield () => standby.position >= activated;
    yield* pause(world, 100);
    yield* takeOver(fleet, { cell: b, standby, grants: { until: 0, on: false }, dies: true });
    return;
  }
  // And back by the stream that has followed meanwhile.
  yield* pause(world, 300);
  const back = createMove(fleet, a, there.back);
  yield* carryOut(fleet, back, 2);
  yield* pause(world, 100);
  yield* purgeSource(fleet, back);
}

function judge(fleet: Fleet): Verdict {
  const { recorder, cells } = fleet;
  for (const { name, commits } of cells) {
    for (const { value, epoch, at } of commits) {
      const txid = `${name}.${at}`;
      const committedAt = new Date(at).toISOString();
      recorder.note({ kind: "commit", cell: name, tenant, epoch, txid, value, committedAt });
    }
  }
  const homes = [
    [tenant, fleet.route.cell],
    [neighbour, cells[1]],
  ] as const;
  for (const [of, cell] of homes) {
    for (const { key, data } of rowsOf(cell, "orders", of)) {
      recorder.note({ kind: "present", tenant: of, value: data, cell: cell.name, ref: key });
    }
    recorder.note({ kind: "read", tenant: of });
  }
  return checkHistory(fleet.entries);
}
