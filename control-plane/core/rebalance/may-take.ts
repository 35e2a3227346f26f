/**
 * May this cell take this unit? Hard rules, each with its words; the planner asks for the bare verdict some
 * million times and for the words only of what it shows. Pure.
 */
import { type Bin, fits, highWatermark, type Load, type Unit } from "./load.ts";

/** Who stands where, as the plan goes: cell → groups that are to be kept apart. */
export type Groups = ReadonlyMap<string, ReadonlyMap<string, number>>;

export type Rule = {
  readonly name: string;
  readonly holds: (bin: Bin, unit: Unit, load: Load, groups: Groups) => boolean;
  readonly text: (bin: Bin, unit: Unit, load: Load) => string;
};

export const rules: readonly Rule[] = [
  {
    name: "open",
    holds: (bin) => bin.open && !bin.leaving,
    text: (bin) => (bin.leaving ? `${bin.cell} is being emptied` : bin.closedBecause),
  },
  {
    name: "region",
    holds: (bin, unit) => unit.region === null || unit.region === bin.region,
    text: (bin, unit) => `${bin.cell} is in ${bin.region}, ${unit.region} is required`,
  },
  {
    name: "tier",
    holds: (bin, unit) => bin.tiers.length === 0 || bin.tiers.includes(unit.tier),
    text: (bin, unit) => `${bin.cell} takes only ${bin.tiers.join(", ")}, not ${unit.tier}`,
  },
  {
    name: "apart",
    holds: (bin, unit, _load, groups) =>
      unit.apart === null || (groups.get(bin.cell)?.get(unit.apart) ?? 0) === 0,
    text: (bin, unit) => `${bin.cell} has another of the group ${unit.apart}`,
  },
  {
    name: "capacity",
    holds: (bin, unit, load) => fits(bin, load, unit.load),
    text: (bin) =>
      `${bin.cell} would be above ${Math.round(highWatermark * 100)} % or into its failover reserve`,
  },
  {
    name: "share",
    holds: (bin, unit) =>
      unit.load.tenants > 1 ||
      (unit.load.bytes <= bin.capacity.bytes * bin.maxTenantShare &&
        unit.load.rps <= bin.capacity.rps * bin.maxTenantShare),
    text: (bin) =>
      `one tenant may be ${Math.round(bin.maxTenantShare * 100)} % of ${bin.cell} at most`,
  },
];

export function mayTake(bin: Bin, unit: Unit, load: Load, groups: Groups): boolean {
  for (const rule of rules) if (!rule.holds(bin, unit, load, groups)) return false;
  return true;
}

/** The first rule that says no, in words; undefined: it may. */
export function whyNot(bin: Bin, unit: Unit, load: Load, groups: Groups): string | undefined {
  const broken = rules.find((rule) => !rule.holds(bin, unit, load, groups));
  return broken?.text(bin, unit, load);
}
