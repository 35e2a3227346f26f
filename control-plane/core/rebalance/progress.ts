/**
 * What of a rebalance is next: a function of the plan and of where its keys stand now, so whoever takes over
 * just goes on. A key that is not where the plan saw it is left alone. Pure.
 */
import type { RebalanceMove } from "../../../contract/rebalance-api.ts";

export type KeyStanding = {
  readonly cell: string | null;
  readonly epoch: number;
  readonly isMoving: boolean;
  readonly isActive: boolean;
  readonly failures: number;
  readonly failedMs: number;
};

/** So many failures of one key, and a person has to look. */
const strikesMax = 3;
const retryMs = 5000;
/** Keys that share one move and one pause. */
const keysPerMove = 20;

export type Batch = {
  readonly from: string;
  readonly to: string;
  readonly keyspace: string;
  readonly moves: readonly RebalanceMove[];
};

export type RebalanceProgress = {
  readonly arrived: number;
  readonly underWay: number;
  readonly waiting: number;
  /** Left alone: moved by somebody else, gone, or failed three times. */
  readonly skipped: ReadonlyArray<{ readonly key: string; readonly text: string }>;
  /** To begin now, at most `room` of them. */
  readonly begin: readonly Batch[];
};

/** Each ends what may not stay so: a broken rule, or a cell that is being emptied. None is for balance. */
export const onlyMends = (moves: ReadonlyArray<Pick<RebalanceMove, "why">>): boolean =>
  moves.every(({ why }) => why === "repair" || why === "drain");

export function progressOf(
  moves: readonly RebalanceMove[],
  standings: ReadonlyMap<string, KeyStanding>,
  room: number,
): RebalanceProgress {
  const skipped: Array<{ key: string; text: string }> = [];
  const ready: RebalanceMove[] = [];
  const inFlight = new Set<string>();
  let arrived = 0;
  let underWay = 0;
  let waiting = 0;
  for (const move of moves) {
    const found = standOf(move, standings.get(move.key));
    if (found === "arrived") arrived += 1;
    else if (found === "under-way") {
      underWay += 1;
      inFlight.add(`${move.from}\n${move.to}`);
    } else if (found === "resting") waiting += 1;
    else if (found === "ready") {
      waiting += 1;
      ready.push(move);
    } else skipped.push({ key: move.key, text: found.text });
  }
  const begin = batchesOf(ready).filter(({ from, to }) => !inFlight.has(`${from}\n${to}`));
  const free = Math.max(0, room - inFlight.size);
  return { arrived, underWay, waiting, skipped, begin: begin.slice(0, free) };
}

type Stand = "arrived" | "under-way" | "resting" | "ready" | { readonly text: string };

function standOf(move: RebalanceMove, now: KeyStanding | undefined): Stand {
  if (now === undefined || now.cell === null) return { text: "it is gone" };
  // Also while the way back is open: the next move need not wait for that.
  if (now.cell === move.to) return "arrived";
  if (now.isMoving) return "under-way";
  if (now.cell !== move.from || now.epoch !== move.epoch) {
    return { text: `it was moved to ${now.cell} by somebody else` };
  }
  if (now.failures >= strikesMax) return { text: `its move failed ${now.failures} times` };
  if (!now.isActive) return { text: "it is not active" };
  return now.failures > 0 && now.failedMs < retryMs * 2 ** now.failures ? "resting" : "ready";
}

/** One per pair of cells and keyspace, in the order of the plan. What failed goes alone. */
function batchesOf(ready: readonly RebalanceMove[]): Batch[] {
  const batches = new Map<string, RebalanceMove[]>();
  for (const move of ready) {
    const keyspace = keyspaceOf(move.key);
    const name = `${move.from}\n${move.to}\n${keyspace}`;
    const batch = batches.get(name) ?? [];
    if (batch.length < keysPerMove) batches.set(name, [...batch, move]);
  }
  return [...batches.values()].flatMap((moves) => {
    const [first] = moves;
    if (first === undefined) return [];
    return [{ from: first.from, to: first.to, keyspace: keyspaceOf(first.key), moves }];
  });
}

const keyspaceOf = (key: string): string => key.slice(0, key.indexOf("/"));
