/** Server, sessions and counters of a running database, each in one query. Reads statistics only. */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import {
  type Activity,
  type AssessFacts,
  activitySchema,
  type Rates,
  ratesSchema,
  serverSchema,
  type TableFacts,
  tableSchema,
} from "./facts.ts";

const serverQuery = `
  select jsonb_build_object(
    'database', d.datname, 'versionName', current_setting('server_version'),
    'bytes', pg_database_size(d.oid), 'isReplica', pg_is_in_recovery(),
    'statsS', extract(epoch from clock_timestamp() -
        coalesce(s.stats_reset, (select w.stats_reset from pg_stat_wal w))),
    'mayMonitor', pg_has_role('pg_read_all_stats', 'USAGE'),
    'autovacuum', current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean,
    'freezeMaxAge', current_setting('autovacuum_freeze_max_age')::bigint,
    'cache', jsonb_build_object('hit', s.blks_hit, 'read', s.blks_read),
    'connections', jsonb_build_object(
      'used', (select coalesce(sum(numbackends), 0) from pg_stat_database),
      'max', current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
             - coalesce(current_setting('reserved_connections', true), '0')::integer,
      'users', (select count(distinct usename) from pg_stat_activity where datname = d.datname)),
    'replicas', (select coalesce(jsonb_agg(jsonb_build_object(
        'name', coalesce(nullif(r.application_name, ''), host(r.client_addr), 'replica'), 'state', coalesce(r.state, 'unknown'),
        'lagMs', round(extract(epoch from r.replay_lag) * 1000),
        'lagBytes', case when not pg_is_in_recovery() then greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)) end
        ) order by r.application_name), '[]') from pg_stat_replication r),
    'idleSlots', (select coalesce(jsonb_agg(jsonb_build_object('name', l.slot_name,
        'keptBytes', case when not pg_is_in_recovery() then greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), l.restart_lsn)) else 0 end)), '[]')
        from pg_replication_slots l where not l.active and l.restart_lsn is not null),
    'xidAge', (select max(age(datfrozenxid)) from pg_database)
  ) as facts
  from pg_database d join pg_stat_database s on s.datid = d.oid where d.datname = current_database()`;

const activityQuery = `
  select jsonb_build_object('looks', 1,
    'onCpu', count(*) filter (where state = 'active' and wait_event is null),
    'active', count(*) filter (where state = 'active'),
    'idleInTransaction', count(*) filter (where state like 'idle in transaction%'),
    'waitingForLocks', count(*) filter (where wait_event_type = 'Lock'),
    'longestLockWaitS', coalesce(max(extract(epoch from clock_timestamp() - query_start))
                                 filter (where wait_event_type = 'Lock'), 0),
    'oldestTransactionS', coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0),
    'oldestIdleInTransactionS', coalesce(max(extract(epoch from clock_timestamp() - state_change))
                                         filter (where state like 'idle in transaction%'), 0)) as facts
    from pg_stat_activity
   where pid <> pg_backend_pid() and backend_type in ('client backend', 'parallel worker')`;

/** What the rates are made of: the same numbers, summed up until `at`. */
const countersSchema = ratesSchema.omit({ seconds: true }).extend({
  /** Seconds since 1970, of the server's clock. */
  at: z.number(),
});
export type Counters = z.infer<typeof countersSchema>;

/** `pg_stat_wal` counts since its own reset; positions in the log would count since the beginning. */
const countersQuery = `
  select jsonb_build_object('at', extract(epoch from clock_timestamp()),
    'transactions', s.xact_commit + s.xact_rollback,
    'rowsRead', s.tup_returned, 'rowsWritten', s.tup_inserted + s.tup_updated + s.tup_deleted,
    'walBytes', (select wal_bytes from pg_stat_wal), 'tempBytes', s.temp_bytes, 'deadlocks', s.deadlocks,
    'xids', case when pg_is_in_recovery() then 0
                 else pg_snapshot_xmax(pg_current_snapshot())::text::bigint end) as facts
    from pg_stat_database s where s.datname = current_database()`;

/** Where catalogs are huge, the largest tables tell the story. */
const tablesMax = 2000;

/**
 * Sizes are estimated where somebody holds, or waits for, a table exclusively: to ask for its size
 * would mean to wait in the same queue, in the very moment in which a look is wanted.
 */
