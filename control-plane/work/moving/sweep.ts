/**
 * What moves that are over have left: a cell did not answer when they were taken back, or a restore ended
 * them. Looked at now and then, and at the beginning of each term.
 *
 * What must always be true: nothing is changed in a cell that is quarantined. Its log tells what its standbys
 * lack, and would tell of our deletions as of its tenants'; its rows may be the better copy. What is left there
 * waits until the quarantine is over.
 */

import { CellError } from "../../../contract/errors.ts";
import { opIdSchema } from "../../../contract/ids.ts";
import { dropLeftover, findLeftovers } from "../../../moving/leftovers.ts";
import type { MoveTask, StoreLogin } from "../../../moving/ports.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { errorFields } from "../../../runtime/log.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { raiseAttempt } from "../../store/moves/enter.ts";
import {
  cellsKeptAsTheyAre,
  forgetObjects,
  inUseAmong,
  isLatestOf,
  movesWithRemains,
} from "../../store/moves/objects.ts";
import { findMove, requireView } from "../../store/moves/read.ts";
import { findPlacement } from "../../store/placements.ts";
import { undoAll } from "./steps/way-back.ts";
import type { MovingWorld } from "./world.ts";

const sweepEveryMs = 60_000;

export type Sweeper = {
  /** Sweeps when it is time; never throws because of a cell. */
  readonly turn: (term: number) => Promise<void>;
  readonly close: () => Promise<void>;
};

export function createSweeper(world: MovingWorld, everyMs: number = sweepEveryMs): Sweeper {
  const stop = new AbortController();
  const { clock }: { readonly clock: Clock } = world;
  let last: { readonly term: number; readonly atMs: number } | undefined;
  let sweeping: Promise<void> | undefined;

  return {
    turn: async (term) => {
      const nowMs = clock.monotonicMs();
      const isTime = last?.term !== term || nowMs - last.atMs >= everyMs;
      if (!isTime || sweeping !== undefined) return;
      last = { term, atMs: nowMs };
      sweeping = sweep(world, term, stop.signal)
        .catch((error) => {
          const fields = { move: "", step: "sweep", error: "", ...errorFields(error) };
          world.log.event("move.failing", fields, "warn");
        })
        .finally(() => {
          sweeping = undefined;
        });
    },
    close: async () => {
      stop.abort();
      await sweeping;
    },
  };
}

async function sweep(world: MovingWorld, term: number, signal: AbortSignal): Promise<void> {
  await sweepRecorded(world, term, signal);
  const kept = await cellsKeptAsTheyAre(world.database.read);
  for (const login of await world.allLogins()) {
    if (signal.aborted) return;
    if (kept.has(login.cell)) continue;
    await sweepStrangers(world, login);
  }
}

/** Streams of moves that are not in our books, or are over: a slot would keep its server's log for ever. */
async function sweepStrangers(world: MovingWorld, login: StoreLogin): Promise<void> {
  try {
    const there = await findLeftovers(login);
    const ops = new Set<string>(there.map(({ op }) => op));
    const inUse = await inUseAmong(world.database.read, [...ops]);
    // Keys that are being imported have their rows removed first, by what is recorded of their move.
    const idle = there.filter(({ op, kind }) => kind !== "ownership" && !inUse.has(op));
    for (const leftover of idle) {
      await dropLeftover(login, leftover, world.clock);
      const text = `${leftover.kind} ${leftover.name} removed from store ${login.store} of ${login.cell}`;
      world.log.event("move.swept", { move: leftover.op, text });
    }
  } catch (error) {
    const fields = { move: "", step: "sweep", error: "", ...errorFields(error) };
    world.log.event("move.failing", fields, "warn");
  }
}

async function sweepRecorded(world: MovingWorld, term: number, signal: AbortSignal): Promise<void> {
  const { database } = world;
  const kept = await cellsKeptAsTheyAre(database.read);
  for (const id of await movesWithRemains(database.read, kept)) {
    if (signal.aborted) return;
    try {
      const seen = requireView(await findMove(database.read, id), id);
      const moved = await isMoved(world, seen);
      // All that is left is the source's; and while the target is kept, that may be the better copy.
      if (moved && (kept.has(seen.source) || kept.has(seen.target))) continue;
      const row = await raiseAttempt(database, term, id);
      if (row === "deposed") return;
      const view = requireView(await findMove(database.read, id), id);
      const task = await world.taskOf(view);
      if (moved) await cleanAll(world, task, signal, kept);
      else await undoAllOf(world, view, task, signal, kept);
      await world.mover.forget(opIdSchema.parse(id));
      await forgetObjects(database.read, id, kept);
      const spared = [view.source, view.target].filter((cell) => kept.has(cell));
      const where = spared.length === 0 ? "" : ` outside of ${spared.join(", ")}`;
      world.log.event("move.swept", { move: id, text: `nothing of it is left${where}` });
    } catch (error) {
      // Its cell does not answer yet, as like as not: the next time.
      const fields = { move: id, step: "sweep", error: "", ...errorFields(error) };
      world.log.event("move.failing", fields, "warn");
    }
  }
}

/** A restore may have ended it after its keys had changed hands: then what is left is the source's. */
async function isMoved({ database }: MovingWorld, view: MoveView): Promise<boolean> {
  const rows = await Promise.all(view.keys.map(({ key }) => findPlacement(database.read, key)));
  return rows.every(
    (row, index) => row?.cell === view.target && row.epoch > (view.keys[index]?.epoch ?? 0),
  );
}

/**
 * A restore has told the target that it lost the keys, in words of its own: then the copied rows are no
 * longer known to be the move's. They are, as long as no later move has anything to do with the keys.
 */
async function undoAllOf(
  world: MovingWorld,
  view: MoveView,
  task: MoveTask,
  signal: AbortSignal,
  kept: ReadonlySet<string>,
): Promise<void> {
  await undoAll({ world, task, signal }, kept);
  if (kept.has(view.target)) return;
  const keys = view.keys.map(({ key }) => key);
  if (task.reverses !== null || !(await isLatestOf(world.database.read, view.id, keys))) return;
  await cleanAll(world, turnedRound(task), signal, kept);
}

/** Cleaning is of the source: seen from the other side, of the target. */
const turnedRound = (task: MoveTask): MoveTask => ({
  ...task,
  ...{ source: task.target, target: task.source },
  stores: task.stores.map(({ name, source, target }) => ({ name, source: target, target: source })),
});

async function cleanAll(
  { mover }: MovingWorld,
  task: MoveTask,
  signal: AbortSignal,
  kept: ReadonlySet<string>,
): Promise<void> {
  try {
    await mover.openGates(task);
    await mover.clean(task, signal, kept);
  } catch (error) {
    // The source's database says that the rows are in use: then they are not ours to remove.
    if (!(error instanceof CellError && error.code === "STATE_CONFLICT")) throw error;
  }
}
