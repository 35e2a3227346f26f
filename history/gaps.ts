/**
 * How long a tenant's customers waited for the next acknowledged write: the pause of a move as they see it.
 *
 * Counted from one acknowledgement to the next, by the recorder's clock; the time before the first and
 * after the last is nobody's gap.
 */
import type { Entry } from "./model.ts";

export type Gap = {
  readonly tenant: string;
  readonly longestMs: number;
  /** When it ended, on the recorder's monotonic clock. */
  readonly endedAt: number;
  readonly acknowledged: number;
};

/** One per tenant that had a write acknowledged. `from`, `to`: only between these two moments. */
export function longestGaps(
  entries: Iterable<Entry>,
  from = Number.NEGATIVE_INFINITY,
  to = Number.POSITIVE_INFINITY,
): ReadonlyMap<string, Gap> {
  const asked = new Map<string, string>();
  const lastAt = new Map<string, number>();
  const gaps = new Map<string, Gap>();
  for (const entry of entries) {
    if (entry.kind === "invoke") asked.set(entry.process, entry.tenant);
    if (entry.kind !== "ok" || entry.at < from || entry.at > to) continue;
    const { at, process } = entry;
    const tenant = asked.get(process) ?? "";
    const gapMs = at - (lastAt.get(tenant) ?? at);
    lastAt.set(tenant, at);
    const before = gaps.get(tenant) ?? { tenant, longestMs: 0, endedAt: at, acknowledged: 0 };
    const longest = gapMs > before.longestMs ? { longestMs: gapMs, endedAt: at } : before;
    gaps.set(tenant, {
      tenant,
      longestMs: longest.longestMs,
      endedAt: longest.endedAt,
      acknowledged: before.acknowledged + 1,
    });
  }
  return gaps;
}
