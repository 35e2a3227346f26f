/**
 * What workers saw of cells, and what they would have refused, for the one report to the control plane.
 * A worker tells what is new; the main thread adds it up, so that nothing is lost when a worker ends.
 */
import { blamedTogether } from "../cells/blamed-keys.ts";
import type { CellTally, FreshSeen } from "../cells/cell-tally.ts";
import { Outcomes } from "../observe/outcomes.ts";
import type { WouldRefuse } from "../place/would-refuse.ts";
import type { Counts } from "./messages.ts";

/** In a worker: what was counted since the last call; undefined for nothing. */
export function createCountsReader(
  tally: Pick<CellTally, "take">,
  wouldRefuse: Pick<WouldRefuse, "counts">,
  outcomes: Pick<Outcomes, "take">,
): (isNews: boolean) => Counts | undefined {
  let told: Readonly<Record<string, number>> = {};
  return (isNews) => {
    const seen = tally.take();
    const served = outcomes.take();
    const now = wouldRefuse.counts();
    const fresh = Object.entries(now)
      .map(([code, count]) => [code, count - (told[code] ?? 0)] as const)
      .filter(([, count]) => count > 0);
    told = now;
    if (seen.length === 0 && served.length === 0 && fresh.length === 0) return undefined;
    return { seen, served, wouldRefuse: Object.fromEntries(fresh), isNews };
  };
}

export type CountsSum = {
  readonly add: (counts: Counts) => void;
  readonly tally: Pick<CellTally, "take" | "onNews">;
  readonly wouldRefuse: Pick<WouldRefuse, "counts">;
  readonly outcomes: Pick<Outcomes, "totals">;
};

function seenToo(known: FreshSeen | undefined, one: FreshSeen): FreshSeen {
  const before = one.anew ? undefined : known;
  const { requests = 0, failures = 0 } = before ?? {};
  const blamed = blamedTogether(known?.blamed, one.blamed);
  return {
    ...{ cell: one.cell, anew: one.anew },
    ...{ requests: requests + one.requests, failures: failures + one.failures },
    ...(blamed === undefined ? {} : { blamed }),
  };
}

/** In the main thread. */
export function createCountsSum(): CountsSum {
  let seen = new Map<FreshSeen["cell"], FreshSeen>();
  let onNews: () => void = () => {};
  const refused = new Map<string, number>();
  const outcomes = new Outcomes();
  return {
    add: (counts) => {
      for (const one of counts.seen) seen.set(one.cell, seenToo(seen.get(one.cell), one));
      outcomes.add(counts.served);
      for (const [code, count] of Object.entries(counts.wouldRefuse)) {
        refused.set(code, (refused.get(code) ?? 0) + count);
      }
      if (counts.isNews) onNews();
    },
    tally: {
      take: () => {
        const all = [...seen.values()];
        seen = new Map();
        return all;
      },
      onNews: (hear) => {
        onNews = hear;
      },
    },
    wouldRefuse: { counts: () => Object.fromEntries(refused) },
    outcomes,
  };
}
