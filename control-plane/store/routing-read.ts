/**
 * Reads what changed in the routing log since a revision, in one consistent snapshot of the database
 * and in order of revision, through a cursor: a million rows are never in memory at once.
 */
import type pg from "pg";
import { parseRevision, type Revision } from "../../contract/ids.ts";
import type { AliasGroup, PlacementGroup } from "../../contract/routing-table.ts";
import type { TableLists } from "../../contract/table-checksum.ts";
import { must } from "../../runtime/assert.ts";
import {
  type ChangeRow,
  type NameRow,
  type PlacementRow,
  toGroup,
  toNames,
} from "../core/routing-view.ts";
import type { Database } from "./database.ts";
import { readLists } from "./routing-lists.ts";

export type RoutingHead = {
  readonly fleet: string;
  readonly mode: "normal" | "recovering";
  readonly revision: Revision;
  readonly configRevision: number;
  /** Presented by cells and routers in a recovery; may be above all placements. */
  readonly epochMaxSeen: number;
};

export type RoutingReading = {
  readonly head: RoutingHead;
  readonly lists: () => Promise<TableLists>;
  /** Of all placements, also the deleted ones. A scan of the whole table: once, when loading it. */
  readonly epochMax: () => Promise<number>;
  /** Placements and names that routers know. */
  readonly countAll: () => Promise<{ readonly placements: number; readonly aliases: number }>;
  /** Rows that will come, counted up to `limit` + 1. */
  readonly countChanges: (above: number, limit: number) => Promise<number>;
  /** The rows above a revision, in order of revision, without what routers never see. */
  readonly rowsAbove: (revision: number) => Promise<readonly ChangeRow[]>;
  /** The whole table in bulk, as routers know it: placements, then names. */
  readonly groups: (onGroup: (group: PlacementGroup | AliasGroup) => void) => Promise<void>;
};

/** Changes that are read with one question; more are read through the cursor. */
const peekRowsMax = 2000;
const fetchRows = 10_000;
const groupValuesMax = 10_000;
/** So many groups are some tens of milliseconds of work. */
const fetchGroups = 4;
const columns =
  "key, keyspace, kind, value, cell, epoch::float8 as epoch, state, deleted, revision::float8 as revision";
/** What was never served is no news: a bulk of new tenants costs the publisher nothing until it is active. */
const unseen = "state = 'pending' and epoch = 1 and not deleted";
const table = "cellfleet_control.placement";
const names = "cellfleet_control.claim";
/** Rows that routers were ever told of have a revision; all but the committed ones are tombstones. */
const nameColumns =
  "namespace, hash, keyspace, tenant, state = 'committed' as live, revision::float8 as revision";
/** A name in the columns of a placement, so that one question brings both. */
const nameAsPlacement = `null as key, keyspace, 'tenant' as kind, tenant as value, '' as cell,
  0::float8 as epoch, 'active' as state, state <> 'committed' as deleted,
  revision::float8 as revision, namespace, hash`;

export type RoutingPeek = { readonly head: RoutingHead; readonly rows: readonly ChangeRow[] };
type PeekRow = HeadRow & {
  readonly [name in keyof PlacementRow]: PlacementRow[name] | null;
} & { readonly namespace: string | null; readonly hash: string | null };

/**
 * The usual case in one question, which is one snapshot too: a few placements and names changed since.
 * Undefined: more than a few, so that they must be read at leisure.
 */
export async function peekRouting(
  database: Database,
  above: number,
): Promise<RoutingPeek | undefined> {
  const limit = peekRowsMax + 1;
  const { rows } = await database.pool.query<PeekRow>(
    `select ${headColumns}, c.* from cellfleet_control.fleet as f
     left join lateral (
       (select ${columns}, null as namespace, null as hash from ${table}
         where revision > $1 and not (${unseen}) order by revision limit ${limit})
       union all
       (select ${nameAsPlacement} from ${names} where revision > $1
         order by revision limit ${limit})) as c on true`,
    [above],
  );
  const head = toHead(must(rows[0], "fleet row"));
  if (rows.length > peekRowsMax) return undefined;
  return { head, rows: rows.flatMap(toChange).sort(byRevision) };
}

const byRevision = (a: ChangeRow, b: ChangeRow): number => a.revision - b.revision;

/** None for the row of a fleet in which nothing has changed. */
function toChange(row: PeekRow): ChangeRow[] {
  const { key, keyspace, kind, value, cell, epoch, state, deleted, revision } = row;
  if (keyspace === null || value === null || revision === null) return [];
  if (row.namespace !== null && row.hash !== null) {
    const { namespace, hash } = row;
    return [{ namespace, hash, keyspace, tenant: value, live: deleted === false, revision }];
  }
  return [
    {
      ...{ keyspace, value, revision },
      key: must(key ?? undefined, "key of a placement"),
      kind: must(kind ?? undefined, "kind of a placement"),
      cell: must(cell ?? undefined, "cell of a placement"),
      epoch: must(epoch ?? undefined, "epoch of a placement"),
      state: must(state ?? undefined, "state of a placement"),
      deleted: deleted === true,
    },
  ];
}

