/**
 * Empties a cell by ordinary moves, a few at a time, until it owns nothing: the annexes of a failed-over
 * cell, a cell that is failed over as planned, a cell that is drained. Each call looks and begins what may
 * be begun; the executor of moves does the rest. Nothing is remembered between calls, so whoever takes
 * over just goes on.
 */
import { type MoveOptions, moveOptionsSchema } from "../../../contract/move-api.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { newOpId, type Random } from "../../../runtime/random.ts";
import { type EmptyingLimits, emptyingLimits, planEmptying } from "../../core/emptying.ts";
import type { Database } from "../../store/database.ts";
import { beginDeparture, movesFrom, readLeaving } from "../../store/emptying.ts";
import { readCells } from "../../store/fleet-store.ts";
import { askMove } from "../../store/moves/ask.ts";

export type EmptyingWorld = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
};

export type EmptyingTask = {
  readonly from: string;
  /** The operation that empties it: moves that failed before it do not count. */
  readonly op: string;
  readonly term: number;
  readonly reason: string;
  /** Cells that are chosen before all others, best first. */
  readonly prefer?: readonly string[];
  readonly exclude?: readonly string[];
  /** Only this share of the keys goes, by stable hash; absent: all. */
  readonly percent?: number | undefined;
  readonly options?: Partial<MoveOptions>;
  readonly limits?: EmptyingLimits;
};

export type EmptyingTurn = {
  /** Keys that it owns still. */
  readonly left: number;
  readonly underWay: number;
  readonly begun: number;
  /** What keeps it from going on, for people; empty: nothing does. */
  readonly obstacle: string;
};

const actor = { name: "control-plane", role: "system" } as const;
/** Looked at in one turn: more than may be begun in one. */
const keysPerTurn = 1000;
/** The way back is open for a moment: whoever empties a cell wants to be done with it. */
const soakMs = 2000;

export async function emptyCell(world: EmptyingWorld, task: EmptyingTask): Promise<EmptyingTurn> {
  const { database, clock, random } = world;
  const { from, percent } = task;
  const limits = task.limits ?? emptyingLimits;
  const found = await database.snapshot(async (tx) => ({
    ...(await readLeaving(tx, from, { sinceOp: task.op, limit: keysPerTurn, percent })),
    cells: await readCells(tx),
  }));
  const plan = planEmptying(
    {
      ...{ from, keys: found.keys, cells: found.cells, underWay: found.underWay },
      ...{ prefer: task.prefer ?? [], exclude: task.exclude ?? [] },
    },
    limits,
  );
  const options = moveOptionsSchema.parse({ switch: "auto", soakMs, ...task.options });
  let begun = 0;
  for (const departure of plan.departures) {
    const nowMs = clock.nowMs();
    const order = { id: newOpId(random, nowMs), term: task.term, nowMs, from, departure, options };
    const more = { actor, reason: task.reason, by: task.op };
    if (await beginDeparture(database, { ...order, ...more })) begun += 1;
  }
  return {
    ...{ left: found.left, underWay: found.underWay + begun, begun },
    obstacle: obstacleOf(plan, found.unmovable),
  };
}

function obstacleOf(
  plan: ReturnType<typeof planEmptying>,
  unmovable: { readonly key: string; readonly state: string } | undefined,
): string {
  const [blocked] = plan.blocked;
  if (blocked !== undefined) {
    return `no cell may take ${blocked.key}${plan.blocked.length > 1 ? ` and ${plan.blocked.length - 1} more` : ""} (${blocked.text})`;
  }
  if (plan.resting > 0)
    return `${plan.resting} keys wait to be tried again: cellctl move ls --state failed`;
  return unmovable === undefined ? "" : `${unmovable.key} is ${unmovable.state}, and stays`;
}

/** Called off: moves that have not changed hands yet are cancelled; what has arrived stays there. */
export async function stopEmptying(
  { database }: Pick<EmptyingWorld, "database">,
  from: string,
  sinceOp: string,
): Promise<number> {
  const ids = await movesFrom(database.read, from, sinceOp);
  for (const id of ids) {
    await database.transaction((tx) => askMove(tx, id, { wish: "cancel" }));
  }
  return ids.length;
}
