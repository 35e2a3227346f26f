/**
 * Following an operation that the control plane runs. The operation is the control plane's: when
 * the wait ends, by Ctrl-C or by `--timeout`, only the watching has ended.
 */
import { type Op, opSchema } from "../contract/control-api.ts";
import { CellError, isErrorCode } from "../contract/errors.ts";
import { type Api, apiPath } from "./api.ts";
import { CliError } from "./failures.ts";
import type { Session } from "./session.ts";

const longPollMs = 20_000;
const retryMs = 500;
/** A control plane that changes its leader, or is started again, is silent this long at most. */
const silenceMaxMs = 60_000;

const isOver = (op: Op): boolean =>
  op.state === "done" || op.state === "failed" || op.state === "cancelled";

/** Waits until the operation is over, and says every change. Throws on `--timeout` and Ctrl-C. */
export async function followOp(session: Session, first: Op): Promise<Op> {
  const api = await session.api();
  const { clock } = session.io;
  const endMs = clock.monotonicMs() + session.waitMs;
  let op = first;
  let heardMs = clock.monotonicMs();
  if (!isOver(op)) await session.progress.now(progressLine(session, op));
  while (!isOver(op)) {
    const leftMs = endMs - clock.monotonicMs();
    if (leftMs <= 0) throw timedOut(session, op);
    const next = await nextVersion(session, api, op, Math.min(longPollMs, leftMs));
    if (next === undefined) {
      if (clock.monotonicMs() - heardMs > silenceMaxMs) throw silent(api, op);
      await session.progress.now(
        `${op.id}  the control plane does not answer; the operation waits for it`,
      );
      await clock.sleep(retryMs, session.interrupted());
      continue;
    }
    heardMs = clock.monotonicMs();
    op = next;
    // Its end is said by whoever concludes it.
    if (!isOver(op)) await session.progress.now(progressLine(session, op));
  }
  return op;
}

/** Undefined: the control plane did not answer this time. */
async function nextVersion(
  session: Session,
  api: Api,
  op: Op,
  waitMs: number,
): Promise<Op | undefined> {
  if (session.interrupted().aborted) throw detached(op);
  try {
    return await api.get(apiPath`/v1/ops/${op.id}`, opSchema, {
      query: { after: op.version },
      waitMs: Math.max(1, Math.floor(waitMs)),
    });
  } catch (error) {
    if (session.interrupted().aborted) throw detached(op);
    if (error instanceof CellError && error.code === "CONTROL_PLANE_UNREACHABLE") return undefined;
    throw error;
  }
}

/** Says how it ended: returns the exit code of success, throws what made it fail. */
export async function concludeOp(session: Session, op: Op): Promise<void> {
  if (op.state === "done") {
    await session.progress.done("ok", `${op.kind} ${op.object}: ${op.headline}`);
    return;
  }
  await session.progress.done("failed", `${op.kind} ${op.object}: ${op.state} at step ${op.step}`);
  const code = op.error !== null && isErrorCode(op.error.code) ? op.error.code : "OP_FAILED";
  throw new CellError(
    code,
    op.error?.message ?? `operation ${op.id} is ${op.state}: ${op.headline}`,
    {
      details: { op: op.id, state: op.state, step: op.step, steps: op.steps },
      nextSteps: [...(op.error?.next_steps ?? []), `cellctl op show ${op.id}`],
    },
  );
}

/** A terminal is narrow, and its line is gone in a moment; a log wants to be searched by id. */
const progressLine = (session: Session, op: Op): string =>
  session.io.stderr.isTerminal
    ? `${op.kind} ${op.object}  ${op.headline}`
    : `${op.id}  ${op.kind} ${op.object}  ${op.state}/${op.step}  ${op.headline}`;

const timedOut = (session: Session, op: Op): CliError =>
  new CliError(
    "WAIT_TIMEOUT",
    `${op.id} was not done within ${Math.round(session.waitMs / 1000)}s (${op.headline}); it goes on`,
    { details: { op: op.id, step: op.step }, nextSteps: [`cellctl op watch ${op.id}`] },
  );

const detached = (op: Op): CliError =>
  new CliError("DETACHED", `detached from ${op.id}; the operation goes on`, {
    details: { op: op.id },
    nextSteps: [`cellctl op watch ${op.id}`],
  });

const silent = (api: Api, op: Op): CellError =>
  new CellError(
    "CONTROL_PLANE_UNREACHABLE",
    `${api.fleet.origin} has not answered for ${silenceMaxMs / 1000}s; ${op.id} goes on when it returns`,
    { details: { op: op.id }, nextSteps: [`cellctl op watch ${op.id}`] },
  );
