/**
 * Idempotency keys: one token, one key, one answer. The record is written in the transaction of the
 * effect, so that a crash leaves either both or neither and no key stays locked; while the
 * transaction runs, an advisory lock that goes with it tells a second request that it is in flight.
 */
import { and, eq, lt, sql } from "drizzle-orm";
import { CellError } from "../../contract/errors.ts";
import type { Tx } from "./database.ts";
import { idempotency } from "./schema.ts";

export type IdempotentRequest = {
  readonly tokenId: string;
  readonly key: string;
  /** SHA-256 over method, path and body. */
  readonly requestHash: string;
};
export type StoredAnswer = { readonly status: number; readonly body: unknown };

/** How long an answer is kept for replay. */
export const idempotencyKeptMs = 24 * 3_600_000;

/**
 * The answer given before, or undefined when this request is the first.
 * Throws IDEMPOTENCY_IN_FLIGHT or IDEMPOTENCY_MISMATCH.
 */
export async function claimIdempotencyKey(
  tx: Tx,
  request: IdempotentRequest,
): Promise<StoredAnswer | undefined> {
  const { rows } = await tx.execute<{ mine: boolean }>(
    sql`select pg_try_advisory_xact_lock(hashtextextended(${`${request.tokenId}\n${request.key}`}, 727003)) as mine`,
  );
  if (rows[0]?.mine !== true) {
    throw new CellError(
      "IDEMPOTENCY_IN_FLIGHT",
      "A request with this Idempotency-Key is being served.",
      {
        nextSteps: ["Repeat the request in a moment: it then gets the same answer."],
      },
    );
  }
  const [row] = await tx
    .select()
    .from(idempotency)
    .where(and(eq(idempotency.tokenId, request.tokenId), eq(idempotency.key, request.key)));
  if (row === undefined) return undefined;
  if (row.requestHash !== request.requestHash) {
    throw new CellError(
      "IDEMPOTENCY_MISMATCH",
      "The Idempotency-Key was used for a different request.",
      {
        nextSteps: ["Use a new Idempotency-Key for a new request."],
      },
    );
  }
  return { status: row.status ?? 200, body: row.body };
}

export async function storeAnswer(
  tx: Tx,
  request: IdempotentRequest,
  answer: StoredAnswer,
): Promise<void> {
  await tx.insert(idempotency).values({ ...request, status: answer.status, body: answer.body });
}

/** Forgets answers older than `before`. */
export async function purgeIdempotency(tx: Tx, before: Date): Promise<void> {
  await tx.delete(idempotency).where(lt(idempotency.createdAt, before));
}
