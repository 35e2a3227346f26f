/**
 * From the first look to a target that is in sync and verified. Nobody waits for any of this; each step
 * may be cancelled, and is begun again from its beginning by whoever goes on after a crash.
 */
import type { MoveProgress } from "../../../../contract/move-api.ts";
import type { Failure } from "../../../core/ops/machine.ts";
import { noteMove } from "../../../store/moves/enter.ts";
import { recordObjects } from "../../../store/moves/objects.ts";
import { findMove } from "../../../store/moves/read.ts";
import { heedingWishes } from "../heed.ts";
import { abandoned, type Step, type StepContext, type StepResult } from "../world.ts";

/** So near is near enough to verify, or to switch. */
export const lagBytesMax = 1_000_000;
const lookEveryMs = 200;
/** What other moves, while they soak, take of a server. */
const roomChecks: ReadonlySet<string> = new Set(["slots", "wal-senders", "workers"]);
const roomLookMs = 2000;

export const preflight: Step = async (context) => {
  const { world, view, task } = context;
  const look = await world.mover.look(task);
  const plan = {
    ...view.plan,
    ...{ tables: [...look.tables], checks: [...look.checks], estimate: look.estimate },
  };
  const refused = look.checks.filter(({ verdict }) => verdict === "refused");
  if (refused.some(({ id }) => !roomChecks.has(id))) {
    return withPlan(abandoned(unfit(refused)), plan);
  }
  // Other moves give their room back when they are over. A way back has its own already.
  if (refused.length > 0 && view.reverses === null) {
    await context.note(`waits for room: ${refused.map(({ text }) => text).join("; ")}`);
    await context.wait(roomLookMs);
    return undefined;
  }
  const progress = { ...view.progress, ...totals(plan) };
  return {
    event: "fit",
    headline: `preparing both cells for ${plan.estimate.rows} rows`,
    patch: { plan, progress },
    // What may be made is written down before it is made.
    within: async (tx) => {
      await recordObjects(tx, view.id, world.mover.objectsOf(task));
      return {};
    },
  };
};

const withPlan = (result: StepResult, plan: StepContext["view"]["plan"]): StepResult => ({
  ...result,
  patch: { ...result.patch, plan },
});
const totals = ({ estimate }: StepContext["view"]["plan"]) => ({
  rowsTotal: estimate.rows,
  bytesTotal: estimate.bytes,
});

const unfit = (
  refused: ReadonlyArray<{ readonly text: string; readonly fix: string }>,
): Failure => ({
  code: "MOVE_UNFIT",
  message: `The keys cannot be moved as things stand: ${refused.map(({ text }) => text).join("; ")}. Nothing was changed.`,
  nextSteps: refused.map(({ fix }) => fix).filter((fix) => fix !== ""),
});

export const preparing: Step = (context) =>
  heedingWishes(context, async (signal) => {
    const { world, task, view } = context;
    await world.mover.hooks.call(task, "prepare", signal);
    if (view.reverses !== null) {
      await world.mover.adoptStream(task);
      return { event: "streaming", headline: "the stream back is there; nothing is copied" };
    }
    await world.mover.prepare(task, signal);
    return { event: "prepared", headline: "copying" };
  });

export const copying: Step = (context) =>
  heedingWishes(context, async (signal) => {
    const { world, task, view } = context;
    let latest = view.progress;
    let writing: Promise<unknown> = Promise.resolve();
    // One at a time, and never in the way of the copy: the next one tells what this one could not.
    const note = (change: () => Parameters<typeof noteMove>[2]) => {
      writing = writing
        .then(() => noteMove(world.database, view.id, change()))
        .catch(() => undefined);
    };
    const onProgress = (progress: MoveProgress) => {
      latest = progress;
      note(() => ({ progress: latest }));
    };
    let isWaiting = false;
    const onWait = (blockers: string | undefined) => {
      if (blockers === undefined && !isWaiting) return;
      isWaiting = blockers !== undefined;
      const headline = isWaiting
        ? `the copy begins when these transactions in ${view.source} end: ${blockers}`
        : view.headline;
      note(() => ({ headline }));
    };
    await world.mover.hooks.call(task, "copy", signal);
    await world.mover.copy(task, { rateMax: view.options.copyRateMax, onProgress, onWait, signal });
    await writing;
    return {
      event: "copied",
      headline: `${latest.rowsCopied} rows copied; following what was written since`,
      patch: { progress: latest },
    };
  });

