/**
 * The one way in which the CLI changes something: confirm, send with a reason and an idempotency
 * key, then print the plan (`--dry-run`), or the accepted operation (`--no-wait`), or follow it to
 * its end. Standard output gets the same object in all cases but the dry run, and but a terminal,
 * where the line that concludes the operation says it already.
 */
import type { z } from "zod";
import { acceptedSchema, dryRunSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { carryFleet } from "./carry-fleet.ts";
import { confirm, type Danger } from "./confirm.ts";
import { CliError } from "./failures.ts";
import { flag, type Options, text, texts } from "./grammar.ts";
import { concludeOp, followOp } from "./operations.ts";
import { acceptedView, planView } from "./render/views-op.ts";
import type { Session } from "./session.ts";

export type Change = {
  readonly method?: "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly danger?: Danger;
};

/** A change that becomes an operation. */
export async function mutate(session: Session, options: Options, change: Change): Promise<number> {
  if (flag(options, "dryRun")) return printPlan(session, options, change);
  if (change.danger !== undefined) await confirm(session, change.danger, text(options, "confirm"));
  const accepted = await sendChange(session, options, change, acceptedSchema);
  if (options["wait"] === false) {
    await session.out.one(accepted, acceptedView);
    await session.note(`${accepted.op.id} is recorded.  Watch: cellctl op watch ${accepted.op.id}`);
    return 0;
  }
  const op = await followOp(session, accepted.op);
  await concludeOp(session, op);
  const steps = withoutWatching(accepted.next_steps, op.id);
  if (!saysTheSame(session)) {
    await session.out.one({ ...accepted, op, next_steps: steps }, acceptedView);
  }
  await nextSteps(session, steps);
  return 0;
}

/** On a terminal the line of the conclusion stands where the table would: it is not said twice. */
const saysTheSame = ({ out, io, quiet }: Session): boolean =>
  (out.format === "table" || out.format === "wide") &&
  !quiet &&
  io.stdout.isTerminal &&
  io.stderr.isTerminal;

async function printPlan(session: Session, options: Options, change: Change): Promise<number> {
  const answer = await sendChange(session, options, change, dryRunSchema);
  await session.out.one(answer, planView);
  await nextSteps(session, answer.next_steps);
  return 0;
}

/** Sends; the caller says what comes back. What cannot be known after Ctrl-C is said, with the key. */
export async function sendChange<T>(
  session: Session,
  options: Options,
  change: Change,
  schema: z.ZodType<T>,
): Promise<T> {
  const api = await session.api();
  const idempotencyKey = text(options, "idempotencyKey") ?? session.io.random.uuid();
  const reason = text(options, "reason");
  const override = texts(options, "override");
  const body = {
    ...change.body,
    ...(reason === undefined ? {} : { reason }),
    // Only commands that safety rules stand in front of have the option.
    ...(override.length === 0 ? {} : { override }),
    ...(flag(options, "dryRun") ? { dryRun: true } : {}),
  };
  try {
    return await api.send(change.method ?? "POST", change.path, { body, schema, idempotencyKey });
  } catch (error) {
    throw withKey(error, session, idempotencyKey);
  }
}

/** After silence the request may have been carried out: the same key asks again without doing it twice. */
function withKey(error: unknown, session: Session, key: string): unknown {
  const again = `repeat with --idempotency-key ${key}   (never done twice)`;
  if (session.interrupted().aborted) {
    return new CliError(
      "DETACHED",
      "interrupted before the control plane answered; it may have been done",
      {
        nextSteps: [again],
      },
    );
  }
  if (!(error instanceof CellError)) return error;
  const unsure =
    error.code === "INTERNAL" ||
    (error.code === "CONTROL_PLANE_UNREACHABLE" && !wasNeverSent(error.cause));
  if (!unsure) return error;
  return new CellError(error.code, error.message, {
    cause: error.cause,
    details: { ...error.details, idempotencyKey: key },
    nextSteps: [again, ...error.nextSteps],
  });
}

/** No connection, no request: these are all that undici says before it has sent a byte. */
const neverSent = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"];
const wasNeverSent = (cause: unknown): boolean =>
  cause instanceof Error && "code" in cause && neverSent.includes(String(cause.code));

/** Of an operation that is over there is nothing left to watch. */
export const withoutWatching = (steps: readonly string[], op: string): string[] =>
  steps.filter((step) => step !== `cellctl op watch ${op}`);

export async function nextSteps(session: Session, steps: readonly string[]): Promise<void> {
  const { printable } = await import("./render/printable.ts");
  for (const [index, step] of carryFleet([...new Set(steps)], session.fleetFlags).entries()) {
    await session.note(`${index === 0 ? "Next:" : "     "} ${printable(step)}`);
  }
}
