/**
 * Sessions that make, change or cut the stream of a standby, and what their failures are called.
 *
 * What must always be true: CELL_DATABASE_UNREACHABLE alone is worth trying again by itself; no word of
 * moves reaches a person who asked for a standby.
 */
import type pg from "pg";
import { CellError } from "../contract/errors.ts";
import { type MoverOptions, moveErrorOf, withMover } from "../moving/connection.ts";
import type { StoreLogin } from "../moving/ports.ts";

/** What of a move would be told under the name of a move. */
const moveCodes: readonly string[] = ["MOVE_UNFIT", "MOVE_STREAM_BROKEN"];

export async function withKeeper<T>(
  login: StoreLogin,
  options: MoverOptions,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  try {
    return await withMover(login, options, work);
  } catch (error) {
    throw standbyErrorOf(login, error);
  }
}

export function standbyErrorOf(login: StoreLogin, error: unknown): unknown {
  const told = moveErrorOf(login, error);
  if (!(told instanceof CellError) || !moveCodes.includes(told.code)) return told;
  const { message, nextSteps, details, cause } = told;
  return new CellError("STANDBY_BROKEN", message, { nextSteps, details, cause });
}

const noDatabase = "3D000";

/** The server is there, and the database is not: whatever stood in it is gone. */
export function isDatabaseGone(error: unknown): boolean {
  const cause = error instanceof CellError ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && cause.code === noDatabase;
}
