/**
 * Which cell keeps a standby of which buckets of which other cell: from what is to what is wanted, one
 * look at a time. Each origin's buckets are split evenly over up to `wanted` partners; each cell keeps
 * about equally many ranges of others, so that a dead cell's load scatters over the survivors.
 *
 * What must always be true: a standby that may be adopted from is left only when others that may be
 * cover all its buckets, unless it cannot stay at all. A successor is built beside its predecessor. As
 * little as possible changes: a partner that is merely down keeps its place, one that was lost for long
 * is replaced range by range, and only more partners than there are ranges make a new split.
 */
import type { CellView } from "../fleet.ts";
import { rendezvous } from "../place.ts";
import {
  type Buckets,
  bucketsIn,
  coverageOf,
  isCovered,
  isSameRange,
  splitBuckets,
} from "./buckets.ts";
import { isArranged, keepObstacle, takeObstacle } from "./partners.ts";
import { isAdoptable, isLiving, type StandbyView } from "./standby-view.ts";

export type ArrangeWorld = {
  readonly cells: readonly CellView[];
  readonly standbys: readonly StandbyView[];
  /** Partners per cell, at most; 0: no standbys. */
  readonly wanted: number;
  /** Hosts that have been down for longer than anybody waits. */
  readonly lost: ReadonlySet<string>;
  /** Cells whose failover goes on: it alone decides about their standbys. */
  readonly failingOver: ReadonlySet<string>;
};

export type Making = { readonly origin: string; readonly host: string; readonly buckets: Buckets };
export type Leaving = { readonly annex: string; readonly reason: string };
export type Arrangement = { readonly make: readonly Making[]; readonly leave: readonly Leaving[] };

/** A range of an origin's, and who has it or is to get it. */
type Slot = {
  readonly origin: CellView;
  readonly buckets: Buckets;
  holder: StandbyView | undefined;
  /** Undefined: nobody may. */
  host: string | undefined;
};

/** So many ranges more than another host one may keep before one is moved to a new host. */
const unevenMax = 2;

export function arrange(world: ArrangeWorld): Arrangement {
  const slots = world.cells
    .filter((cell) => isArranged(cell) && isProtected(cell, world))
    .toSorted(byId)
    .flatMap((origin) => slotsOf(origin, world));
  const hosted = countHosted(slots);
  for (const slot of slots) {
    if (slot.host === undefined) assign(slot, slots, { hosted, world });
  }
  const missing = slots.filter(({ holder, host }) => holder === undefined && host !== undefined);
  const atRest = world.standbys.every((one) => !isLiving(one) || one.byHand || isAdoptable(one));
  const moved = missing.length === 0 && atRest ? oneBetterPlace(slots, { hosted, world }) : [];
  return {
    make: [...missing.map(toMaking), ...moved],
    leave: world.standbys.flatMap((one) => leaving(one, slots, world)),
  };
}

const byId = (a: { readonly id: string }, b: { readonly id: string }): number =>
  a.id < b.id ? -1 : 1;

/** Is there anything that a failover could take over? */
const isProtected = (cell: CellView, { failingOver, wanted }: ArrangeWorld): boolean =>
  wanted > 0 &&
  cell.goal !== "retired" &&
  (cell.state === "active" || cell.state === "cordoned" || cell.state === "draining") &&
  !cell.revoking &&
  !failingOver.has(cell.id);

const arrangedOf = (origin: string, { standbys }: ArrangeWorld): readonly StandbyView[] =>
  standbys.filter((one) => one.origin === origin && !one.byHand && isLiving(one));

/** The ranges of an origin, with the standbys that keep them and may go on. */
function slotsOf(origin: CellView, world: ArrangeWorld): Slot[] {
  const kept = arrangedOf(origin.id, world).filter((one) => mayStay(origin, one, world));
  const parts = chooseParts(kept, partnersPossible(origin, kept, world), world.wanted);
  return splitBuckets(parts).map((buckets) => {
    const holders = kept.filter((one) => isSameRange(one.buckets, buckets));
    // Of two, the younger was made to take the older one's place.
    const holder = holders.toSorted(youngerFirst)[0];
    return { origin, buckets, holder, host: holder?.host };
  });
}

const youngerFirst = (a: StandbyView, b: StandbyView): number =>
  b.createdAtMs - a.createdAtMs || (a.annex < b.annex ? 1 : -1);

function mayStay(origin: CellView, { host }: StandbyView, world: ArrangeWorld): boolean {
  const cell = world.cells.find(({ id }) => id === host);
  return cell !== undefined && !world.lost.has(host) && keepObstacle(origin, cell) === undefined;
}

/** Cells that keep a range of this origin's, or may. */
const partnersPossible = (
  origin: CellView,
  kept: readonly StandbyView[],
  { cells, lost }: ArrangeWorld,
): number =>
  cells.filter(
    (cell) =>
      kept.some(({ host }) => host === cell.id) ||
      (!lost.has(cell.id) && takeObstacle(origin, cell) === undefined),
  ).length;

/**
 * In how many ranges: as stands, where that is enough of them and not too many. A new split copies
 * everything anew, so one that was lost is given to another host instead.
 */
function chooseParts(kept: readonly StandbyView[], possible: number, wanted: number): number {
  const most = Math.min(wanted, possible);
  if (most === 0) return 0;
  let best = most;
  let bestReady = 0;
  for (let parts = most; parts <= wanted; parts += 1) {
    const ranges = splitBuckets(parts);
    const fitting = kept.filter(({ buckets }) => ranges.some((one) => isSameRange(one, buckets)));
    // What is being built counts a little: of two beginnings the one that has begun goes on.
    const ready =
      coverageOf(fitting.filter(isAdoptable).map(({ buckets }) => buckets)).size +
      coverageOf(fitting.map(({ buckets }) => buckets)).size / 1000;
    if (ready > bestReady) {
      best = parts;
      bestReady = ready;
    }
  }
  return best;
}

