/**
 * The copying step: from nothing, always, whatever an earlier executor left half done.
 *
 * What must always be true: an exported snapshot dies with its connection, so a copy cannot be resumed; an
 * older copier is gone before its rows are removed; the subscription goes on exactly where the copied
 * snapshot ends (corrections A16).
 */
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { withMover } from "./connection.ts";
import { createProgress, estimateRows, type Progress } from "./copy-progress.ts";
import { createRate, type Rate } from "./copy-rate.ts";
import { endSessions, exportSlot } from "./copy-slot.ts";
import { copyTables } from "./copy-tables.ts";
import { copierName, forwardName } from "./names.ts";
import type { CopyOptions, MoveTask } from "./ports.ts";
import { removeRows } from "./residue.ts";
import { claimKeys, noteAttempt } from "./residue-claim.ts";
import {
  dropSlot,
  dropSubscription,
  hasPublication,
  makePublication,
  makeSubscription,
} from "./streams-objects.ts";
import { checkSameTables, type MovedTable, readTables } from "./streams-tables.ts";

export type CopyLimits = {
  readonly clock: Clock;
  /** How long a slot may wait for transactions of others. */
  readonly slotWaitMsMax: number;
  /** Without a byte of any table. */
  readonly stallMsMax: number;
};

type StoreOfTask = MoveTask["stores"][number];

export async function copyStores(
  task: MoveTask,
  options: CopyOptions,
  limits: CopyLimits,
): Promise<void> {
  const progress = createProgress(limits.clock, options.onProgress);
  const rate = createRate(limits.clock, options.rateMax);
  for (const [index, store] of task.stores.entries()) {
    options.signal.throwIfAborted();
    const tables = await startOver(task, index, store, limits, options.signal);
    const { signal, onWait } = options;
    await copyStore({ task, index, store, tables, limits, progress, rate, signal, onWait });
  }
  progress.finish();
}

/** Ends the older copier, drops slot and subscription, removes what was copied. Returns what to copy. */
async function startOver(
  task: MoveTask,
  index: number,
  { source, target }: StoreOfTask,
  { clock }: CopyLimits,
  signal: AbortSignal,
): Promise<readonly MovedTable[]> {
  const name = forwardName(task, index);
  const copier = copierName(task, index);
  await withMover(target, { name: `cellfleet move ${task.op}` }, async (client) => {
    await noteAttempt(client, task);
    await endSessions(client, copier, clock);
    await claimKeys(client, task, target, clock);
    await dropSubscription(client, name, clock);
  });
  const tables = await withMover(source, { name: `cellfleet move ${task.op}` }, async (client) => {
    await noteAttempt(client, task);
    await endSessions(client, copier, clock);
    await dropSlot(client, name, clock);
    const here = await readTables(client, task.keyspace.name);
    // Older than the slot, or the slot could not read it.
    if (!(await hasPublication(client, name))) await makePublication(client, name, task, here);
    return here;
  });
  const there = await withMover(target, { name: `cellfleet move ${task.op}` }, (client) =>
    readTables(client, task.keyspace.name),
  );
  checkSameTables({ login: source, tables }, { login: target, tables: there });
  await removeRows({ task, login: target, state: "importing", signal });
  return tables;
}

async function copyStore(part: {
  readonly task: MoveTask;
  readonly index: number;
  readonly store: StoreOfTask;
  readonly tables: readonly MovedTable[];
  readonly limits: CopyLimits;
  readonly progress: Progress;
  readonly rate: Rate;
  readonly signal: AbortSignal;
  readonly onWait: CopyOptions["onWait"];
}): Promise<void> {
  const { task, index, store, tables, limits, progress, rate } = part;
  const { source, target } = store;
  const name = forwardName(task, index);
  const application = copierName(task, index);
  const watch = watchStall(limits, part.signal);
  try {
    const { clock, slotWaitMsMax: waitMsMax } = limits;
    const slot = await exportSlot(source, name, application, {
      ...{ clock, waitMsMax },
      signal: part.signal,
      onWait: (blockers) => part.onWait?.(blockers),
    });
    part.onWait?.(undefined);
    try {
      await withMover(source, { name: application }, async (client) => {
        progress.expect(await estimateRows(client, task, tables));
      });
      watch.begin();
      await copyTables(
        {
          ...{ task, source, target, application, tables, rate },
          snapshot: slot.snapshot,
          onBytes: (bytes) => {
            watch.seen();
            progress.addBytes(bytes);
          },
          onTable: (rows) => progress.addRows(rows),
          signal: watch.signal,
        },
        slot.close,
      );
    } finally {
      await slot.close();
    }
    await withMover(target, { name: `cellfleet move ${task.op}` }, async (client) => {
      await noteAttempt(client, task);
      await makeSubscription(client, name, source, clock);
    });
  } finally {
    watch.end();
  }
}

type StallWatch = {
  /** Aborts with the caller's signal, or when nothing came for too long. */
  readonly signal: AbortSignal;
  readonly begin: () => void;
  readonly seen: () => void;
  readonly end: () => void;
};

/** A network that swallows everything ends no connection: without this a copy could hang for ever. */
function watchStall({ clock, stallMsMax }: CopyLimits, outer: AbortSignal): StallWatch {
  const stop = new AbortController();
  let seenMs = 0;
  let timer: { readonly cancel: () => void } | undefined;
  const look = () => {
    const leftMs = seenMs + stallMsMax - clock.monotonicMs();
    if (leftMs > 0) {
      timer = clock.after(leftMs, look, { background: true });
      return;
    }
    stop.abort(
      new CellError(
        "CELL_DATABASE_UNREACHABLE",
        `The copy has not moved a byte for ${Math.round(stallMsMax / 1000)} s; it is ended`,
        { nextSteps: ["look at the network between the control plane and both cells"] },
      ),
    );
  };
  return {
    signal: AbortSignal.any([outer, stop.signal]),
    begin: () => {
      seenMs = clock.monotonicMs();
      look();
    },
    seen: () => {
      seenMs = clock.monotonicMs();
    },
    end: () => timer?.cancel(),
  };
}
