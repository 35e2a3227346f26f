/**
 * The fleet as a plan goes: each move that was decided is charged before the next one is, so that ten
 * moves do not pile up on one target. Keeps, per cell, its units with the most relief per byte first.
 */
import {
  add,
  type Bin,
  type Load,
  noLoad,
  type Resource,
  subtract,
  tightest,
  type Unit,
  type Weight,
  weightBy,
} from "./load.ts";
import { type Groups, mayTake } from "./may-take.ts";

type Goal = "balance" | Resource;

export class Board {
  readonly bins: readonly Bin[];
  readonly #weigh: Weight;
  readonly #loads = new Map<string, Load>();
  readonly #groups = new Map<string, Map<string, number>>();
  readonly #units = new Map<string, Unit[]>();
  readonly #byCell: ReadonlyMap<string, Bin>;
  readonly #goal: Goal;
  /** By what a cell's units stand in order; another one once the cell is tight in another resource. */
  readonly #sortedBy = new Map<string, Resource>();

  constructor(bins: readonly Bin[], units: readonly Unit[], goal: Goal) {
    this.bins = bins;
    this.#goal = goal;
    this.#weigh = weightBy(goal);
    this.#byCell = new Map(bins.map((bin) => [bin.cell, bin]));
    for (const bin of bins) {
      this.#loads.set(bin.cell, bin.load);
      this.#groups.set(bin.cell, new Map());
      this.#units.set(bin.cell, []);
    }
    for (const unit of units) {
      this.#units.get(unit.cell)?.push(unit);
      this.#count(unit, unit.cell, 1);
    }
  }

  bin(cell: string): Bin | undefined {
    return this.#byCell.get(cell);
  }
  load(cell: string): Load {
    return this.#loads.get(cell) ?? { tenants: 0, bytes: 0, rps: 0 };
  }
  groups(): Groups {
    return this.#groups;
  }
  /** Those that have stayed, first what relieves the cell's tightest resource most per byte copied. */
  units(cell: string): readonly Unit[] {
    const bin = this.#byCell.get(cell);
    if (bin !== undefined) this.#keepSorted(bin);
    return this.#units.get(cell) ?? [];
  }
  utilisation(bin: Bin): number {
    return this.#weigh(this.load(bin.cell), bin.capacity);
  }
  /** With so much more on it, or less. */
  utilisationWith(bin: Bin, added: Load, sign: 1 | -1): number {
    const load = this.load(bin.cell);
    return this.#weigh(sign === 1 ? add(load, added) : subtract(load, added), bin.capacity);
  }
  /** `instead`: what leaves the cell in exchange. */
  mayTake(bin: Bin, unit: Unit, instead: Load = noLoad): boolean {
    return mayTake(bin, unit, subtract(this.load(bin.cell), instead), this.#groups);
  }
  /** The emptiest cell after it took the unit, of those that may; ties by name. */
  bestTarget(unit: Unit, from: string): { readonly bin: Bin; readonly after: number } | undefined {
    let best: { readonly bin: Bin; readonly after: number } | undefined;
    for (const bin of this.bins) {
      if (bin.cell === from || !bin.open || bin.leaving) continue;
      const after = this.utilisationWith(bin, unit.load, 1);
      if (best !== undefined && after >= best.after) continue;
      if (this.mayTake(bin, unit)) best = { bin, after };
    }
    return best;
  }
  move(unit: Unit, from: string, to: string): void {
    this.#loads.set(from, subtract(this.load(from), unit.load));
    this.#loads.set(to, add(this.load(to), unit.load));
    this.#count(unit, from, -1);
    this.#count(unit, to, 1);
    const left = this.#units.get(from);
    const at = left?.indexOf(unit) ?? -1;
    if (left !== undefined && at >= 0) left.splice(at, 1);
    // What has come does not move on in the same plan: it stands at the end and is not looked at.
  }

  #count(unit: Unit, cell: string, by: number): void {
    const groups = this.#groups.get(cell);
    if (unit.apart === null || groups === undefined) return;
    groups.set(unit.apart, (groups.get(unit.apart) ?? 0) + by);
  }
  #keepSorted(bin: Bin): void {
    const resource = tightest(this.#goal, this.load(bin.cell), bin.capacity);
    if (this.#sortedBy.get(bin.cell) === resource) return;
    this.#sortedBy.set(bin.cell, resource);
    const relief = ({ load }: Unit) => load[resource] / (load.bytes + bytesOfAMove);
    this.#units
      .get(bin.cell)
      ?.sort((a, b) => relief(b) - relief(a) || Number(a.key > b.key) - Number(a.key < b.key));
  }
}

/** What any move costs, however small: slots, streams, a pause. */
export const bytesOfAMove = 1_048_576;
