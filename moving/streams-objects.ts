/**
 * Publications, slots and subscriptions of moves: made and removed, from whatever half state they are in.
 *
 * What must always be true: nothing here is stopped by its other side being dead; a subscription is only
 * ever dropped after it let go of its slot, so dropping it never asks the publisher; a slot is dropped
 * where it lives. Every function may be repeated.
 */
import pg from "pg";
import { sqlStateOf } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { connectionText, inTransaction } from "./connection.ts";
import { markerFilter, rowFilter } from "./filters.ts";
import type { MoveTask, StoreLogin } from "./ports.ts";
import type { MovedTable } from "./streams-tables.ts";

const id = pg.escapeIdentifier;
const literal = pg.escapeLiteral;
const endMsMax = 30_000;
const pollMs = 5;

/** Everything that a move's publication shows, as the list of `create publication`. */
function published(task: MoveTask, tables: readonly MovedTable[], ops: readonly string[]): string {
  return [
    ...tables.map(
      (table) =>
        `table ${table.partitioned ? "" : "only "}${table.name} where (${rowFilter(task, table.key)})`,
    ),
    `table only cellfleet.move_marker where (${markerFilter(ops)})`,
  ].join(", ");
}

/** Without truncate: PostgreSQL does not filter it, and it would empty the other cell's table of all tenants. */
export async function makePublication(
  client: pg.Client,
  name: string,
  task: MoveTask,
  tables: readonly MovedTable[],
): Promise<void> {
  await inTransaction(client, async () => {
    await client.query(`drop publication if exists ${id(name)}`);
    await client.query(
      `create publication ${id(name)} for ${published(task, tables, [task.op])}
         with (publish = 'insert, update, delete', publish_via_partition_root = true)`,
    );
  });
}

/**
 * The stream lets this move's markers through too. Only the markers' filter changes: rows that a wider
 * filter took in later would not be copied by anybody.
 */
export async function admitMarkers(
  client: pg.Client,
  name: string,
  task: MoveTask,
  tables: readonly MovedTable[],
): Promise<void> {
  const ops = [...(task.reverses === null ? [] : [task.reverses]), task.op];
  await client.query(`alter publication ${id(name)} set ${published(task, tables, ops)}`);
}

export async function hasPublication(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query("select from pg_publication where pubname = $1", [name]);
  return rows.length > 0;
}

export async function dropPublication(client: pg.Client, name: string): Promise<void> {
  await client.query(`drop publication if exists ${id(name)}`);
}

export async function hasUsableSlot(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from pg_replication_slots
      where slot_name = $1 and database = current_database() and wal_status <> 'lost'
        and confirmed_flush_lsn is not null`,
    [name],
  );
  return rows.length > 0;
}

/** Ends who uses it first. Of another database's slot of this name it knows nothing. */
export async function dropSlot(client: pg.Client, name: string, clock: Clock): Promise<void> {
  const deadline = clock.monotonicMs() + endMsMax;
  for (;;) {
    const { rows } = await client.query<{ active_pid: number | null }>(
      "select active_pid from pg_replication_slots where slot_name = $1 and database = current_database()",
      [name],
    );
    const [slot] = rows;
    if (slot === undefined) return;
    try {
      if (slot.active_pid !== null) {
        await client.query("select pg_terminate_backend($1)", [slot.active_pid]);
      }
      await client.query("select pg_drop_replication_slot($1)", [name]);
      return;
    } catch (error) {
      const state = sqlStateOf(error);
      if (state === "42704") return; // It went with who was making it.
      if (state !== "55006" || clock.monotonicMs() > deadline) throw error;
    }
    await clock.sleep(pollMs);
  }
}

/**
 * `disable_on_error` would end the stream at any lost connection; streams-state.ts tells a stream that
 * fails for good. `connection` holds a password: as a parameter, and out of reach of
 * the server's log of errors.
 */
const createText = (name: string): string => `do $create$ begin
  execute format('create subscription %I connection %L publication %I with (create_slot = false,
    slot_name = %L, copy_data = false, enabled = false, origin = none, synchronous_commit = ''on'',
    disable_on_error = false, streaming = off)', ${literal(name)},
    current_setting('cellfleet_move.connection'), ${literal(name)}, ${literal(name)});
exception when others then
  raise exception using errcode = sqlstate, message = sqlerrm;
end $create$`;

/** Disabled, at the slot of its own name; what stood under this name is gone. */
export async function makeSubscription(
  client: pg.Client,
  name: string,
  publisher: StoreLogin,
  clock: Clock,
): Promise<void> {
  await dropSubscription(client, name, clock);
  await inTransaction(client, async () => {
    await client.query("select set_config('cellfleet_move.connection', $1, true)", [
      connectionText(publisher, name),
    ]);
    await client.query(createText(name));
  });
}

export async function hasSubscription(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from pg_subscription s join pg_database d on d.oid = s.subdbid
      where s.subname = $1 and d.datname = current_database()`,
    [name],
  );
  return rows.length > 0;
}

export async function enableSubscription(client: pg.Client, name: string): Promise<void> {
  if (!(await hasSubscription(client, name))) throw missing("subscription", name);
  await client.query(`alter subscription ${id(name)} enable`);
}

/** Nothing of it is applied any more when this resolves. */
export async function dropSubscription(
  client: pg.Client,
  name: string,
  clock: Clock,
): Promise<void> {
  if (!(await hasSubscription(client, name))) return;
  await client.query(`alter subscription ${id(name)} disable`);
  await endWorkers(client, name, clock);
  await client.query(`alter subscription ${id(name)} set (slot_name = none)`);
  await client.query(`drop subscription if exists ${id(name)}`);
}

/** Left to itself, a worker that was disabled naps for a second before it looks. */
export async function endWorkers(client: pg.Client, name: string, clock: Clock): Promise<void> {
  const deadline = clock.monotonicMs() + endMsMax;
  for (;;) {
    if (!(await endWorkersOnce(client, name))) return;
    if (clock.monotonicMs() > deadline) {
      throw new CellError("MOVE_UNFIT", `The worker of subscription ${name} does not end`, {
        nextSteps: ["look at pg_stat_subscription on the target, then try again"],
      });
    }
    await clock.sleep(pollMs);
  }
}

/** Is there one still? */
async function endWorkersOnce(client: pg.Client, name: string): Promise<boolean> {
  try {
    const { rows } = await client.query<{ ended: boolean }>(
      `select pg_terminate_backend(pid) as ended from pg_stat_subscription
        where subname = $1 and pid is not null`,
      [name],
    );
    return rows.length > 0;
  } catch (error) {
    // One that starts has no role yet, and counts as a superuser's. It ends by itself, or has a role soon.
    if (sqlStateOf(error) === "42501") return true;
    throw error;
  }
}

export const missing = (kind: string, name: string): CellError =>
  new CellError("MOVE_STREAM_BROKEN", `The move's ${kind} ${name} is gone; somebody removed it`, {
    nextSteps: ["cancel the move and start it again: cellctl move ls"],
  });
