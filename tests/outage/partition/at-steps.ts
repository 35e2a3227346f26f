/**
 * What happens at each step of a failover, from the table: the lost cell returns, or the control plane that acts
 * is killed. A step that is added to the straight way is in here without another line.
 */
import type { FailoverStep } from "../../../contract/failover-api.ts";
import {
  failoverEvents,
  failoverTransitions,
  isFailoverEnd,
} from "../../../control-plane/core/failover/failover-state.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { until } from "../../fleet.ts";
import type { Boundary } from "../../moves/boundary.ts";
import type { StoppingControlPlane } from "../../moves/stopping-fleet.ts";
import type { Scenario, Stage } from "./scenarios.ts";

type Moment = Extract<Boundary, { readonly of: "failover" }>;

/** Of an unplanned failover that nobody calls off and nothing holds up. */
function straightWay(): readonly FailoverStep[] {
  const steps: FailoverStep[] = [];
  const asides: ReadonlySet<string> = new Set(["evacuate", "poisoned", "aborted"]);
  let at: FailoverStep | undefined = "confirmed";
  while (at !== undefined && !isFailoverEnd(at)) {
    steps.push(at);
    const next: Readonly<Partial<Record<string, FailoverStep>>> = failoverTransitions[at];
    const event = failoverEvents.find((one) => !asides.has(one) && next[one] !== undefined);
    at = event === undefined ? undefined : next[event];
  }
  return steps;
}

export const moments: readonly Moment[] = straightWay().flatMap((step) =>
  (["before", "after"] as const).map((when) => ({ of: "failover" as const, step, when })),
);

const unpromisedMs = 60_000;
/** Acknowledged meanwhile, and nobody else has it. */
const unreplicatedMs = 1200;
const returnedMs = 4000;

/** Its streams stand still first, so that it has rows of its own; then all of it does. */
async function lose({ world, victim, others, say }: Stage): Promise<void> {
  // The control plane was another's until now: whoever has not heard of it again asks its partners for promises.
  const before = await world.granted(victim);
  const isHeard = async () => (await world.granted(victim)) > before;
  await until("the control plane is heard again", isHeard, unpromisedMs);
  await until("no promise is left", () => world.unpromised(victim), unpromisedMs);
  world.stop(...(await world.senders(victim)));
  await systemClock.sleep(unreplicatedMs);
  const annexes = others.map((other) => `sb-${other}-${victim}-agent`);
  const units = [`${victim}-agent`, `${victim}-app`, ...annexes, `${victim}-postgres`];
  world.stop(...(await world.pids(...units)));
  say(`${victim} stands still`);
}

const returnsAt = (moment: Moment): Scenario => ({
  name: `returns-${moment.when}-${moment.step}`,
  says: `a lost cell returns ${moment.when} the effect of ${moment.step}`,
  ...{ failovers: 1, refused: "its tenants", direct: true },
  act: async (stage) => {
    const { world, say } = stage;
    const control = await world.takeControl();
    const stands = control.standAt(moment);
    await lose(stage);
    await stands;
    say(`${moment.when} ${moment.step}: it returns`);
    world.go();
    await systemClock.sleep(returnedMs);
    control.goOn();
    await stage.adopted();
    await systemClock.sleep(returnedMs);
  },
});

const standAt = async (control: StoppingControlPlane, at: Moment | undefined): Promise<void> =>
  at === undefined ? undefined : control.standAt(at);

const killedAt = (name: string, says: string, killed: readonly Moment[]): Scenario => ({
  ...{ name, says },
  ...{ failovers: 1, refused: "its tenants and those it keeps", direct: true },
  act: async (stage) => {
    const { world, say } = stage;
    const control = await world.takeControl();
    let stands = standAt(control, killed[0]);
    await lose(stage);
    for (const [nth, { when, step }] of killed.entries()) {
      await stands;
      say(`${when} ${step}: the control plane is killed`);
      await control.kill();
      const started = control.start();
      // It goes on as soon as it leads: before that it is told where to stand next.
      stands = standAt(control, killed[nth + 1]);
      await started;
    }
    await stage.ended();
  },
});

export const scenariosAtSteps: readonly Scenario[] = [
  ...moments.map(returnsAt),
  killedAt(
    "killed-at-every-step",
    "the control plane is killed before and after the effect of every step of one failover",
    moments,
  ),
  ...moments.map((moment) =>
    killedAt(
      `killed-${moment.when}-${moment.step}`,
      `the control plane is killed ${moment.when} the effect of ${moment.step}`,
      [moment],
    ),
  ),
];
