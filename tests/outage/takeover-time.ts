/**
 * How long a tenant's customers were without a cell: from the last acknowledged write before the first
 * that was refused, to the first of three acknowledged in a row. Pure.
 */
import type { Sample } from "../moves/open-load.ts";

/** So many in a row, and the tenant counts as served again. */
const successesInRow = 3;

export type Outage = {
  readonly tenant: string;
  /** Null: it was never served again. */
  readonly lastedMs: number | null;
  readonly refused: number;
};

/** Of one tenant's writes that were sent after `fromMs`; undefined: it had no outage. */
export function outageOf(
  tenant: string,
  samples: readonly Sample[],
  fromMs: number,
): Outage | undefined {
  const mine = samples
    .filter((one) => one.tenant === tenant)
    .map(({ sentMs, tookMs, outcome }) => ({ endedMs: sentMs + tookMs, outcome }))
    .sort((a, b) => a.endedMs - b.endedMs);
  const refused = mine.filter(({ outcome, endedMs }) => outcome !== "ok" && endedMs >= fromMs);
  const first = refused[0];
  if (first === undefined) return undefined;
  const before = mine.findLast(
    ({ outcome, endedMs }) => outcome === "ok" && endedMs < first.endedMs,
  );
  const after = mine.filter(({ endedMs }) => endedMs > first.endedMs);
  const at = after.findIndex((_one, index) => {
    const run = after.slice(index, index + successesInRow);
    return run.length === successesInRow && run.every(({ outcome }) => outcome === "ok");
  });
  const back = after[at]?.endedMs;
  const lastedMs = back === undefined ? null : back - (before?.endedMs ?? first.endedMs);
  return { tenant, lastedMs, refused: refused.length };
}
