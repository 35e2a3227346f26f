/**
 * Following moves until what was asked for has come about. They are the control plane's: when the wait
 * ends, by Ctrl-C or by `--timeout`, only the watching has ended.
 */
import { CellError, isErrorCode } from "../contract/errors.ts";
import { type Move, moveSchema, moveSteps } from "../contract/move-api.ts";
import { type Api, apiPath } from "./api.ts";
import { CliError } from "./failures.ts";
import { batchLine, liveLine, logLine, moveName, takenBack } from "./move-progress.ts";
import { sourceOf, targetOf } from "./render/move-ends.ts";
import { duration } from "./render/units.ts";
import type { Session } from "./session.ts";

export type Goal = {
  /** It has come about, or never will. */
  readonly isThrough: (move: Move) => boolean;
  /** Throws what stands against it. */
  readonly conclude: (move: Move) => string;
};

const isOver = ({ state }: Move): boolean =>
  state === "done" || state === "failed" || state === "cancelled";

/** Served by the target and compared: what is left is the soak. */
export const served: Goal = {
  isThrough: (move) =>
    isOver(move) || move.step === "soaking" || move.step === "cleaning" || move.step === "diverged",
  conclude: (move) => {
    if (move.step === "diverged") throw mismatch(move);
    if (move.state === "failed" || move.state === "cancelled") throw ended(move);
    const pause = move.pause === null ? "" : `, after a pause of ${duration(move.pause.total)}`;
    return `${moveName(move)}: served by ${move.target}${pause}; the rows of both cells are the same`;
  },
};

export const over: Goal = {
  isThrough: isOver,
  conclude: (move) => {
    if (move.state !== "done") throw ended(move);
    return `${moveName(move)}: ${move.headline}`;
  },
};

export const cancelled: Goal = {
  isThrough: isOver,
  conclude: (move) => {
    if (move.state === "cancelled") return `${moveName(move)} stays in ${sourceOf(move)}`;
    throw move.state === "done" ? tooLate(move) : ended(move);
  },
};

/** One comparison more than there was. */
export const verifiedAfter = (before: Move): Goal => ({
  isThrough: (move) => isOver(move) || move.verifications.length > before.verifications.length,
  conclude: (move) => {
    if (isOver(move) && move.state !== "done") throw ended(move);
    const last = move.verifications.at(-1);
    if (last?.equal === false) throw mismatch(move);
    const rows = last?.tables.reduce((sum, { sourceRows }) => sum + sourceRows, 0) ?? 0;
    return `${moveName(move)}: ${rows} rows are the same in ${sourceOf(move)} and ${targetOf(move)}`;
  },
});

const mismatch = (move: Move): CellError =>
  new CellError("MOVE_MISMATCH", move.error?.message ?? `${move.id}: ${move.headline}`, {
    details: { op: move.id, step: move.step, verifications: move.verifications },
    nextSteps: [
      ...(move.error?.next_steps ?? []),
      `cellctl move show ${move.id}`,
      ...(move.step === "diverged" ? [`cellctl move reverse ${move.id}`] : []),
    ],
  });

const tooLate = ({ id, target }: Move): CellError =>
  new CellError(
    "STATE_CONFLICT",
    `${id} was done before it could be cancelled: ${target} serves.`,
    {
      details: { op: id },
      nextSteps: [`cellctl move show ${id}`],
    },
  );

function ended(move: Move): CellError {
  const { id, state, step, error, headline, steps, source } = move;
  const code = error !== null && isErrorCode(error.code) ? error.code : "OP_FAILED";
  return new CellError(
    code,
    error?.message ?? `${id} is ${state}: ${headline}; ${source} serves as before`,
    {
      details: { op: id, state, step, steps },
      nextSteps: [...(error?.next_steps ?? []), `cellctl move show ${id}`],
    },
  );
}

const longPollMs = 1000;
const retryMs = 500;
/** A control plane that changes its leader, or is started again, is silent this long at most. */
const silenceMaxMs = 60_000;
const callsAtOnce = 8;

/** Until all are through. Throws on `--timeout` and Ctrl-C. */
export async function followMoves(
  session: Session,
  first: readonly Move[],
  goal: Goal,
): Promise<readonly Move[]> {
  const api = await session.api();
  const { clock } = session.io;
  const endMs = clock.monotonicMs() + session.waitMs;
  let heardMs = clock.monotonicMs();
  let moves = first;
  await report(session, moves, goal);
  while (!moves.every(goal.isThrough)) {
    if (endMs - clock.monotonicMs() <= 0) throw timedOut(session, moves);
    const next = await refresh(session, api, moves, goal);
    if (next === undefined) {
      if (clock.monotonicMs() - heardMs > silenceMaxMs) throw silent(api, moves);
      await session.progress.now("the control plane does not answer; the move waits for it");
      await clock.sleep(retryMs, session.interrupted());
      continue;
    }
    heardMs = clock.monotonicMs();
    await sayNews(session, moves, next, goal);
    moves = next;
    await report(session, moves, goal);
    if (moves.length > 1 && !moves.every(goal.isThrough)) {
      await clock.sleep(longPollMs, session.interrupted());
    }
  }
  return moves;
}