type Hosted = Map<string, number>;
type Choosing = { readonly hosted: Hosted; readonly world: ArrangeWorld };

function countHosted(slots: readonly Slot[]): Hosted {
  const hosted: Hosted = new Map();
  for (const { host } of slots) if (host !== undefined) add(hosted, host, 1);
  return hosted;
}

const add = (hosted: Hosted, host: string, change: number): Hosted =>
  hosted.set(host, (hosted.get(host) ?? 0) + change);

function assign(slot: Slot, slots: readonly Slot[], { hosted, world }: Choosing): void {
  const best = candidatesFor(slot, slots, { hosted, world })[0];
  if (best === undefined) return;
  slot.host = best.id;
  add(hosted, best.id, 1);
}

/** Best first: who keeps none of this origin's, in a domain that keeps none, and least of all. */
function candidatesFor(
  slot: Slot,
  slots: readonly Slot[],
  { hosted, world }: Choosing,
): readonly CellView[] {
  const { origin } = slot;
  const others = slots.filter((one) => one.origin === origin && one !== slot);
  const hosts = others.flatMap(({ host }) => world.cells.filter(({ id }) => id === host));
  const rank = (cell: CellView): readonly number[] => [
    hosts.filter(({ id }) => id === cell.id).length,
    hosts.filter(({ failureDomain }) => failureDomain === cell.failureDomain).length,
    hosted.get(cell.id) ?? 0,
    -rendezvous(cell.id, `${origin.id} ${slot.buckets.lo}`),
  ];
  return world.cells
    .filter((cell) => !world.lost.has(cell.id) && takeObstacle(origin, cell) === undefined)
    .map((cell) => ({ cell, rank: rank(cell) }))
    .toSorted((a, b) => compareRanks(a.rank, b.rank) || byId(a.cell, b.cell))
    .map(({ cell }) => cell);
}

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (const [at, left] of a.entries()) {
    const difference = left - (b[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** While all is in step: one range that two of one origin's share a host for, or that a new host lacks. */
function oneBetterPlace(slots: readonly Slot[], choosing: Choosing): Making[] {
  for (const slot of slots) {
    const best = candidatesFor(slot, slots, choosing)[0];
    if (best === undefined || slot.host === undefined || best.id === slot.host) continue;
    const twins = slots.filter((one) => one.origin === slot.origin && one.host === slot.host);
    const bestHas = slots.some((one) => one.origin === slot.origin && one.host === best.id);
    const difference = (choosing.hosted.get(slot.host) ?? 0) - (choosing.hosted.get(best.id) ?? 0);
    if (!bestHas && (twins.length > 1 || difference > unevenMax)) {
      return [toMaking({ ...slot, host: best.id })];
    }
  }
  return [];
}

const toMaking = ({ origin, buckets, host }: Slot): Making => ({
  origin: origin.id,
  host: host ?? "",
  buckets,
});

/** A standby that has no place in what is wanted goes as soon as nobody depends on it. */
function leaving(one: StandbyView, slots: readonly Slot[], world: ArrangeWorld): Leaving[] {
  if (one.byHand || !isLiving(one) || world.failingOver.has(one.origin)) return [];
  const place = slots.find(({ holder }) => holder?.annex === one.annex);
  if (place !== undefined || awaitsJudgement(one.origin, world)) return [];
  const reason = reasonToLeave(one, slots, world);
  return reason === undefined ? [] : [{ annex: one.annex, reason }];
}

/**
 * Its database was set back, or is another's: what its standbys have may be all that is left. They go when a
 * person has decided, by a failover or by letting it back.
 */
const awaitsJudgement = (id: string, { cells, wanted }: ArrangeWorld): boolean =>
  wanted > 0 &&
  cells.some((cell) => cell.id === id && cell.state === "quarantined" && !cell.revoking);

function reasonToLeave(
  one: StandbyView,
  slots: readonly Slot[],
  world: ArrangeWorld,
): string | undefined {
  const origin = world.cells.find(({ id }) => id === one.origin);
  const host = world.cells.find(({ id }) => id === one.host);
  if (origin === undefined || !isProtected(origin, world) || !isArranged(origin)) {
    return world.wanted === 0 ? "no standbys are wanted" : `${one.origin} needs none any more`;
  }
  if (host === undefined || host.state === "retired") return `${one.host} has left the fleet`;
  // Set back in time, or there twice: what arrived in between is missing, and is not sent again. Where a
  // person lets the cell back, a copy made anew is whole; this one never will be.
  if (host.state === "quarantined" && !host.revoking && !world.lost.has(host.id)) {
    return `the database of ${one.host} is not the one that it was: its copies may have holes`;
  }
  const others = slots.flatMap(({ origin: of, holder }) =>
    of.id === one.origin && holder !== undefined && isAdoptable(holder) ? [holder.buckets] : [],
  );
  if (isCovered(one.buckets, coverageOf(others))) {
    return `its ${bucketsIn(one.buckets)} buckets stand elsewhere`;
  }
  const isAway = world.lost.has(one.host) || host.state === "quarantined";
  if (!isAdoptable(one) && !isAway) return "it was not ready yet, and has no place any more";
  const awaited = slots.some(
    ({ origin: of, host: to }) => of.id === one.origin && to !== undefined,
  );
  return host.goal === "retired" && !awaited
    ? `${one.host} leaves the fleet, and no other cell may keep it`
    : undefined;
}
