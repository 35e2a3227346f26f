/**
 * The streams of a move between two cells' databases: rows are copied and followed there, and after the
 * switch followed back.
 *
 * What must always be true: a stream's subscription is gone before rows are removed at its publisher, or
 * the deletes would travel; the way back begins after the copy, so it never carries what was copied in;
 * the forward stream is off before the way back is on. Each function may be repeated from any half state.
 */
import type pg from "pg";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { withMover } from "./connection.ts";
import { type CopyLimits, copyStores } from "./copy.ts";
import { endSessions, makeSlot } from "./copy-slot.ts";
import { backName, copierName, forwardName, objectsOf } from "./names.ts";
import type { MoveTask, StoreLogin, StreamPort } from "./ports.ts";
import { removeRows } from "./residue.ts";
import { claimKeys, disownKeys, noteAttempt, readClaim } from "./residue-claim.ts";
import { unlikePublication } from "./streams-drift.ts";
import {
  admitMarkers,
  dropPublication,
  dropSlot,
  dropSubscription,
  enableSubscription,
  hasPublication,
  hasSubscription,
  hasUsableSlot,
  makePublication,
  makeSubscription,
  missing,
} from "./streams-objects.ts";
import { readStreams, type StreamMemory } from "./streams-state.ts";
import { checkSameTables, readTables } from "./streams-tables.ts";

export type StreamsOptions = {
  readonly clock: Clock;
  /** Default 2 minutes. */
  readonly slotWaitMsMax?: number;
  /** Default 10 minutes: a large table may be read for long before a row of the keys is met. */
  readonly stallMsMax?: number;
};

export function createStreams(options: StreamsOptions): StreamPort {
  const { clock } = options;
  const limits: CopyLimits = {
    clock,
    slotWaitMsMax: options.slotWaitMsMax ?? 120_000,
    stallMsMax: options.stallMsMax ?? 600_000,
  };
  const memory: StreamMemory = new Map();
  return {
    objectsOf,
    prepare: async (task, signal) => {
      for (const [index, part] of partsOf(task))
        await prepareStore(task, index, part, clock, signal);
    },
    copy: (task, copyOptions) => copyStores(task, copyOptions, limits),
    startStream: async (task) => {
      for (const [index, { source, target }] of partsOf(task)) {
        await at(task, target, async (client) => {
          if (!(await hasSubscription(client, forwardName(task, index)))) {
            throw missing("subscription", forwardName(task, index));
          }
          await enableSubscription(client, forwardName(task, index));
        });
        await openBack(task, index, { source, target }, limits);
      }
    },
    adoptStream: async (task) => {
      for (const [index, part] of partsOf(task))
        await adoptStore(task, index, part, limits, memory);
    },
    streamState: (task) =>
      readStreams(
        task.stores.map(({ source, target }, index) => ({
          name: forwardName(task, index),
          keyspace: task.keyspace.name,
          publisher: source,
          subscriber: target,
        })),
        memory,
      ),
    turnAround: async (task) => {
      for (const [index, { source, target }] of partsOf(task)) {
        await at(task, target, (client) =>
          dropSubscription(client, forwardName(task, index), clock),
        );
        await at(task, source, async (client) => {
          await dropSlot(client, forwardName(task, index), clock);
          await dropPublication(client, forwardName(task, index));
          await enableSubscription(client, backName(task, index));
        });
      }
    },
    reverseState: (task) =>
      readStreams(
        task.stores.map(({ source, target }, index) => ({
          name: backName(task, index),
          keyspace: task.keyspace.name,
          publisher: target,
          subscriber: source,
        })),
        memory,
      ),
    clean: async (task, signal, spared = noCell) => {
      for (const [index, part] of partsOf(task)) {
        if (!spared.has(task.target)) await dropStreams(task, index, part.target, clock);
        await dropStreams(task, index, part.source, clock);
        await removeRows({ task, login: part.source, state: "moved", signal });
      }
    },
    undo: async (task, signal, spared = noCell) => {
      for (const [index, part] of partsOf(task)) {
        const undoing =
          task.reverses === null
            ? undoStore(task, index, part, clock, signal)
            : undoAdopted(task, index, part, clock);
        await bothSides(task, undoing, spared);
      }
    },
  };
}

type Sides = { readonly source: StoreLogin; readonly target: StoreLogin };

const partsOf = (task: MoveTask): ReadonlyArray<readonly [number, Sides]> => [
  ...task.stores.entries(),
];

/** In one database, under this attempt. */
async function at<T>(
  task: MoveTask,
  login: StoreLogin,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  return withMover(login, { name: `cellfleet move ${task.op}` }, async (client) => {
    await noteAttempt(client, task);
    return work(client);
  });
}

