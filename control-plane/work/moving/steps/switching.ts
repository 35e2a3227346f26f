/**
 * The switch: from the hold of requests to the commit. All of it is measured against the pause budget,
 * and whatever goes wrong is taken back (`releasing`). Safety rests on the fence and on the marker, never
 * on routers or gates having been quick.
 */
import { CellError } from "../../../../contract/errors.ts";
import { must } from "../../../../runtime/assert.ts";
import { budgetExceeded } from "../../../core/move/failure.ts";
import type { Failure } from "../../../core/ops/machine.ts";
import { isFailedOver } from "../../../store/failover/stranded.ts";
import { endHandedOver } from "../../../store/moves/end.ts";
import { inheritObjects } from "../../../store/moves/objects.ts";
import { inStepMs, standbysBehind } from "../../../store/moves/standbys.ts";
import { commitKeys, holdKeys } from "../../../store/moves/switch.ts";
import { aborted } from "../heed.ts";
import { startPause } from "../pause.ts";
import { standsAgainst } from "../rules.ts";
import { abandoned, type Step, type StepContext, type StepResult } from "../world.ts";
import { lagBytesMax, lagOf } from "./opening.ts";

/** Routers that take longer to hold are not waited for. */
const holdAckMs = 250;
/** A writer that is not done by then keeps the fence from coming; requests must not wait for it longer. */
const fenceLockMs = 50;
const readyLookMs = 1000;
const standbyWaitMs = 60_000;
const standbyLookMs = 250;
/** What was told to end and does not is left to itself. */
const lastWordMs = 200;
/** For the fleet's lock, before requests are held. */
const holdLockMs = 1000;

export const ready: Step = async (context) => {
  const { world, view, memory } = context;
  if (memory.rollbackDue) {
    await world.mover.hooks.call(context.task, "rollback", context.signal);
    memory.rollbackDue = false;
  }
  const lag = await lagOf(context);
  if (typeof lag === "object") return abandoned(lag);
  if (view.wish === "verify") {
    return { event: "asked-verify", headline: "comparing rows", patch: { wish: "none" } };
  }
  const isAsked = view.wish === "switch" || view.options.switch === "auto";
  const waitMs = memory.notBeforeMs - world.clock.monotonicMs();
  if (!isAsked) {
    await context.note(`ready: in sync and verified; waits for: cellctl move switch ${view.id}`);
    await context.wait(readyLookMs);
    return undefined;
  }
  if (waitMs > 0 || lag === undefined || lag > lagBytesMax) {
    await context.wait(Math.max(20, Math.min(waitMs, readyLookMs)));
    return undefined;
  }
  const against = await standsAgainst(context);
  if (against !== undefined) {
    await context.note(`ready: in sync and verified; waits, because ${against}`);
    await context.wait(readyLookMs);
    return undefined;
  }
  if (await waitsForStandby(context)) return undefined;
  const drift = await findDrift(context);
  return drift === undefined ? beginSwitch(context) : abandoned(drift);
};

/**
 * Would the target's standby lack the keys if the target died right after the switch (corrections A13)? A
 * standby that does not catch up is waited for no longer than the limit: then the source's copy is the one.
 */
async function waitsForStandby({ world, view, note, wait }: StepContext): Promise<boolean> {
  const reader = world.database.read;
  const copied = { op: view.id, cell: view.target, step: "catching-up" };
  // Nobody serves it there: to wait would keep its tenants waiting, and the source has its rows all the while.
  if (await isFailedOver(reader, view.source)) return false;
  const behind = await standbysBehind(reader, copied);
  if (behind.length === 0 || (await inStepMs(reader, view.id)) > standbyWaitMs) return false;
  await note(`ready: waits until ${behind.join(", ")} has what was copied to ${view.target}`);
  await wait(standbyLookMs);
  return true;
}

/** A table that was changed in one cell alone since the move began. */
async function findDrift({ world, view, task }: StepContext): Promise<Failure | undefined> {
  for (const { name, source, target } of task.stores) {
    const [here, there] = await Promise.all([
      world.mover.schemaOf(source),
      world.mover.schemaOf(target),
    ]);
    if (here === there) continue;
    return {
      code: "MOVE_STREAM_BROKEN",
      message: `The tables of store ${name} are no longer the same in ${view.source} and ${view.target}. The move is taken back; ${view.source} serves as before.`,
      nextSteps: [`Bring both cells to the same schema, then: cellctl move plan`],
    };
  }
  return undefined;
}

