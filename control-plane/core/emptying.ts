/**
 * Emptying a cell by ordinary moves: which keys go next, and to which cell. The same for an annex after a
 * failover, a planned failover and a drain: a function of what is there now, asked again and again.
 *
 * What must always be true: a cell that is chosen may take the keys by the deciders of placement; a key
 * that nobody may take is named with the reason, and the others go on.
 */
import type { CellView, Tier } from "./fleet.ts";
import {
  addRoom,
  type MovingLoad,
  noRoom,
  obstacleAt,
  type Room,
  roomOf,
} from "./move/move-target.ts";
import { dominantUtilisation } from "./place.ts";

export type LeavingKey = {
  readonly key: string;
  readonly keyspace: string;
  readonly tier: Tier;
  readonly loads: readonly MovingLoad[];
  /** Moves of it that failed since this began, and how long ago the last one did. */
  readonly failures: number;
  readonly failedMs: number;
};

export type EmptyingLimits = {
  /** Moves that are under way at once, those that soak left out. */
  readonly inFlight: number;
  readonly keysPerMove: number;
  readonly retryFirstMs: number;
  readonly retryMostMs: number;
};
export const emptyingLimits: EmptyingLimits = {
  inFlight: 2,
  keysPerMove: 100,
  retryFirstMs: 5000,
  retryMostMs: 300_000,
};

export type Departure = {
  readonly target: string;
  readonly keyspace: string;
  readonly keys: readonly string[];
  readonly room: Room;
};
export type EmptyingPlan = {
  readonly departures: readonly Departure[];
  /** Keys that no cell may take now. */
  readonly blocked: ReadonlyArray<{ readonly key: string; readonly text: string }>;
  /** Keys whose last move failed, and that are tried again later. */
  readonly resting: number;
};

export type Emptying = {
  readonly from: string;
  readonly keys: readonly LeavingKey[];
  readonly cells: readonly CellView[];
  /** Best first; taken before all others, where they may. */
  readonly prefer: readonly string[];
  /** Never. */
  readonly exclude: readonly string[];
  /** Moves under way already. */
  readonly underWay: number;
};

const tierOrder: readonly Tier[] = ["gold", "standard", "free"];

export function planEmptying(
  asked: Emptying,
  limits: EmptyingLimits = emptyingLimits,
): EmptyingPlan {
  const free = Math.max(0, limits.inFlight - asked.underWay);
  const isResting = (one: LeavingKey) =>
    one.failures > 0 && one.failedMs < retryMs(one.failures, limits);
  const resting = asked.keys.filter(isResting).length;
  const turn = asked.keys.filter((one) => !isResting(one)).toSorted(byTurn);
  const taken = new Map<string, Room>();
  const open: Batch[] = [];
  const blocked: Array<{ key: string; text: string }> = [];
  for (const one of free === 0 ? [] : turn) {
    if (open.length >= free && open.every(({ isFull }) => isFull)) break;
    const chosen = chooseFor(one, asked, taken);
    if (chosen.target === undefined) {
      blocked.push({ key: one.key, text: chosen.text });
      continue;
    }
    const { target } = chosen;
    const batch = batchFor(one, target, open, free);
    if (batch === undefined) continue;
    const room = roomOf(one.loads);
    batch.keys.push(one.key);
    batch.room = addRoom(batch.room, room);
    // What failed together may not fail apart.
    batch.isFull = one.failures > 0 || batch.keys.length >= limits.keysPerMove;
    taken.set(target, addRoom(taken.get(target) ?? noRoom, room));
  }
  const departures = open.map(({ isFull: _, ...departure }) => departure);
  return { departures, blocked, resting };
}

type Batch = { target: string; keyspace: string; keys: string[]; room: Room; isFull: boolean };

/** Undefined: as many moves as may be begun are full of others. */
function batchFor(
  { keyspace, failures }: LeavingKey,
  target: string,
  open: Batch[],
  free: number,
): Batch | undefined {
  const fits = (one: Batch) => !one.isFull && one.target === target && one.keyspace === keyspace;
  const known = failures > 0 ? undefined : open.find(fits);
  if (known !== undefined || open.length >= free) return known;
  const fresh: Batch = { target, keyspace, keys: [], room: noRoom, isFull: false };
  open.push(fresh);
  return fresh;
}

const retryMs = (failures: number, limits: EmptyingLimits): number =>
  Math.min(limits.retryMostMs, limits.retryFirstMs * 2 ** Math.min(failures - 1, 20));

const byTurn = (a: LeavingKey, b: LeavingKey): number =>
  tierOrder.indexOf(a.tier) - tierOrder.indexOf(b.tier) ||
  Number(a.key > b.key) - Number(a.key < b.key);

type Chosen =
  | { readonly target: string; readonly text: string }
  | { readonly target: undefined; readonly text: string };

function chooseFor(one: LeavingKey, asked: Emptying, taken: ReadonlyMap<string, Room>): Chosen {
  const reasons: string[] = [];
  let best: { readonly id: string; readonly score: number } | undefined;
  for (const cell of asked.cells) {
    if (cell.id === asked.from || cell.annex !== null || asked.exclude.includes(cell.id)) continue;
    if (cell.state === "retired") continue;
    const before = taken.get(cell.id) ?? noRoom;
    const no = whyNot(cell, one, before);
    if (no !== undefined) {
      reasons.push(`${cell.id}: ${no}`);
      continue;
    }
    const score = scoreOf(cell, one, before, asked.prefer);
    if (best === undefined || score < best.score) best = { id: cell.id, score };
  }
  if (best !== undefined) return { target: best.id, text: "" };
  const shown = reasons.slice(0, reasonsMax).join("; ");
  return { target: undefined, text: shown === "" ? "there is no other cell" : shown };
}

const reasonsMax = 3;

function whyNot(cell: CellView, one: LeavingKey, before: Room): string | undefined {
  if (cell.dedicated) return "dedicated: takes only tenants created with its name";
  if (cell.stage.now !== "enforce" || cell.stage.applied !== "enforce") {
    return `in stage ${cell.stage.now}: no fence would hold there`;
  }
  return obstacleAt(cell, one.loads, before)?.decider.text;
}

/** A preferred cell comes before any other, in the order of preference. */
function scoreOf(cell: CellView, one: LeavingKey, before: Room, prefer: readonly string[]): number {
  const usage = addRoom(cell.usage, before);
  const { bytes, rps } = roomOf(one.loads);
  const wanted = { tenant: one.key, tier: one.tier, region: null, cell: cell.id, bytes, rps };
  const used = dominantUtilisation({ ...cell, usage }, wanted);
  const rank = prefer.indexOf(cell.id);
  return rank === -1 ? prefer.length * preferred + used : rank * preferred + used;
}

/** More than any utilisation. */
const preferred = 1_000_000;
