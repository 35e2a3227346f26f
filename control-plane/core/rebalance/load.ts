/** What cells carry and could carry, as numbers: the arithmetic of rebalancing. Pure. */
import type { Tier } from "../fleet.ts";

export type Load = { readonly tenants: number; readonly bytes: number; readonly rps: number };
export const resources = ["tenants", "bytes", "rps"] as const;
export type Resource = (typeof resources)[number];

export const noLoad: Load = { tenants: 0, bytes: 0, rps: 0 };
export const add = (a: Load, b: Load): Load => ({
  tenants: a.tenants + b.tenants,
  bytes: a.bytes + b.bytes,
  rps: a.rps + b.rps,
});
export const subtract = (a: Load, b: Load): Load => ({
  tenants: a.tenants - b.tenants,
  bytes: a.bytes - b.bytes,
  rps: a.rps - b.rps,
});

/** A cell as a bin. */
export type Bin = {
  readonly cell: string;
  readonly region: string;
  readonly failureDomain: string;
  /** Empty: all. */
  readonly tiers: readonly Tier[];
  /** Takes what moves: active, healthy, not dedicated, not leaving. */
  readonly open: boolean;
  /** Why not, when it does not. */
  readonly closedBecause: string;
  /** Everything on it has to go: drained, or asked for as removed. */
  readonly leaving: boolean;
  readonly capacity: Load;
  /** Kept free for what it would have to take over. */
  readonly reserve: Load;
  readonly load: Load;
  /** No unit may be a larger share of it. */
  readonly maxTenantShare: number;
};

/** A placement key with what stands under it: what moves, whole or not at all. */
export type Unit = {
  readonly key: string;
  readonly cell: string;
  readonly epoch: number;
  readonly tier: Tier;
  readonly region: string | null;
  readonly load: Load;
  /** Stays where it is: pinned, in motion, suspended, in a cell that died. Null: may move. */
  readonly fixedBecause: string | null;
  /** Not before this, unless it repairs something. */
  readonly cooldownUntilMs: number;
  /** Two units of one group are kept apart; null: none. */
  readonly apart: string | null;
};

export type Weight = (load: Load, capacity: Load) => number;

const share = (used: number, all: number): number => (used <= 0 ? 0 : used / Math.max(all, 1e-9));

/** The tightest resource decides; by one resource when the goal names it. */
export const weightBy = (goal: "balance" | Resource): Weight =>
  goal === "balance"
    ? (load, capacity) =>
        Math.max(
          share(load.tenants, capacity.tenants),
          share(load.bytes, capacity.bytes),
          share(load.rps, capacity.rps),
        )
    : (load, capacity) => share(load[goal], capacity[goal]);

/** Which resource makes the cell as full as it is. */
export const tightest = (goal: "balance" | Resource, load: Load, capacity: Load): Resource =>
  goal !== "balance"
    ? goal
    : resources.reduce((most, name) =>
        share(load[name], capacity[name]) > share(load[most], capacity[most]) ? name : most,
      );

/** How full a cell may be planned: not to its edge. */
export const highWatermark = 0.85;

/** Would all of it fit, beside the reserve? */
export const fits = (bin: Bin, load: Load, added: Load): boolean =>
  resources.every(
    (name) =>
      load[name] + added[name] + bin.reserve[name] <= bin.capacity[name] * limitOf(name) + 1e-9,
  );

/** Tenants are counted exactly; what is measured gets the margin. */
const limitOf = (name: Resource): number => (name === "tenants" ? 1 : highWatermark);

/**
 * No assignment can have a lower peak: the mean over all that takes, and the largest unit in the largest
 * cell that there is.
 */
export function peakBound(
  bins: readonly Bin[],
  units: readonly Unit[],
  goal: "balance" | Resource,
): number {
  const open = bins.filter((bin) => bin.open && !bin.leaving);
  if (open.length === 0) return Number.POSITIVE_INFINITY;
  const capacity = open.reduce((sum, bin) => add(sum, bin.capacity), noLoad);
  const largest = open.reduce<Load>(
    (most, bin) => ({
      tenants: Math.max(most.tenants, bin.capacity.tenants),
      bytes: Math.max(most.bytes, bin.capacity.bytes),
      rps: Math.max(most.rps, bin.capacity.rps),
    }),
    noLoad,
  );
  const weigh = weightBy(goal);
  const total = units.reduce((sum, unit) => add(sum, unit.load), noLoad);
  const single = units.reduce((most, unit) => Math.max(most, weigh(unit.load, largest)), 0);
  return Math.max(weigh(total, capacity), single);
}
