/**
 * What tests of streams do in place of the executor: a tenant that is written to all the time, waiting for
 * the stream, and the switch of ownership by hand.
 */
import type pg from "pg";
import { sqlStateOf } from "../cell/store/queryable.ts";
import type { OwnershipState } from "../contract/cell-protocol.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import type { CellStore } from "../tests/cell-store.ts";
import { findLeftovers } from "./leftovers.ts";
import type { CopyOptions, MoveTask, StreamPort } from "./ports.ts";
import { createStreams } from "./streams.ts";
import type { TwoCells } from "./two-cells.fixture.ts";

export const streams: StreamPort = createStreams({ clock: systemClock });
export const never: AbortSignal = new AbortController().signal;
export const plainCopy: CopyOptions = { rateMax: undefined, onProgress: () => {}, signal: never };

const waitMs = 30_000;

export async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + waitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await systemClock.sleep(5);
  }
}

export async function bringIntoStep(task: MoveTask): Promise<void> {
  await streams.prepare(task, never);
  await streams.copy(task, plainCopy);
  await streams.startStream(task);
}

/** Everything that was committed at `from` before is applied at `to` when this resolves. */
export async function throughTheStream(
  task: MoveTask,
  from: CellStore,
  to: CellStore,
): Promise<void> {
  const name = systemRandom.hex(8);
  await from.admin.query(
    "insert into cellfleet.move_marker (op, name, attempt, nonce) values ($1, $2, 1, '')",
    [task.op, name],
  );
  await eventually(`the marker of ${task.op} in ${to.name}`, async () => {
    const { rowCount } = await to.admin.query(
      "select from cellfleet.move_marker where op = $1 and name = $2",
      [task.op, name],
    );
    return rowCount === 1;
  });
}

export async function setKeys(
  store: CellStore,
  task: MoveTask,
  state: OwnershipState,
  epochsLater = 0,
): Promise<void> {
  const changes = task.keys.map(({ key, epoch }) => ({
    ...{ key, state, epoch: epoch + epochsLater },
    ...{ op: task.op, attempt: task.attempt },
  }));
  const { rows } = await store.agent.query(
    "select outcome, key, state from cellfleet.apply_ownership($1, null, 10000)",
    [JSON.stringify(changes)],
  );
  const refused = rows.find(({ outcome }) => outcome === "refused");
  if (refused !== undefined) throw new Error(`${refused.key} is ${refused.state}`);
}

/** Fence, drain, activate, tell the source: as the executor does it, without gates and routers. */
export async function switchOver(
  { a, b }: Pick<TwoCells, "a" | "b">,
  task: MoveTask,
): Promise<void> {
  const [from, to] = task.source === a.name ? [a, b] : [b, a];
  await setKeys(from, task, "fenced");
  await throughTheStream(task, from, to);
  await setKeys(to, task, "active", 1);
  await setKeys(from, task, "moved");
}

export type Writer = {
  /** Rows of `orders` that were acknowledged. */
  readonly written: () => number;
  /** Resolves when the writer has stopped: by itself at a fence, or because it was told. */
  readonly stop: () => Promise<number>;
};

/** One transaction after the other, each by `write`, until it is refused or stopped. */
export function keepWriting(cells: TwoCells, client: pg.Client, tenant: string): Writer {
  let written = 0;
  let stopped = false;
  const run = async () => {
    while (!stopped) {
      try {
        await cells.write(client, tenant, written + 1);
        written += 1;
        await client.query(
          "update orders set item = 'coffee' where tenant_id = $1 and quantity % 3 = 0",
          [tenant],
        );
      } catch (error) {
        if (sqlStateOf(error) !== "CF001") throw error;
        return;
      }
    }
  };
  const running = run();
  running.catch(() => {}); // Told by `stop`; a test that failed before does not ask.
  return {
    written: () => written,
    stop: async () => {
      stopped = true;
      await running;
      return written;
    },
  };
}

/** Of these moves, in both cells. */
export async function leftoversOf(cells: TwoCells, ...tasks: MoveTask[]): Promise<string[]> {
  const found: string[] = [];
  for (const store of [cells.a, cells.b]) {
    for (const { kind, name, op } of await findLeftovers(cells.login(store))) {
      if (tasks.some((task) => task.op === op)) found.push(`${store.name}: ${kind} ${name}`);
    }
  }
  return found;
}
