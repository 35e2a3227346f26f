/**
 * The new owner, and the former one told so. What counts is what is read back, in a statement of its
 * own: committed, by whomever.
 */
import type { MoveTask, StoreLogin } from "../ports.ts";
import { changesOf, overtaken } from "./commands.ts";
import type { Connections } from "./connections.ts";

/** Keys that become active need no lock; only other changes of ownership are waited for. */
const lockMs = 2000;

type Owned = { readonly key: string; readonly state: string; readonly epoch: number };

export const activateStore = (
  task: MoveTask,
  login: StoreLogin,
  connections: Connections,
): Promise<void> =>
  tell(task, login, connections, {
    changes: changesOf(task, "active", 1),
    holds: ({ state, epoch }, before) => state === "active" && epoch === before + 1,
  });

export const tellMovedIn = (
  task: MoveTask,
  login: StoreLogin,
  connections: Connections,
): Promise<void> =>
  tell(task, login, connections, {
    changes: changesOf(task, "moved"),
    // Purged meanwhile, or back home at a later epoch: it has left, which is what was to be told.
    holds: ({ state, epoch }, before) => epoch > before || state === "moved" || state === "dropped",
  });

async function tell(
  task: MoveTask,
  login: StoreLogin,
  connections: Connections,
  what: {
    readonly changes: string;
    readonly holds: (owned: Owned, epochBefore: number) => boolean;
  },
): Promise<void> {
  const owned = await connections.use(login, async (session) => {
    await session.query("select from cellfleet.apply_ownership($1, null, $2)", [
      what.changes,
      lockMs,
    ]);
    const { rows } = await session.query<Owned>(
      "select key, state, epoch::float8 as epoch from cellfleet.ownership where key = any ($1)",
      [task.keys.map(({ key }) => key)],
    );
    return new Map(rows.map((row) => [row.key, row]));
  });
  for (const { key, epoch } of task.keys) {
    const found = owned.get(key);
    if (found !== undefined && what.holds(found, epoch)) continue;
    const is = found === undefined ? "absent" : `${found.state} at epoch ${found.epoch}`;
    throw overtaken(task, login, `${key} is ${is}`);
  }
}
