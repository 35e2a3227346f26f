/**
 * The commit log of a cell's database, for tests: installs the audit trigger of `commit-log.sql` and reads it
 * back as entries of a history. Both need a superuser; the application notices nothing.
 */
import { readFile } from "node:fs/promises";
import type pg from "pg";
import type { EntryOf } from "./model.ts";

export type LoggedTable = {
  readonly schema: string;
  readonly table: string;
  readonly keyspace: string;
  readonly keyColumn: string;
  /** Where the unique value of a write stands. */
  readonly valueColumn: string;
};

export async function installCommitLog(client: pg.ClientBase, logged: LoggedTable): Promise<void> {
  await client.query(await readFile(new URL("commit-log.sql", import.meta.url), "utf8"));
  // Of no tenant, so it stays where it is when tenants move.
  await client.query(
    `insert into cellfleet.classed_table (schema_name, table_name, class)
     values ('cellfleet_history', 'commit_log', 'cell-local') on conflict do nothing`,
  );
  const { rows } = await client.query<{ text: string }>(
    `select format('create or replace trigger zzz_cellfleet_history after insert on %I.%I
       for each row execute function cellfleet_history.record(%L, %L, %L)',
       $1::text, $2::text, $3::text, $4::text, $5::text) as text`,
    [logged.schema, logged.table, logged.keyspace, logged.keyColumn, logged.valueColumn],
  );
  await client.query(rows[0]?.text ?? "");
}

/** In the order of writing. With `track_commit_timestamp` the time is that of the commit, else of the write. */
export async function readCommitLog(
  client: pg.ClientBase,
  cell: string,
): Promise<EntryOf<"commit">[]> {
  const { rows } = await client.query<{
    tenant: string;
    epoch: string;
    value: string;
    txid: string;
    committed_at: Date;
  }>(
    `select tenant, epoch::text, value, txid::text,
            case when current_setting('track_commit_timestamp')::boolean
                 then coalesce(pg_xact_commit_timestamp(txid::xid), at) else at end as committed_at
       from cellfleet_history.commit_log order by n`,
  );
  return rows.map((row) => ({
    kind: "commit",
    cell,
    tenant: row.tenant,
    epoch: Number(row.epoch),
    value: row.value,
    txid: row.txid,
    committedAt: row.committed_at.toISOString(),
  }));
}