export const catchingUp: Step = async (context) => {
  const { world, task, view } = context;
  if (view.reverses === null) await world.mover.startStream(task);
  for (;;) {
    const lag = await lagOf(context);
    if (typeof lag === "object") return abandoned(lag);
    if (lag !== undefined && lag <= lagBytesMax) {
      return { event: "caught-up", headline: "comparing rows" };
    }
    if (await mustLookAgain(context, lookEveryMs)) return undefined;
    await context.note(`the target lacks ${lag ?? "an unknown number of"} bytes of log`);
  }
};

/** Undefined: not known now. A failure: it will not get there by itself. */
export async function lagOf({
  world,
  task,
  view,
}: StepContext): Promise<number | undefined | Failure> {
  const { lagBytes, broken } = await world.mover.streamState(task);
  world.metrics.lag(view.id, lagBytes);
  if (lagBytes !== view.progress.lagBytes) {
    await noteMove(world.database, view.id, { progress: { ...view.progress, lagBytes } });
  }
  if (broken === undefined) return lagBytes ?? undefined;
  return {
    code: "MOVE_STREAM_BROKEN",
    message: `${broken}. The move is taken back; ${view.source} serves as before.`,
    nextSteps: [`cellctl move show ${view.id}`],
  };
}

/** Waits; true: somebody asked for something, or this process is to stop. */
async function mustLookAgain(context: StepContext, ms: number): Promise<boolean> {
  await context.wait(ms);
  const row = await findMove(context.world.database.read, context.view.id);
  return (
    context.signal.aborted ||
    row === undefined ||
    row.move.wish !== context.view.wish ||
    row.move.paused !== context.view.paused ||
    row.op.version !== context.view.version
  );
}

export const verifying: Step = (context) =>
  heedingWishes(context, async (signal) => {
    const { world, task, view } = context;
    const found = await world.mover.compareBefore(task, signal);
    const verifications = [...view.verifications, found];
    const rows = found.tables.reduce((sum, table) => sum + table.sourceRows, 0);
    if (found.equal || (await repairs(context))) {
      const headline = found.equal
        ? `ready: ${rows} rows are the same in both cells`
        : "ready: rows differ, as they did when the first move was found to have diverged";
      return { event: "verified", headline, patch: { verifications } };
    }
    const failure: Failure = {
      code: "MOVE_MISMATCH",
      message: `Rows differ between ${view.source} and ${view.target}: ${differing(found.tables)}. The move is taken back; ${view.source} serves as before.`,
      nextSteps: [`cellctl move show ${view.id}`],
    };
    const headline = failure.message;
    return { event: "mismatched", headline, failure, patch: { verifications, failure } };
  });

type Compared = StepContext["view"]["verifications"][number]["tables"];
export const differing = (tables: Compared): string =>
  tables
    .filter((one) => one.sourceRows !== one.targetRows || one.sourceSum !== one.targetSum)
    .map(
      ({ store, table, sourceRows, targetRows }) =>
        `${store}.${table} (${sourceRows} and ${targetRows} rows)`,
    )
    .join(", ");

/** Does it take back a move whose rows were found to differ? Then they differ, and that is why. */
export async function repairs({ world, view }: StepContext): Promise<boolean> {
  if (view.reverses === null) return false;
  const row = await findMove(world.database.read, view.reverses);
  const found = row?.move.verifications;
  return Array.isArray(found) && found.some(isMismatchAfter);
}

const isMismatchAfter = (one: unknown): boolean =>
  typeof one === "object" &&
  one !== null &&
  "phase" in one &&
  "equal" in one &&
  one.phase === "after-switch" &&
  one.equal === false;
