/** The first step, and the ways that leave the straight one: planned, halted, called off. */
import { requireNoAbort } from "../../../store/failover/enter.ts";
import { noteRun } from "../../../store/failover/evidence.ts";
import { cordonCell, revokeCell, uncordonCell } from "../../../store/failover/revoke.ts";
import { readCell } from "../../../store/fleet-store.ts";
import { emptyCell, stopEmptying } from "../../emptying/emptying.ts";
import { annexesIn } from "../adopters.ts";
import type { Step, StepContext } from "../world.ts";

const haltedLookMs = 1000;
const emptyEveryMs = 500;
const leaseLookMs = 100;
/** A cell that is given its lease back need not be there to take it. */
const leaseMostMs = 10_000;

export const confirmed: Step = async ({ world, run }) => {
  if (run.wish === "abort") {
    return {
      event: "aborted",
      headline: "called off before anything was done",
      patch: { wish: "none" },
    };
  }
  if (run.mode === "planned") {
    return {
      event: "evacuate",
      headline: `live moves empty ${run.cell}, which serves on meanwhile`,
      within: (tx) => cordonCell(tx, run),
    };
  }
  // The age of its last grant is believed as far back as the clock was watched: up to this moment.
  await world.clockWatch.look();
  const text = `${run.cell} gets no lease any more`;
  return {
    event: "revoke",
    headline: text,
    within: async (tx, attempt) => {
      const patch = await revokeCell(tx, run, attempt, world.clockWatch.steadyMs);
      await requireNoAbort(tx, run.id);
      return patch;
    },
    events: [{ kind: "failover.begun", object: run.cell, text: `${run.id}: ${text}.` }],
  };
};

export const halted: Step = async ({ run, wait }) => {
  if (run.wish !== "resume") {
    await wait(haltedLookMs);
    return undefined;
  }
  return {
    event: "resumed",
    headline: "going on with the keys that are not suspected",
    // What its adopters look like now is what they are compared with from here on.
    patch: { wish: "none", evidence: { baseline: [] } },
    events: [
      {
        kind: "failover.resumed",
        object: run.cell,
        text: `${run.id} goes on; what is quarantined stays so.`,
      },
    ],
  };
};

export const evacuating: Step = async (context) => {
  const { world, run, term, wait, note } = context;
  if (run.wish === "abort") {
    const cancelled = await stopEmptying(world, run.cell, run.id);
    return {
      event: "aborted",
      headline: `called off; ${cancelled} moves end where they can, what has left ${run.cell} stays where it is`,
      within: (tx) => uncordonCell(tx, run),
    };
  }
  const turn = await emptyCell(world, {
    ...{ from: run.cell, op: run.id, term, reason: `${run.id}: ${run.cell} is emptied as planned` },
  });
  const gone = Math.max(0, run.progress.keys - turn.left);
  const progress = { ...run.progress, adopted: gone, routed: gone, reprotected: gone };
  await noteRun(world.database.read, run.id, { progress });
  if (turn.left > 0) {
    const why = turn.obstacle === "" ? "" : ` (${turn.obstacle})`;
    await note(`${turn.left} of ${run.progress.keys} keys are in ${run.cell} still${why}`);
    await wait(emptyEveryMs);
    return undefined;
  }
  const text = `${run.cell} owns nothing; it stays cordoned`;
  return {
    event: "evacuated",
    headline: text,
    patch: { progress },
    events: [{ kind: "failover.done", object: run.cell, text: `${run.id}: ${text}.` }],
  };
};

export const restoring: Step = async (context) => {
  const { world, run, memory, wait } = context;
  await restAll(context);
  for (;;) {
    const cell = await readCell(world.database.read, run.cell);
    const isBack = (cell?.leaseUntilMs ?? 0) > (run.evidence.enteredAtMs ?? 0);
    const waitedMs = world.clock.monotonicMs() - memory.enteredMs;
    if (isBack || waitedMs >= leaseMostMs || context.signal.aborted) {
      return {
        event: "restored",
        headline: isBack
          ? `called off: ${run.cell} has a lease`
          : `called off: ${run.cell} may serve again, and has not asked for its lease yet`,
      };
    }
    await wait(leaseLookMs);
  }
};

/** The application's processes that were started in annexes end; the next failover starts them again. */
async function restAll({ world, run, signal }: StepContext): Promise<void> {
  await Promise.all(
    annexesIn(run.evidence.annexes, "ordered").map((annex) =>
      world.provider.act(annex, "rest", { op: run.id }, signal).catch(() => undefined),
    ),
  );
}
