/**
 * Publication, slot and subscription of a standby's stream: made, extended and removed, from whatever half
 * state they are in.
 *
 * What must always be true: the publication is older than its slot, or the slot could not read it; rows of
 * a table are removed from the annex before PostgreSQL copies it there, so that a copy never collides; a
 * stream's own line in the annex says `kept` when its subscription is made, in the same transaction.
 */
import pg from "pg";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";
import { connectionText, inTransaction } from "../moving/connection.ts";
import type { StoreLogin } from "../moving/ports.ts";
import { dropSlot } from "../moving/streams-objects.ts";
import type { Clock } from "../runtime/clock.ts";
import { holdRecord, noteSubscription } from "./record.ts";
import { type StreamTable, sqlName } from "./tables.ts";

const id = pg.escapeIdentifier;
const literal = pg.escapeLiteral;

/** As in the list of a publication; `filter` is only written where the table is added. */
const listed = (table: StreamTable): string =>
  `table ${reach(table)} ${table.filter.kind === "some" ? `where (${table.filter.where})` : ""}`;
const reach = ({ name, partitioned }: Pick<StreamTable, "name" | "partitioned">): string =>
  `${partitioned ? "" : "only "}${name}`;

/** Without truncate: PostgreSQL does not filter it, and it would empty other tables of the annex. */
export async function makePublication(
  client: pg.Client,
  name: string,
  tables: readonly StreamTable[],
): Promise<void> {
  await inTransaction(client, async () => {
    await client.query(`drop publication if exists ${id(name)}`);
    await client.query(
      `create publication ${id(name)} ${tables.length === 0 ? "" : `for ${tables.map(listed).join(", ")}`}
         with (publish = 'insert, update, delete', publish_via_partition_root = true)`,
    );
  });
}

export async function addTables(
  client: pg.Client,
  name: string,
  tables: readonly StreamTable[],
): Promise<void> {
  if (tables.length === 0) return;
  await client.query(`alter publication ${id(name)} add ${tables.map(listed).join(", ")}`);
}

/** What the publication shows and should not. Was there any? */
export async function removeTables(
  client: pg.Client,
  name: string,
  wanted: readonly StreamTable[],
): Promise<boolean> {
  const stay = new Set(
    wanted
      .filter((table) => table.published !== "no" && !isMisfiltered(table))
      .map(({ name: shown }) => shown),
  );
  const { rows } = await client.query<{ schema: string; table: string; partitioned: boolean }>(
    `select n.nspname::text as schema, c.relname::text as table, c.relkind = 'p' as partitioned
       from pg_publication_rel r join pg_publication b on b.oid = r.prpubid
       join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
      where b.pubname = $1`,
    [name],
  );
  const gone = rows
    .map((row) => ({ name: sqlName(row), partitioned: row.partitioned }))
    .filter((row) => !stay.has(row.name));
  if (gone.length === 0) return false;
  await client.query(
    `alter publication ${id(name)} drop ${gone.map((table) => `table ${reach(table)}`).join(", ")}`,
  );
  return true;
}

/** Published as another kind of table than it is now. */
export const isMisfiltered = ({ published, filter }: StreamTable): boolean =>
  published !== "no" && (published === "filtered") !== (filter.kind === "some");

/**
 * In a transaction. Applying workers are waited for; triggers and foreign keys do not look. Refused where
 * the annex serves keys: its rows are nobody's copy any more.
 */
export async function emptyTables(
  client: pg.Client,
  annex: CellId,
  tables: readonly StreamTable[],
): Promise<void> {
  if (tables.length === 0) return;
  const { rows } = await client.query<{ key: string }>(
    "select key from cellfleet.ownership where state in ('active', 'fenced') limit 1",
  );
  if (rows[0] !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `The standby ${annex} serves ${rows[0].key}: its rows are not replaced by copies`,
      { nextSteps: [`cellctl cell get ${annex}`] },
    );
  }
  await client.query("set local session_replication_role = replica");
  await client.query(`lock table ${tables.map(reach).join(", ")} in share row exclusive mode`);
  for (const table of tables) await client.query(`delete from ${reach(table)}`);
}

/** `connection` holds a password: as a setting, and out of reach of the server's log of errors. */
const quietly = (statement: string): string => `do $quietly$ begin
  execute format(${literal(statement)}, current_setting('cellfleet_standby.connection'));
exception when others then
  raise exception using errcode = sqlstate, message = sqlerrm;
end $quietly$`;

const setConnection = (client: pg.Client, publisher: StoreLogin, name: string) =>
  client.query("select set_config('cellfleet_standby.connection', $1, true)", [
    connectionText(publisher, name),
  ]);

/**
 * Copies and follows as soon as this is committed. `origin = any`: of a tenant that a move brings to the
 * origin, what came behind the copy bears another origin (corrections A7). `disable_on_error` would end the
 * stream at any lost connection.
 */
export async function makeSubscription(
  client: pg.Client,
  name: string,
  sides: { readonly annex: CellId; readonly publisher: StoreLogin },
  tables: readonly StreamTable[],
): Promise<void> {
  await inTransaction(client, async () => {
    await holdRecord(client, name, sides.annex);
    await emptyTables(client, sides.annex, tables);
    await setConnection(client, sides.publisher, name);
    await client.query(
      quietly(`create subscription ${quoted(name)} connection %L publication ${quoted(name)}
        with (create_slot = false, slot_name = ${quoted(literal(name))}, copy_data = true, enabled = true,
          origin = any, synchronous_commit = 'on', disable_on_error = false, streaming = off)`),
    );
    await noteSubscription(client, name);
  });
}

/** For `format`. */
const quoted = (name: string): string =>
  (name.startsWith("'") ? name : id(name)).replaceAll("%", "%%");

/** Of a stream that stands: the origin may have moved, or its password changed. */
export async function renewSubscription(
  client: pg.Client,
  name: string,
  sides: { readonly annex: CellId; readonly publisher: StoreLogin },
): Promise<void> {
  await inTransaction(client, async () => {
    await holdRecord(client, name, sides.annex);
    await setConnection(client, sides.publisher, name);
    await client.query(quietly(`alter subscription ${quoted(name)} connection %L`));
    await client.query(`alter subscription ${id(name)} enable`);
  });
}

/** Tables that the publication shows since, or no more. Copies what is new. */
export async function refreshSubscription(client: pg.Client, name: string): Promise<void> {
  await client.query(`alter subscription ${id(name)} refresh publication with (copy_data = true)`);
}

/**
 * While a table is copied, a slot of its own stands at the origin. PostgreSQL drops it with the
 * subscription, if it reaches the origin then; else it is found by the subscription's number.
 */
export async function dropCopySlots(
  client: pg.Client,
  subscription: { readonly oid: string; readonly systemIdentifier: string },
  clock: Clock,
): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select slot_name::text as name from pg_replication_slots
      where database = current_database() and slot_name ~ ('^pg_' || $1 || '_sync_[0-9]+_' || $2 || '$')`,
    [subscription.oid, subscription.systemIdentifier],
  );
  for (const { name } of rows) await dropSlot(client, name, clock);
}
