/**
 * May this cell take these tenants? The filters of placement, asked for a whole group at once, so that
 * a move is refused for the same reasons, in the same words, as a creation would be.
 */
import { type Candidate, type Decider, decideAll, firstNo } from "../filters.ts";
import type { CellView, Tier } from "../fleet.ts";

/** Tenants of one tier and region: how many, what they weigh, and the heaviest of them. */
export type MovingLoad = {
  /** For messages: the tenant, or the key that holds them. */
  readonly name: string;
  readonly tier: Tier;
  readonly region: string | null;
  readonly tenants: number;
  readonly bytes: number;
  readonly rps: number;
  readonly bytesLargest: number;
  readonly rpsLargest: number;
};

export type Room = { readonly tenants: number; readonly bytes: number; readonly rps: number };
export const noRoom: Room = { tenants: 0, bytes: 0, rps: 0 };

export const addRoom = (a: Room, b: Room): Room => ({
  tenants: a.tenants + b.tenants,
  bytes: a.bytes + b.bytes,
  rps: a.rps + b.rps,
});

export const roomOf = (loads: readonly MovingLoad[]): Room => loads.reduce(addRoom, noRoom);

/** What stands against it: the first load that may not go there, and why. `taken`: by groups before it. */
export function obstacleAt(
  cell: CellView,
  loads: readonly MovingLoad[],
  taken: Room,
): { readonly load: MovingLoad; readonly decider: Decider } | undefined {
  let before = taken;
  for (const load of loads) {
    const decider = firstNo(decide(cell, load, before));
    if (decider !== undefined) return { load, decider };
    before = addRoom(before, load);
  }
  return undefined;
}

/** The heaviest comes last: if it fits beside all the others, all fit. */
function decide(cell: CellView, load: MovingLoad, before: Room): readonly Decider[] {
  const heaviest: Candidate = {
    ...{ tenant: load.name, tier: load.tier, region: load.region, cell: cell.id },
    ...{ bytes: load.bytesLargest, rps: load.rpsLargest },
  };
  const others = {
    tenants: Math.max(0, load.tenants - 1),
    bytes: load.bytes - load.bytesLargest,
    rps: load.rps - load.rpsLargest,
  };
  const usage = addRoom(cell.usage, addRoom(before, others));
  const deciders = decideAll({ ...cell, usage }, heaviest);
  // A container without tenants takes no seat.
  return load.tenants === 0 ? deciders.filter(({ name }) => name !== "tenants") : deciders;
}
