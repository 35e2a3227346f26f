/**
 * Spreads many tenants over cells at once. Tenants alike (tier, region, cell asked for, about the
 * same size) form a class; each class is dealt out in portions, every portion to the cell whose
 * tightest resource is least used with it: what placing them one by one comes to, at a thousandth of
 * the cost. Whether a cell may take the class at all is asked of the same filters as for one tenant.
 */
import { decideAll, firstNo } from "./filters.ts";
import type { CellView, Tier, Usage } from "./fleet.ts";
import { freeBeside, type LoadOf, type Resource, reserveOf } from "./standby/reserve.ts";

export type ImportClass = {
  readonly id: string;
  readonly tier: Tier;
  readonly region: string | null;
  readonly cell: string | null;
  readonly count: number;
  /** Of the whole class. */
  readonly bytes: number;
  readonly rps: number;
  /** Of its largest tenant. */
  readonly bytesMax: number;
  readonly rpsMax: number;
};

export type Share = { readonly class: string; readonly cell: string; readonly count: number };

export type ImportPlan =
  | { readonly kind: "plan"; readonly shares: readonly Share[] }
  | { readonly kind: "blocked"; readonly text: string; readonly unplaced: number };

/** `mean`: sizes within a class average out. `max`: every tenant counts as the largest of its class. */
export type Charge = "mean" | "max";

/** Portions per class: the finer, the closer to placing one by one. */
const portionsMax = 1000;

type Bin = { readonly cell: CellView; usage: Usage; readonly loadOf: LoadOf };
type Load = { readonly bytes: number; readonly rps: number };

export function planImport(
  cells: readonly CellView[],
  classes: readonly ImportClass[],
  charge: Charge,
): ImportPlan {
  const bins = binsOf(cells);
  const shares: Share[] = [];
  // Who has the least choice goes first: a named cell, then a required region; then the largest.
  const order = classes.toSorted(
    (a, b) =>
      choice(a) - choice(b) ||
      b.bytesMax - a.bytesMax ||
      b.rpsMax - a.rpsMax ||
      Number(a.id > b.id) - Number(a.id < b.id),
  );
  for (const one of order) {
    const open = bins.filter(({ cell }) => mayTake(cell, one));
    const dealt = deal(open, one, charge);
    for (const [cell, count] of dealt.counts) shares.push({ class: one.id, cell, count });
    if (dealt.left > 0) {
      return { kind: "blocked", unplaced: dealt.left, text: blockedText(bins, one, dealt.left) };
    }
  }
  return { kind: "plan", shares };
}

/** What each keeps free for a failover follows from what all the others hold by then. */
function binsOf(cells: readonly CellView[]): readonly Bin[] {
  const byId = new Map<string, Bin>();
  const loadOf: LoadOf = (id) => {
    const bin = byId.get(id);
    if (bin === undefined) return undefined;
    const { capacity, reserve } = bin.cell;
    return { usage: bin.usage, capacity, hosted: reserve?.hosted ?? noUsage };
  };
  for (const cell of cells) byId.set(cell.id, { cell, usage: cell.usage, loadOf });
  return [...byId.values()];
}

const noUsage: Usage = { tenants: 0, bytes: 0, rps: 0 };

const choice = ({ cell, region }: ImportClass): number =>
  cell !== null ? 0 : region !== null ? 1 : 2;

/** Everything but room, which changes with every portion. */
const roomReasons: ReadonlySet<string> = new Set([
  "capacity-tenants",
  "capacity-bytes",
  "capacity-rps",
  "reserve",
]);

const obstacle = (cell: CellView, one: ImportClass) =>
  decideAll(cell, candidateOf(one)).find(
    ({ decision, reason }) => decision === "no" && !roomReasons.has(reason),
  );

const mayTake = (cell: CellView, one: ImportClass): boolean => obstacle(cell, one) === undefined;

const candidateOf = (one: ImportClass) => ({
  tenant: "",
  tier: one.tier,
  region: one.region,
  cell: one.cell,
  bytes: one.bytesMax,
  rps: one.rpsMax,
});

function deal(
  open: readonly Bin[],
  one: ImportClass,
  charge: Charge,
): { readonly counts: ReadonlyMap<string, number>; readonly left: number } {
  const load: Load =
    charge === "max"
      ? { bytes: one.bytesMax, rps: one.rpsMax }
      : { bytes: one.bytes / one.count, rps: one.rps / one.count };
  const portion = Math.max(1, Math.ceil(one.count / portionsMax));
  const counts = new Map<string, number>();
  let left = one.count;
  while (left > 0) {
    const best = leastUsed(open, load, Math.min(portion, left));
    if (best === undefined) break;
    const take = Math.min(portion, left, roomFor(best, load));
    best.usage = withLoad(best.usage, load, take);
    counts.set(best.cell.id, (counts.get(best.cell.id) ?? 0) + take);
    left -= take;
  }
  return { counts, left };
}

function leastUsed(open: readonly Bin[], load: Load, count: number): Bin | undefined {
  let best: Bin | undefined;
  let bestScore = Number.POSITIVE_INFINITY;
  for (const bin of open) {
    if (roomFor(bin, load) < 1) continue;
    const score = utilisation(bin.cell, withLoad(bin.usage, load, count));
    if (best !== undefined && score >= bestScore) continue;
    best = bin;
    bestScore = score;
  }
  return best;
}

/** How many tenants of this load still fit, beside what is kept free for a failover. */
function roomFor({ cell: { capacity, reserve }, usage, loadOf }: Bin, load: Load): number {
  const by = (free: number, each: number) => (each <= 0 ? Number.POSITIVE_INFINITY : free / each);
  const kept = reserve === null ? null : reserveOf(reserve, loadOf);
  const free = (resource: Resource) =>
    kept === null
      ? capacity[resource] - usage[resource]
      : freeBeside({ capacity, usage }, kept, resource);
  return Math.floor(
    Math.min(free("tenants"), by(free("bytes"), load.bytes), by(free("rps"), load.rps)),
  );
}

const withLoad = (usage: Usage, load: Load, count: number): Usage => ({
  tenants: usage.tenants + count,
  bytes: usage.bytes + load.bytes * count,
  rps: usage.rps + load.rps * count,
});

const utilisation = ({ capacity }: CellView, usage: Usage): number =>
  Math.max(
    usage.tenants / Math.max(1, capacity.tenants),
    usage.bytes / Math.max(1, capacity.bytes),
    usage.rps / Math.max(1, capacity.rps),
  );

const cellsShownMax = 5;

function blockedText(bins: readonly Bin[], one: ImportClass, left: number): string {
  const reasons = bins
    .filter(({ cell }) => cell.state !== "retired")
    .map(({ cell, usage, loadOf }) => {
      const reserve = cell.reserve === null ? null : reserveOf(cell.reserve, loadOf);
      const full = decideAll({ ...cell, usage, reserve }, candidateOf(one));
      const why = obstacle(cell, one) ?? firstNo(full);
      return `${cell.id}: ${why?.text ?? "full with what comes before in the file"}`;
    });
  const shown = reasons.slice(0, cellsShownMax).join("; ");
  const who = [one.tier, one.region ?? "any region", one.cell ?? "any cell"].join(", ");
  const text = reasons.length === 0 ? "there is no cell yet" : shown;
  return `${left} tenants (${who}) find no room: ${text}.`;
}