async function prepareStore(
  task: MoveTask,
  index: number,
  { source, target }: Sides,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const name = forwardName(task, index);
  const there = await at(task, target, async (client) => {
    await endSessions(client, copierName(task, index), clock);
    await claimKeys(client, task, target, clock);
    await dropSubscription(client, name, clock);
    return readTables(client, task.keyspace.name);
  });
  const here = await at(task, source, async (client) => {
    await dropSlot(client, name, clock);
    return readTables(client, task.keyspace.name);
  });
  checkSameTables({ login: source, tables: here }, { login: target, tables: there });
  await removeRows({ task, login: target, state: "importing", signal });
  await at(task, source, (client) => makePublication(client, name, task, here));
}

/** Publication and slot at the target, and at the source the subscription that stays disabled until the switch. */
async function openBack(
  task: MoveTask,
  index: number,
  { source, target }: Sides,
  { clock, slotWaitMsMax }: CopyLimits,
): Promise<void> {
  const name = backName(task, index);
  const isThere = await at(task, target, async (client) => {
    if ((await hasPublication(client, name)) && (await hasUsableSlot(client, name))) return true;
    // A slot that is older than its publication cannot read it.
    await dropSlot(client, name, clock);
    await makePublication(client, name, task, await readTables(client, task.keyspace.name));
    return false;
  });
  if (!isThere) await makeSlot(target, name, slotWaitMsMax);
  await at(task, source, async (client) => {
    if (isThere && (await hasSubscription(client, name))) return;
    await makeSubscription(client, name, target, clock);
  });
}

async function adoptStore(
  task: MoveTask,
  index: number,
  part: Sides,
  limits: CopyLimits,
  memory: StreamMemory,
): Promise<void> {
  if (task.reverses === null) {
    throw new CellError("STATE_CONFLICT", `${task.op} takes no other move back`);
  }
  const { source, target } = part;
  const name = forwardName(task, index);
  const keyspace = task.keyspace.name;
  const stream = { name, keyspace, publisher: source, subscriber: target };
  const { broken } = await readStreams([stream], memory);
  if (broken !== undefined) throw noWayBack(task, broken);
  await at(task, target, (client) => claimKeys(client, task, target, limits.clock));
  await at(task, source, async (client) => {
    const tables = await readTables(client, keyspace);
    // After the tables were read: one that comes later is not among them.
    const unlike = await unlikePublication(client, name, keyspace);
    if (unlike !== undefined) throw noWayBack(task, unlike);
    await admitMarkers(client, name, task, tables);
  });
  await openBack(task, index, part, limits);
}

const noWayBack = ({ target }: MoveTask, why: string): CellError =>
  new CellError("MOVE_STREAM_BROKEN", `There is no way back any more: ${why}`, {
    nextSteps: [`move the tenant by a copy: cellctl move start --to ${target}`],
  });

/** Both ways, of one side. Whether the other side's database lives makes no difference. */
async function dropStreams(
  task: MoveTask,
  index: number,
  login: StoreLogin,
  clock: Clock,
): Promise<void> {
  const forward = forwardName(task, index);
  const back = backName(task, index);
  const [published, subscribed] = login.cell === task.source ? [forward, back] : [back, forward];
  await at(task, login, async (client) => {
    await endSessions(client, copierName(task, index), clock);
    await dropSubscription(client, subscribed, clock);
    await dropSlot(client, published, clock);
    await dropPublication(client, published);
  });
}

const noCell: ReadonlySet<string> = new Set();

type Undoing = Readonly<Record<"source" | "target", () => Promise<void>>>;

/** Each side by itself: a dead cell keeps nothing of the move alive in the other. */
async function bothSides(
  task: MoveTask,
  undoing: Undoing,
  spared: ReadonlySet<string>,
): Promise<void> {
  const asked = (["target", "source"] as const).filter((side) => !spared.has(task[side]));
  const sides = await Promise.allSettled(asked.map((side) => undoing[side]()));
  for (const side of sides) if (side.status === "rejected") throw side.reason;
}

const undoStore = (
  task: MoveTask,
  index: number,
  { source, target }: Sides,
  clock: Clock,
  signal: AbortSignal,
): Undoing => ({
  target: async () => {
    await dropStreams(task, index, target, clock);
    const claim = await at(task, target, (client) => readClaim(client, task));
    if (claim !== "ours") return;
    await at(task, target, (client) => claimKeys(client, task, target, clock));
    await removeRows({ task, login: target, state: "importing", signal });
    await at(task, target, (client) => disownKeys(client, task, target, clock));
  },
  source: () => dropStreams(task, index, source, clock),
});

/**
 * A way back that was not gone: its own way back is dropped, and the stream that it had adopted goes on as
 * the first move's, whose rows stand where they stood.
 */
function undoAdopted(
  task: MoveTask,
  index: number,
  { source, target }: Sides,
  clock: Clock,
): Undoing {
  const name = backName(task, index);
  return {
    source: () => at(task, source, (client) => dropSubscription(client, name, clock)),
    target: () =>
      at(task, target, async (client) => {
        await dropSlot(client, name, clock);
        await dropPublication(client, name);
        if ((await readClaim(client, task)) === "ours") {
          await disownKeys(client, task, target, clock);
        }
      }),
  };
}
