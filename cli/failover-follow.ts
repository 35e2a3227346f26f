/**
 * Following a failover. It is the control plane's: when the wait ends, by Ctrl-C or by `--timeout`, only the
 * watching has ended. A control plane that is silent meanwhile may be the one that died with the cell.
 */
import { CellError, isErrorCode } from "../contract/errors.ts";
import { type Failover, failoverSchema } from "../contract/failover-api.ts";
import { type Api, apiPath } from "./api.ts";
import { CliError } from "./failures.ts";
import { counted, duration } from "./render/units.ts";
import type { Session } from "./session.ts";

export type FailoverGoal = {
  readonly isThrough: (failover: Failover) => boolean;
};

const isOver = ({ step }: Failover): boolean =>
  step === "done" || step === "cancelled" || step === "failed";

/** Tenants are served again; that they are brought into whole cells takes as long as copying takes. */
export const servedAgain: FailoverGoal = {
  isThrough: (failover) =>
    isOver(failover) || failover.step === "halted" || failover.step === "reprotecting",
};
export const over: FailoverGoal = {
  isThrough: (failover) => isOver(failover) || failover.step === "halted",
};

const longPollMs = 2000;
const retryMs = 500;
const silenceMaxMs = 60_000;

/** Until it is through. Throws on `--timeout` and Ctrl-C. */
export async function followFailover(
  session: Session,
  first: Failover,
  goal: FailoverGoal,
): Promise<Failover> {
  const api = await session.api();
  const { clock } = session.io;
  const endMs = clock.monotonicMs() + session.waitMs;
  let heardMs = clock.monotonicMs();
  let failover = first;
  await say(session, failover, goal);
  while (!goal.isThrough(failover)) {
    if (endMs - clock.monotonicMs() <= 0) throw timedOut(session, failover);
    const next = await refresh(session, api, failover);
    if (next === undefined) {
      if (clock.monotonicMs() - heardMs > silenceMaxMs) throw silent(api, failover);
      await session.progress.now("the control plane does not answer; the failover waits for it");
      await clock.sleep(retryMs, session.interrupted());
      continue;
    }
    heardMs = clock.monotonicMs();
    failover = next;
    await say(session, failover, goal);
  }
  return failover;
}

async function say(session: Session, failover: Failover, goal: FailoverGoal): Promise<void> {
  if (!goal.isThrough(failover)) await session.progress.now(failoverLine(failover));
}

/** `op_…  cell-01  adopting  120/300 keys  wave 3 of 8`. */
export function failoverLine({ id, cell, step, headline, progress }: Failover): string {
  const { keys, adopted } = progress;
  const counts = keys > 0 && step !== "evacuating" ? `${adopted}/${counted(keys, "key")}` : "";
  return [id, cell, step, counts, headline].filter((part) => part !== "").join("  ");
}

/** Says how it stands; throws what made it fail. */
export async function concludeFailover(session: Session, failover: Failover): Promise<void> {
  const { cell, step, progress, phases, mode } = failover;
  const tookMs = Object.values(phases).reduce((sum, ms) => sum + ms, 0);
  if (step === "done" || step === "reprotecting") {
    const kept =
      mode === "planned"
        ? `${cell} is empty`
        : `${counted(progress.adopted, "key")} of ${cell} served again`;
    const missing = [
      ...(progress.unavailable > 0 ? [`${progress.unavailable} without a copy`] : []),
      ...(progress.quarantined > 0 ? [`${progress.quarantined} suspected and left out`] : []),
    ];
    const rest = missing.length === 0 ? "" : `; ${missing.join(", ")}`;
    await session.progress.done("ok", `${kept} after ${duration(tookMs)}${rest}`);
    return;
  }
  await session.progress.done("failed", `failover of ${cell}: ${step}`);
  throw stopped(failover);
}

function stopped({ id, cell, step, headline, op }: Failover): CellError {
  const code = op.error !== null && isErrorCode(op.error.code) ? op.error.code : "OP_FAILED";
  const message =
    step === "halted"
      ? `The failover of ${cell} stands still: ${headline}`
      : (op.error?.message ?? `The failover of ${cell} is ${step}: ${headline}`);
  return new CellError(code, message, {
    details: { op: id, step },
    nextSteps: [
      ...(op.error?.next_steps ?? []),
      `cellctl failover status ${id}`,
      ...(step === "halted" ? [`cellctl failover resume ${id}`] : []),
    ],
  });
}

/** Undefined: the control plane did not answer this time. */
async function refresh(
  session: Session,
  api: Api,
  failover: Failover,
): Promise<Failover | undefined> {
  if (session.interrupted().aborted) throw detached(failover);
  try {
    return await api.get(apiPath`/v1/failovers/${failover.id}`, failoverSchema, {
      query: { after: failover.op.version },
      waitMs: longPollMs,
    });
  } catch (error) {
    if (session.interrupted().aborted) throw detached(failover);
    if (error instanceof CellError && error.code === "CONTROL_PLANE_UNREACHABLE") return undefined;
    throw error;
  }
}

const wayBack = ({ id }: Failover): string[] => [`cellctl failover watch ${id}`];

const timedOut = (session: Session, failover: Failover): CliError =>
  new CliError(
    "WAIT_TIMEOUT",
    `${failover.id} was not through within ${Math.round(session.waitMs / 1000)}s (${failover.step}: ${failover.headline}); it goes on`,
    { details: { op: failover.id, step: failover.step }, nextSteps: wayBack(failover) },
  );

const detached = (failover: Failover): CliError =>
  new CliError("DETACHED", `detached from ${failover.id}; the failover goes on`, {
    details: { op: failover.id },
    nextSteps: wayBack(failover),
  });

const silent = (api: Api, failover: Failover): CellError =>
  new CellError(
    "CONTROL_PLANE_UNREACHABLE",
    `${api.fleet.origin} has not answered for ${silenceMaxMs / 1000}s; ${failover.id} goes on when it returns`,
    { details: { op: failover.id }, nextSteps: wayBack(failover) },
  );
