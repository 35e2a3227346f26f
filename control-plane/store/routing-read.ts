/**
 * Reads what changed in the routing log since a revision, in one consistent snapshot of the database
 * and in order of revision, through a cursor: a million rows are never in memory at once.
 */
import type pg from "pg";
import { z } from "zod";
import { keyspaceNameSchema, parseRevision, type Revision } from "../../contract/ids.ts";
import {
  guardModes,
  type PlacementGroup,
  serviceRouteSchema,
  strategies,
  tenantSourceSchema,
} from "../../contract/routing-table.ts";
import type { TableLists } from "../../contract/table-checksum.ts";
import { must } from "../../runtime/assert.ts";
import {
  type AgentRow,
  type CellRow,
  type PlacementRow,
  routedCells,
  toGroup,
} from "../core/routing-view.ts";
import type { Database } from "./database.ts";

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
  /** Placements that routers know. */
  readonly countAll: () => Promise<number>;
  /** Rows that will come, counted up to `limit` + 1. */
  readonly countChanges: (above: number, limit: number) => Promise<number>;
  /** The rows above a revision, in order of revision, without what routers never see. */
  readonly rowsAbove: (
    revision: number,
    onBatch: (rows: readonly PlacementRow[]) => void,
  ) => Promise<void>;
  /** The whole table in bulk, as routers know it. */
  readonly groups: (onGroup: (group: PlacementGroup) => void) => Promise<void>;
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

export type RoutingPeek = { readonly head: RoutingHead; readonly rows: readonly PlacementRow[] };

/**
 * The usual case in one question, which is one snapshot too: a few placements changed since. Undefined:
 * more than a few, so that they must be read at leisure.
 */
export async function peekRouting(
  database: Database,
  above: number,
): Promise<RoutingPeek | undefined> {
  const { rows } = await database.pool.query<HeadRow & { key: string | null }>(
    `select ${headColumns}, c.* from cellfleet_control.fleet as f
     left join lateral (
       select ${columns} from ${table} where revision > $1 and not (${unseen})
        order by revision limit ${peekRowsMax + 1}) as c on true`,
    [above],
  );
  const head = toHead(must(rows[0], "fleet row"));
  if (rows.length > peekRowsMax) return undefined;
  return { head, rows: rows.filter((row): row is HeadRow & PlacementRow => row.key !== null) };
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
        const { rows } = await client.query<{ n: number }>(
          `select count(*)::int as n from ${table} where not deleted and not (${unseen})`,
        );
        return rows[0]?.n ?? 0;
      },
      countChanges: async (above, limit) => {
        const { rows } = await client.query<{ n: number }>(
          `select count(*)::int as n from (select 1 from ${table} where revision > $1 and not (${unseen}) limit $2) as counted`,
          [above, limit + 1],
        );
        return rows[0]?.n ?? 0;
      },
      rowsAbove: (revision, onBatch) => readRowsAbove(client, revision, onBatch),
      groups: (onGroup) => readGroups(client, onGroup),
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

const fleetListsSchema = z.object({
  tenant_sources: z.array(tenantSourceSchema),
  service_routes: z.array(serviceRouteSchema),
});
const keyspacesSchema = z.array(
  z
    .object({
      name: keyspaceNameSchema,
      strategy: z.enum(strategies),
      slot_count: z.number().nullable(),
      guard_mode: z.enum(guardModes),
    })
    .transform(({ name, strategy, slot_count, guard_mode }) => ({
      name,
      strategy,
      guardMode: guard_mode,
      ...(slot_count === null ? {} : { slotCount: slot_count }),
    })),
);

async function readLists(client: pg.PoolClient): Promise<TableLists> {
  const fleet = await client.query(
    "select tenant_sources, service_routes from cellfleet_control.fleet",
  );
  const keyspaces = await client.query(
    "select name, strategy, slot_count, guard_mode from cellfleet_control.keyspace order by name",
  );
  const cells = await client.query<CellRow>(
    "select id, region, services from cellfleet_control.cell where state <> 'retired' order by id",
  );
  const agents = await client.query<AgentRow>(
    "select cell, endpoint from cellfleet_control.agent order by cell, instance",
  );
  const { tenant_sources, service_routes } = fleetListsSchema.parse(fleet.rows[0]);
  return {
    tenantSources: tenant_sources,
    serviceRoutes: service_routes,
    keyspaces: keyspacesSchema.parse(keyspaces.rows),
    cells: [...routedCells(cells.rows, agents.rows)],
  };
}

async function readRowsAbove(
  client: pg.PoolClient,
  revision: number,
  onBatch: (rows: readonly PlacementRow[]) => void,
): Promise<void> {
  await client.query(
    `declare changed no scroll cursor for select ${columns} from ${table}
      where revision > $1 and not (${unseen}) order by revision`,
    [revision],
  );
  await fetchAll<PlacementRow>(client, "changed", fetchRows, onBatch);
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