async function beginSwitch({ world, view, task, memory }: StepContext): Promise<StepResult> {
  await world.mover.warm(task);
  memory.pause?.close();
  memory.pause = startPause(world.clock, view.options.pauseBudgetMs);
  const tries = view.tries + 1;
  return {
    event: "switched",
    headline: `switching, try ${tries} of ${view.options.switchTriesMax}: routers hold requests`,
    patch: { tries },
    within: async (tx) => ({ holdRevision: await holdKeys(tx, view) }),
    lockTimeoutMs: holdLockMs,
  };
}

const pauseOf = ({ memory }: StepContext) => must(memory.pause, "the clock of the pause");

export const holding: Step = async (context) => {
  const { world, view, signal } = context;
  const pause = pauseOf(context);
  const ms = Math.min(holdAckMs, pause.leftMs() / 2);
  const behind = await world.routers.behind(view.holdRevision ?? 0, ms, signal);
  pause.end("hold");
  const told = behind.length === 0 ? "" : `; ${behind.join(", ")} did not say so in time`;
  return { event: "held", headline: `requests are held${told}; requests under way end` };
};

export const closing: Step = async (context) => {
  await within(context, (signal) => context.world.mover.closeGates(context.task, signal));
  pauseOf(context).end("close");
  return { event: "closed", headline: `no request of the keys is in ${context.view.source}` };
};

export const fencing: Step = async (context) => {
  const { world, task, view } = context;
  await within(context, async (signal) => {
    await world.mover.hooks.call(task, "fence", signal);
    signal.throwIfAborted();
    await world.mover.fence(task, Math.ceil(Math.min(fenceLockMs, pauseOf(context).leftMs())));
  });
  pauseOf(context).end("fence");
  return { event: "fenced", headline: `${view.source} refuses writes of the keys` };
};

export const draining: Step = async (context) => {
  await within(context, (signal) => context.world.mover.drain(context.task, signal));
  pauseOf(context).end("drain");
  return { event: "drained", headline: `${context.view.target} has everything` };
};

export const committing: Step = async (context) => {
  const { view } = context;
  const pause = pauseOf(context);
  if (pause.leftMs() <= 0) throw outOfTime(context);
  const { reverses } = view;
  return {
    event: "committed",
    headline: `the keys belong to ${view.target}; its databases take over`,
    patch: { wish: "none", failure: null },
    within: async (tx, attempt) => {
      await commitKeys(tx, view, attempt);
      if (reverses !== null) {
        await inheritObjects(tx, reverses, view.id);
        await endHandedOver(tx, reverses, view.id);
      }
      return {};
    },
    events: view.keys.map(({ key, epoch }) => ({
      kind: "tenant.moved",
      object: key,
      text: `${key} belongs to ${view.target} at epoch ${epoch + 1}; it was ${view.source}'s (${view.id}).`,
    })),
    lockTimeoutMs: Math.max(1, pause.leftMs()),
  };
};

/**
 * Ends with the budget, and says so by its own name, also where a database says nothing at all. What was
 * given up may go on for a while: its attempt makes it void, and its connections are not used again.
 */
async function within(
  context: StepContext,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { world, task } = context;
  const pause = pauseOf(context);
  const signal = AbortSignal.any([context.signal, pause.over]);
  const working = work(signal);
  try {
    await Promise.race([working, givenUp(context, signal)]);
    if (pause.over.aborted) throw outOfTime(context);
  } catch (error) {
    working.catch(() => {}); // It has been given up.
    const isStill = error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";
    if (signal.aborted || isStill) world.mover.discard(task);
    if (pause.over.aborted && !(error instanceof CellError)) throw outOfTime(context);
    throw error;
  }
}

/** Who ends by himself says who was in the way, and gets a moment for it. */
async function givenUp(context: StepContext, signal: AbortSignal): Promise<never> {
  await aborted(signal);
  await context.world.clock.sleep(lastWordMs);
  throw outOfTime(context);
}

function outOfTime(context: StepContext): CellError {
  const { elapsedMs, budgetMs } = pauseOf(context);
  const { code, message, nextSteps } = budgetExceeded(context.view.step, elapsedMs(), budgetMs);
  return new CellError(code, message, { nextSteps });
}