const tablesQuery = `
  with locked as materialized (
    select distinct relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
  ), leaf as (
    select c.oid, coalesce(pg_partition_root(c.oid), c.oid) as root, c.reltuples,
           case when not exists (select from locked k where k.relation = c.oid or k.relation in
                                   (select i.indexrelid from pg_index i where i.indrelid = c.oid))
                then pg_total_relation_size(c.oid)
                else current_setting('block_size')::bigint * (select coalesce(sum(p.relpages), 0) from pg_class p
                       where p.oid in (c.oid, c.reltoastrelid)
                          or p.oid in (select i.indexrelid from pg_index i where i.indrelid = c.oid)) end as bytes, s.*
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      left join pg_stat_all_tables s on s.relid = c.oid
     where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
       and n.nspname not in ('information_schema', 'cellfleet')
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                                 and d.deptype = 'e')
  ), tables as (
    select root, case when bool_and(reltuples >= 0) then sum(reltuples) else -1 end as rows, sum(bytes) as bytes,
           coalesce(sum(n_dead_tup), 0) as dead, coalesce(sum(seq_scan), 0) as seq_scans,
           coalesce(sum(seq_tup_read), 0) as seq_rows, coalesce(sum(idx_scan), 0) as index_scans,
           coalesce(sum(n_tup_ins), 0) as inserts, coalesce(sum(n_tup_upd), 0) as updates,
           coalesce(sum(n_tup_del), 0) as deletes,
           extract(epoch from clock_timestamp() - min(greatest(last_vacuum, last_autovacuum))) as vacuumed
      from leaf group by root order by sum(bytes) desc limit ${tablesMax}
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'name', n.nspname || '.' || c.relname, 'schema', n.nspname, 'rows', t.rows, 'bytes', t.bytes, 'dead', t.dead,
    'seqScans', t.seq_scans, 'seqRows', t.seq_rows, 'indexScans', t.index_scans,
    'inserts', t.inserts, 'updates', t.updates, 'deletes', t.deletes, 'vacuumedS', t.vacuumed,
    'hasPrimaryKey', exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary),
    'columns', (select coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, null))
                                          order by a.attnum), '[]')
                  from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
    ) order by t.bytes desc), '[]') as facts
    from tables t join pg_class c on c.oid = t.root join pg_namespace n on n.oid = c.relnamespace`;

export type ServerReading = z.infer<typeof serverSchema>;

export const readServer = async (client: Queryable): Promise<ServerReading> =>
  serverSchema.parse(await readJson(client, serverQuery));
export const readActivity = async (client: Queryable): Promise<Activity> =>
  activitySchema.parse(await readJson(client, activityQuery));
export const readCounters = async (client: Queryable): Promise<Counters> =>
  countersSchema.parse(await readJson(client, countersQuery));
export const readTables = async (client: Queryable): Promise<TableFacts[]> =>
  z.array(tableSchema).parse(await readJson(client, tablesQuery));

async function readJson(client: Queryable, text: string): Promise<unknown> {
  const { rows } = await client.query<{ facts: unknown }>(text);
  return rows[0]?.facts;
}

/** Null when no time passed between the two, or the counters were set back. */
export function ratesBetween(before: Counters, after: Counters): Rates | null {
  const seconds = after.at - before.at;
  if (seconds <= 0 || after.transactions < before.transactions) return null;
  return ratesOf(before, after, seconds);
}

const zero: Counters = {
  at: 0,
  transactions: 0,
  rowsRead: 0,
  rowsWritten: 0,
  walBytes: 0,
  tempBytes: 0,
  deadlocks: 0,
  xids: 0,
};

/** Counters that are younger than this say more of the morning than of the system. */
const averageSecondsMin = 3600;

export function averageRates(counters: Counters, statsS: number | null): Rates | null {
  if (statsS === null || statsS < averageSecondsMin) return null;
  // Transaction ids count since the server was made, not since the statistics were set back.
  return { ...ratesOf(zero, counters, statsS), xids: 0 };
}

function ratesOf(before: Counters, after: Counters, seconds: number): Rates {
  const per = (name: keyof Omit<Counters, "at">) =>
    Math.max(0, (after[name] - before[name]) / seconds);
  return {
    seconds,
    transactions: per("transactions"),
    rowsRead: per("rowsRead"),
    rowsWritten: per("rowsWritten"),
    walBytes: per("walBytes"),
    tempBytes: per("tempBytes"),
    deadlocks: per("deadlocks"),
    xids: per("xids"),
  };
}

/** Means of what is a load, maxima of what is a wait. */
export function merged(looks: readonly Activity[]): Activity {
  const all = (name: keyof Activity) => looks.map((look) => look[name]);
  const mean = (name: keyof Activity) =>
    all(name).reduce((sum, value) => sum + value, 0) / Math.max(1, looks.length);
  const most = (name: keyof Activity) => Math.max(0, ...all(name));
  return {
    looks: looks.length,
    onCpu: mean("onCpu"),
    active: mean("active"),
    idleInTransaction: mean("idleInTransaction"),
    waitingForLocks: most("waitingForLocks"),
    longestLockWaitS: most("longestLockWaitS"),
    oldestTransactionS: most("oldestTransactionS"),
    oldestIdleInTransactionS: most("oldestIdleInTransactionS"),
  };
}

/** What the tables' own counters say of their growth: rows that stayed, times the size of a row. */
export function growthPerDay(
  tables: readonly TableFacts[],
  statsS: number | null,
): AssessFacts["growthBytesPerDay"] {
  if (statsS === null || statsS < averageSecondsMin) return null;
  const bytes = tables.reduce((sum, { inserts, deletes, rows, bytes: size }) => {
    const stayed = Math.max(0, inserts - deletes);
    return rows > 0 ? sum + Math.min(size, (stayed * size) / rows) : sum;
  }, 0);
  return (bytes / statsS) * 86_400;
}
