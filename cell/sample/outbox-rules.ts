/** When an outbox message is tried again and when it is given up: pure, so that a table test can say all of it. */

/** A message that fails this often is dead: people look at it, the others go on. */
export const attemptsMax = 8;
/** A claim that was not settled by then belonged to a worker that died. */
export const claimMs = 30_000;
const retryFirstMs = 500;
const retryMaxMs = 60_000;

export type AfterFailure =
  | { readonly state: "pending"; readonly retryInMs: number }
  | { readonly state: "dead" };

/** `attempts` counts the one that just failed. `unit` in [0, 1) spreads the retries of many messages. */
export function decideAfterFailure(attempts: number, max: number, unit: number): AfterFailure {
  if (attempts >= max) return { state: "dead" };
  const base = Math.min(retryFirstMs * 2 ** (attempts - 1), retryMaxMs);
  return { state: "pending", retryInMs: Math.round(base * (0.5 + unit)) };
}