export async function readRouting<T>(
  database: Database,
  work: (reading: RoutingReading) => Promise<T>,
): Promise<T> {
  const client = await database.pool.connect();
  let broken: Error | undefined;
  try {
    await client.query("begin isolation level repeatable read read only");
    const result = await work({
      head: await readHead(client),
      lists: () => readLists(client),
      epochMax: async () => {
        const { rows } = await client.query<{ epoch: number | null }>(
          `select max(epoch)::float8 as epoch from ${table}`,
        );
        return rows[0]?.epoch ?? 0;
      },
      countAll: async () => {
        const { rows } = await client.query<{ placements: number; aliases: number }>(
          `select (select count(*)::int from ${table} where not deleted and not (${unseen})) as placements,
                  (select count(*)::int from ${names} where ${routed}) as aliases`,
        );
        return must(rows[0], "counts");
      },
      countChanges: async (above, limit) => {
        const { rows } = await client.query<{ n: number }>(
          `select count(*)::int as n from (
             (select 1 from ${table} where revision > $1 and not (${unseen}) limit $2)
             union all (select 1 from ${names} where revision > $1 limit $2)) as counted`,
          [above, limit + 1],
        );
        return rows[0]?.n ?? 0;
      },
      rowsAbove: (revision) => readRowsAbove(client, revision),
      groups: async (onGroup) => {
        await readGroups(client, onGroup);
        await readNames(client, onGroup);
      },
    });
    await client.query("commit");
    return result;
  } catch (error) {
    // Ends the session and with it the transaction: after a failure its state is not worth knowing.
    broken = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    client.release(broken);
  }
}

type HeadRow = {
  readonly fleet: string;
  readonly mode: "normal" | "recovering";
  readonly fleet_revision: number;
  readonly config_revision: number;
  readonly epoch_max_seen: number;
};
const headColumns = `f.id as fleet, f.mode, f.revision::float8 as fleet_revision,
  f.config_revision::float8 as config_revision, f.epoch_max_seen::float8 as epoch_max_seen`;

async function readHead(client: pg.PoolClient): Promise<RoutingHead> {
  const { rows } = await client.query<HeadRow>(
    `select ${headColumns} from cellfleet_control.fleet as f`,
  );
  return toHead(must(rows[0], "fleet row"));
}

const toHead = (row: HeadRow): RoutingHead => ({
  fleet: row.fleet,
  mode: row.mode,
  revision: must(parseRevision(row.fleet_revision), "revision"),
  configRevision: row.config_revision,
  epochMaxSeen: row.epoch_max_seen,
});

async function readRowsAbove(client: pg.PoolClient, revision: number): Promise<ChangeRow[]> {
  const rows: ChangeRow[] = [];
  await client.query(
    `declare changed no scroll cursor for select ${columns} from ${table}
      where revision > $1 and not (${unseen})`,
    [revision],
  );
  await fetchAll<PlacementRow>(client, "changed", fetchRows, (batch) => rows.push(...batch));
  await client.query(
    `declare named no scroll cursor for select ${nameColumns} from ${names} where revision > $1`,
    [revision],
  );
  await fetchAll<NameRow>(client, "named", fetchRows, (batch) => rows.push(...batch));
  return rows.sort(byRevision);
}

type GroupRow = Omit<PlacementRow, "key" | "value" | "revision"> & { readonly values: string[] };

/**
 * The database puts the values together: a million rows one by one would cost this process seconds of
 * work that is not its own. The parts follow the order of the table, so nothing is sorted.
 */
async function readGroups(
  client: pg.PoolClient,
  onGroup: (group: PlacementGroup) => void,
): Promise<void> {
  await client.query(
    `declare grouped no scroll cursor for
      select keyspace, kind, cell, epoch::float8 as epoch, state, false as deleted,
             json_agg(value) as values
        from (select *, (row_number() over () - 1) / ${groupValuesMax} as part from ${table}
               where not deleted and not (${unseen})) as numbered
       group by part, keyspace, kind, cell, epoch, state`,
  );
  await fetchAll<GroupRow>(client, "grouped", fetchGroups, (rows) => {
    for (const { values, ...row } of rows) {
      const group = toGroup(row, values);
      if (group !== undefined) onGroup(group);
    }
  });
}

const routed = "state = 'committed' and revision is not null";
type NamesRow = {
  readonly namespace: string;
  readonly keyspace: string;
  readonly pairs: ReadonlyArray<readonly [string, string]>;
};

async function readNames(
  client: pg.PoolClient,
  onGroup: (group: AliasGroup) => void,
): Promise<void> {
  await client.query(
    `declare names no scroll cursor for
      select namespace, keyspace, json_agg(json_build_array(hash, tenant)) as pairs
        from (select *, (row_number() over () - 1) / ${groupValuesMax} as part
                from ${names} where ${routed}) as numbered
       group by part, namespace, keyspace`,
  );
  await fetchAll<NamesRow>(client, "names", fetchGroups, (rows) => {
    for (const { pairs, ...row } of rows) onGroup(toNames(row, pairs));
  });
}

async function fetchAll<Row extends pg.QueryResultRow>(
  client: pg.PoolClient,
  cursor: string,
  count: number,
  onBatch: (rows: readonly Row[]) => void,
): Promise<void> {
  for (;;) {
    const { rows } = await client.query<Row>(`fetch ${count} from ${cursor}`);
    if (rows.length > 0) onBatch(rows);
    if (rows.length < count) break;
  }
  await client.query(`close ${cursor}`);
}