async function report(session: Session, moves: readonly Move[], goal: Goal): Promise<void> {
  const open = moves.filter((move) => !goal.isThrough(move));
  const [only] = open;
  if (only === undefined) return;
  const { progress, io } = session;
  if (moves.length > 1) return progress.now(batchLine(moves, goal.isThrough));
  return progress.now(io.stderr.isTerminal ? liveLine(only, io.clock.nowMs()) : logLine(only));
}

/** A switch that was taken back, with its reason. Of many each is told as it ends; the last word on a single one is its conclusion. */
async function sayNews(
  session: Session,
  before: readonly Move[],
  after: readonly Move[],
  goal: Goal,
): Promise<void> {
  for (const [index, move] of after.entries()) {
    const was = before[index];
    if (was === undefined || goal.isThrough(was)) continue;
    for (const news of takenBack(was, move)) {
      await session.progress.done("note", `${moveName(move)}: ${news}`);
    }
    if (after.length > 1 && goal.isThrough(move)) await sayOne(session, move, goal);
  }
}

async function sayOne(session: Session, move: Move, goal: Goal): Promise<unknown> {
  try {
    await session.progress.done("ok", goal.conclude(move));
    return undefined;
  } catch (error) {
    const why = error instanceof CellError ? `${error.code}: ${error.message}` : move.headline;
    await session.progress.done("failed", `${moveName(move)}: ${why}`);
    return error;
  }
}

/** Says how they ended; throws the first thing that made one fail. */
export async function concludeMoves(
  session: Session,
  moves: readonly Move[],
  goal: Goal,
): Promise<void> {
  const [only] = moves;
  if (moves.length === 1 && only !== undefined) {
    const error = await sayOne(session, only, goal);
    if (error !== undefined) throw error;
    return;
  }
  const failures = moves.flatMap((move) => failureOf(move, goal));
  const [first] = failures;
  if (first !== undefined) throw first;
  await session.progress.done("ok", `${moves.length} of ${moves.length} moved`);
}

function failureOf(move: Move, goal: Goal): unknown[] {
  try {
    goal.conclude(move);
    return [];
  } catch (error) {
    return [error];
  }
}

/** Undefined: the control plane did not answer this time. */
async function refresh(
  session: Session,
  api: Api,
  moves: readonly Move[],
  goal: Goal,
): Promise<readonly Move[] | undefined> {
  if (session.interrupted().aborted) throw detached(moves);
  const fresh = [...moves];
  const open = [...moves.entries()].filter(([, move]) => !goal.isThrough(move));
  async function work(): Promise<void> {
    for (let next = open.shift(); next !== undefined; next = open.shift()) {
      const [index, move] = next;
      fresh[index] = await api.get(apiPath`/v1/moves/${move.id}`, moveSchema, {
        query: { after: move.version },
        ...(moves.length === 1 ? { waitMs: longPollMs } : {}),
      });
    }
  }
  try {
    await Promise.all(Array.from({ length: callsAtOnce }, work));
    return fresh;
  } catch (error) {
    if (session.interrupted().aborted) throw detached(moves);
    if (error instanceof CellError && error.code === "CONTROL_PLANE_UNREACHABLE") return undefined;
    throw error;
  }
}

/** How to come back, and what may be said to it where it stands. */
const ways = (moves: readonly Move[]): string[] => {
  const [only] = moves;
  return moves.length === 1 && only !== undefined
    ? [
        `cellctl move watch ${only.id}`,
        ...wordsFor(only).map((word) => `cellctl move ${word} ${only.id}`),
      ]
    : ["cellctl move ls --state running"];
};

function wordsFor({ step, paused, asked, options }: Move): string[] {
  if (step === "soaking") return ["reverse", "complete"];
  if (step === "diverged") return ["show", "reverse"];
  const mayCancel =
    step === "releasing" || moveSteps.indexOf(step) < moveSteps.indexOf("activating");
  if (!mayCancel || asked === "cancel") return [];
  const isAwaited = step === "ready" && options.switch === "manual" && asked === null;
  return [...(paused ? ["resume"] : isAwaited ? ["switch"] : []), "cancel"];
}
const idsOf = (moves: readonly Move[]) => ({ op: moves.map(({ id }) => id).join(" ") });

const timedOut = (session: Session, moves: readonly Move[]): CliError =>
  new CliError(
    "WAIT_TIMEOUT",
    `${moves.length === 1 ? (moves[0]?.id ?? "") : `${moves.length} moves`} not through within ${Math.round(session.waitMs / 1000)}s; it goes on`,
    { details: idsOf(moves), nextSteps: ways(moves) },
  );

const detached = (moves: readonly Move[]): CliError =>
  new CliError("DETACHED", "detached; the move goes on", {
    details: idsOf(moves),
    nextSteps: ways(moves),
  });

const silent = (api: Api, moves: readonly Move[]): CellError =>
  new CellError(
    "CONTROL_PLANE_UNREACHABLE",
    `${api.fleet.origin} has not answered for ${silenceMaxMs / 1000}s; moves go on when it returns`,
    { details: idsOf(moves), nextSteps: ways(moves) },
  );
