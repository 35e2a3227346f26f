/**
 * What a move has to know of one store's database before it begins. Reads only, and nothing that makes
 * the application wait: the catalog, the lists of the pack, and counts that are bounded in time.
 */
import { z } from "zod";
import { ownershipStates } from "../../contract/cell-protocol.ts";
import { cellStages } from "../../contract/routing-table.ts";
import { tenantsOf } from "../key-rows.ts";
import { backName, forwardName, streamNamePattern } from "../names.ts";
import type { MoveTask } from "../ports.ts";
import type { StoreSession } from "../store-session.ts";
import { readSchemaText } from "../verify/schema-text.ts";
import { countRows, type TableSize } from "./sizes.ts";

const usedSchema = z.object({ used: z.number(), max: z.number() });
const sessionSchema = z.object({
  pid: z.number(),
  /** Of its transaction. */
  seconds: z.number(),
  user: z.string(),
});

const serverSchema = z.object({
  /** 160004 for 16.4. */
  version: z.number(),
  versionName: z.string(),
  inRecovery: z.boolean(),
  walLevel: z.string(),
  slots: usedSchema,
  senders: usedSchema,
  workers: usedSchema,
  /** Slots that have lost, or are about to lose, the log that they need. */
  strainedSlots: z.array(z.string()),
  /** What a slot may keep; null: as much as the disk holds. */
  slotBytesMax: z.number().nullable(),
  walBytesPerSecond: z.number(),
  role: z.object({
    name: z.string(),
    replicates: z.boolean(),
    bypassesRowSecurity: z.boolean(),
    maySubscribe: z.boolean(),
    maySetReplicationRole: z.boolean(),
    mayCreate: z.boolean(),
    actsForPack: z.boolean(),
  }),
  packInstalled: z.boolean(),
  /** Write transactions of any database of the server that have been open for long. */
  longTransactions: z.array(sessionSchema),
});

const packSchema = z.object({
  encoding: z.string(),
  /** Else the guard refuses every write, whoever owns the key. */
  leaseLive: z.boolean(),
  cell: z.string().nullable(),
  stage: z.enum(cellStages),
  schemaVersion: z.string().nullable(),
  keyspace: z.object({ strategy: z.string(), slotCount: z.number().nullable() }).nullable(),
  ownership: z.array(
    z.object({
      key: z.string(),
      state: z.enum(ownershipStates),
      epoch: z.number(),
      op: z.string(),
    }),
  ),
  unclassed: z.array(z.string()),
  /** Transactions that have held the locks of the keys for long. */
  keyTransactions: z.array(sessionSchema),
  /** Publications of other moves that name a tenant of this one. */
  otherPublications: z.array(z.string()),
});

const tableSchema = z.object({
  name: z.string(),
  keyColumn: z.string(),
  partitioned: z.boolean(),
  /** The table, or those of its partitions, whose rows replication cannot name by tenant, and why. */
  unidentified: z.array(z.object({ name: z.string(), deferrable: z.boolean() })),
  unlogged: z.array(z.string()),
  foreignParts: z.array(z.string()),
  /** What its partitions take, as PostgreSQL says it. */
  bounds: z.array(z.string()),
  /**
   * Unique indexes without the key column; `global`: a column of it is different in each cell by itself (a
   * uuid, a leased id, or what refers to a tenant's row).
   */
  uniques: z.array(z.object({ name: z.string(), columns: z.string(), global: z.boolean() })),
  exclusions: z.array(z.string()),
  /** Columns that take ids from a sequence that other cells have as well. */
  unleased: z.array(z.string()),
  largeObjects: z.array(z.string()),
  generated: z.array(z.string()),
  /** Triggers of the application that fire while rows are copied and streamed. */
  applyTriggers: z.array(z.string()),
  forcesRowSecurity: z.boolean(),
  /** Its owner, when the mover may not act for him: rows are applied with the owner's rights. */
  foreignOwner: z.string().nullable(),
});
export type TableFacts = z.infer<typeof tableSchema>;

export type StoreFacts = z.infer<typeof serverSchema> & {
  /** Undefined: not installed, or not to be read (an old server, a standby, a role without the rights). */
  readonly pack:
    | (z.infer<typeof packSchema> & {
        readonly tables: readonly TableFacts[];
        /** Rows of the keys, per guarded table; none where the mover may not read them all. */
        readonly sizes: readonly TableSize[];
        /** As `VerifyPort.schemaOf`. */
        readonly schema: string;
      })
    | undefined;
};

export const serverMin = 160_000;

const serverQuery = `
  select jsonb_build_object(
    'version', current_setting('server_version_num')::integer,
    'versionName', current_setting('server_version'),
    'inRecovery', pg_is_in_recovery(),
    'walLevel', current_setting('wal_level'),
    'slots', jsonb_build_object('used', (select count(*) from pg_replication_slots), 'max', current_setting('max_replication_slots')::integer),
    'senders', jsonb_build_object('used', (select count(*) from pg_stat_replication), 'max', current_setting('max_wal_senders')::integer),
    'workers', jsonb_build_object(
      'used', (select count(*) from pg_stat_activity where backend_type like 'logical replication%worker'),
      'max', least(current_setting('max_logical_replication_workers')::integer, current_setting('max_worker_processes')::integer - 1)),
    'strainedSlots', (select coalesce(jsonb_agg(slot_name order by slot_name), '[]') from pg_replication_slots where wal_status in ('unreserved', 'lost')),
    'slotBytesMax', (select nullif(setting::bigint, -1) * 1048576 from pg_settings where name = 'max_slot_wal_keep_size'),
    'walBytesPerSecond', (select coalesce(wal_bytes / greatest(extract(epoch from clock_timestamp() - stats_reset), 1), 0)::bigint from pg_stat_wal),
    'role', (select jsonb_build_object('name', r.rolname,
        'replicates', r.rolsuper or r.rolreplication or exists (
           select from pg_roles p where p.rolname in ('rds_replication', 'rds_superuser') and pg_has_role(r.oid, p.oid, 'USAGE')),
        'bypassesRowSecurity', r.rolsuper or r.rolbypassrls,
        'maySubscribe', r.rolsuper or pg_has_role(r.oid, 'pg_create_subscription', 'USAGE'),
        'maySetReplicationRole', has_parameter_privilege(r.oid, 'session_replication_role', 'SET'),
        'mayCreate', has_database_privilege(r.oid, current_database(), 'CREATE'),
        'actsForPack', exists (select from pg_roles p where p.rolname = 'cellfleet_owner' and pg_has_role(r.oid, p.oid, 'USAGE')))
      from pg_roles r where r.rolname = current_user),
    'packInstalled', to_regclass('cellfleet.move_marker') is not null,
    'longTransactions', (select coalesce(jsonb_agg(jsonb_build_object('pid', a.pid, 'user', coalesce(a.usename, ''),
          'seconds', round(extract(epoch from clock_timestamp() - a.xact_start))) order by a.xact_start), '[]')
        from pg_stat_activity a where a.backend_xid is not null and a.backend_type = 'client backend'
         and a.xact_start <= clock_timestamp() - $1 * interval '1 ms')
  ) as facts`;

/* The catalogs themselves, for the view pg_publication_tables fails (XX000) when one is dropped meanwhile. $1 keys, $2 keyspace, $3 their tenants, $4 names of this move's own streams, $5 pattern of such names, $6 age. */
const packQuery = `
  select jsonb_build_object(
    'cell', p.cell, 'stage', s.stage, 'leaseLive', cellfleet.lease_live(),
    'encoding', (select pg_encoding_to_char(d.encoding) from pg_database d where d.datname = current_database()),
    'schemaVersion', (select v.version from cellfleet.store_version v order by v.number desc limit 1),
    'keyspace', (select jsonb_build_object('strategy', k.strategy, 'slotCount', k.slot_count)
        from cellfleet.keyspace k where k.name = $2 collate "C"),
    'ownership', (select coalesce(jsonb_agg(jsonb_build_object('key', o.key, 'state', o.state, 'epoch', o.epoch, 'op', o.op)), '[]')
        from cellfleet.ownership o where o.key = any ($1::text[])),
    'unclassed', (select coalesce(jsonb_agg(u.schema_name || '.' || u.table_name order by 1), '[]') from cellfleet.unclassed_tables() u),
    'keyTransactions', (select coalesce(jsonb_agg(distinct jsonb_build_object('pid', w.pid, 'user', w.user_name, 'seconds', w.age_ms / 1000)), '[]')
        from cellfleet.sessions_in_the_way($1::text[]) w where w.age_ms >= $6),
    'otherPublications', (select coalesce(jsonb_agg(distinct b.pubname), '[]')
        from pg_publication b join pg_publication_rel r on r.prpubid = b.oid
       where b.pubname ~ $5 and b.pubname <> all ($4::text[])
         and exists (select from unnest($3::text[]) t(tenant)
                      where position(quote_literal(t.tenant) in pg_get_expr(r.prqual, r.prrelid)) > 0))
  ) as facts from cellfleet.progress p cross join cellfleet.stage s`;

const tablesQuery = `
  with guarded as (
    select g.schema_name || '.' || g.table_name as name, g.key_column, c.oid, c.relkind, c.relowner, c.relforcerowsecurity, k.attnum as key
      from cellfleet.guarded_table g join pg_namespace n on n.nspname = g.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
      join pg_attribute k on k.attrelid = c.oid and k.attname = g.key_column
     where g.keyspace = $1
  ), parts as (
    select g.oid as whole, g.key_column, c.oid, c.oid::regclass::text as name, c.relkind, c.relpersistence, c.relreplident
      from guarded g join pg_class c on c.oid = g.oid or c.oid in (select t.relid from pg_partition_tree(g.oid) t)
     where c.relkind <> 'p'
  ), columns as (
    select a.*, g.oid as whole, d.oid as default_of,
           format_type(a.atttypid, null) = 'uuid' or exists (
             select from pg_depend e join cellfleet.id_sequence s on s.sequence = e.refobjid
              where e.classid = 'pg_attrdef'::regclass and e.objid = d.oid and e.refclassid = 'pg_class'::regclass) or exists (
             select from pg_constraint f join guarded p on p.oid = f.confrelid
              where f.conrelid = a.attrelid and f.contype = 'f' and a.attnum = any (f.conkey)) as global,
           a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like 'nextval(%' as unleased
      from guarded g join pg_attribute a on a.attrelid = g.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'name', g.name, 'keyColumn', g.key_column, 'partitioned', g.relkind = 'p',
    'unidentified', (select coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'deferrable', exists (
            select from pg_index i where i.indrelid = p.oid and i.indisprimary and not i.indimmediate)) order by p.name), '[]')
        from parts p where p.whole = g.oid and p.relkind = 'r' and p.relreplident <> 'f' and not exists (
          select from pg_index i join pg_attribute a on a.attrelid = p.oid and a.attnum = any (i.indkey) and a.attname = p.key_column
           where i.indrelid = p.oid and i.indimmediate and i.indisvalid
             and case p.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end)),
    'unlogged', (select coalesce(jsonb_agg(p.name order by p.name), '[]') from parts p where p.whole = g.oid and p.relpersistence = 'u'),
    'foreignParts', (select coalesce(jsonb_agg(p.name order by p.name), '[]') from parts p where p.whole = g.oid and p.relkind = 'f'),
    'bounds', (select coalesce(jsonb_agg(pg_get_expr(c.relpartbound, c.oid) order by c.oid::regclass::text), '[]')
        from parts p join pg_class c on c.oid = p.oid where p.whole = g.oid and c.relpartbound is not null),
    'uniques', (select coalesce(jsonb_agg(jsonb_build_object('name', x.relname,
            'columns', (select string_agg(pg_get_indexdef(i.indexrelid, s.n, true), ', ' order by s.n) from generate_series(1, i.indnkeyatts) s(n)),
            'global', exists (select from columns a where a.whole = g.oid and a.attnum = any (i.indkey[0 : i.indnkeyatts - 1]) and a.global)) order by x.relname), '[]')
        from pg_index i join pg_class x on x.oid = i.indexrelid
       where i.indrelid = g.oid and i.indisunique and i.indisvalid and g.key <> all (i.indkey[0 : i.indnkeyatts - 1])),
    'exclusions', (select coalesce(jsonb_agg(o.conname order by o.conname), '[]') from pg_constraint o
       where o.conrelid = g.oid and o.contype = 'x' and g.key <> all (o.conkey)),
    'unleased', (select coalesce(jsonb_agg(a.attname order by a.attnum), '[]') from columns a where a.whole = g.oid and a.unleased),
    'largeObjects', (select coalesce(jsonb_agg(a.attname order by a.attnum), '[]') from columns a
       where a.whole = g.oid and (a.atttypid = 'oid'::regtype or exists (
         select from pg_type t where t.oid = a.atttypid and t.typbasetype = 'oid'::regtype))),
    'generated', (select coalesce(jsonb_agg(a.attname order by a.attnum), '[]') from columns a where a.whole = g.oid and a.attgenerated <> ''),
    'applyTriggers', (select coalesce(jsonb_agg(distinct t.tgname), '[]') from pg_trigger t
       where (t.tgrelid = g.oid or t.tgrelid in (select p.oid from parts p where p.whole = g.oid))
         and not t.tgisinternal and t.tgenabled in ('A', 'R') and t.tgname not like 'zz\\_cellfleet\\_%'),
    'forcesRowSecurity', g.relforcerowsecurity,
    'foreignOwner', case when not (pg_has_role(g.relowner, 'USAGE') and pg_has_role(g.relowner, 'SET')) then pg_get_userbyid(g.relowner) end
  ) order by g.name collate "C"), '[]') as facts from guarded g`;

/** From which age on a transaction is told of. */
export type PreflightLimits = {
  /** Of any writer of the server: the move's slot waits for it. */
  readonly longTransactionMs: number;
  /** Of a writer of the keys: the fence waits for it. */
  readonly keyTransactionMs: number;
};

/** The session is left as it was. */
export async function readStoreFacts(
  session: StoreSession,
  task: MoveTask,
  limits: PreflightLimits,
): Promise<StoreFacts> {
  const server = serverSchema.parse(
    await readJson(session, serverQuery, [limits.longTransactionMs]),
  );
  const { version, packInstalled, inRecovery, role } = server;
  if (version < serverMin || !packInstalled || inRecovery || !role.actsForPack) {
    return { ...server, pack: undefined };
  }
  const own = task.stores.flatMap((_, index) => [
    forwardName(task, index),
    backName(task, index),
    // Of a move that is taken back the stream it came on is left, too.
    ...(task.reverses === null ? [] : [forwardName({ op: task.reverses, reverses: null }, index)]),
  ]);
  const pack = packSchema.parse(
    await readJson(session, packQuery, [
      task.keys.map(({ key }) => key),
      task.keyspace.name,
      tenantsOf(task),
      own,
      streamNamePattern,
      limits.keyTransactionMs,
    ]),
  );
  const tables = z
    .array(tableSchema)
    .parse(await readJson(session, tablesQuery, [task.keyspace.name]));
  const mayRead = tables.every(({ foreignOwner }) => foreignOwner === null);
  const sizes = mayRead ? await countRows(session, task) : [];
  return { ...server, pack: { ...pack, tables, sizes, schema: await readSchemaText(session) } };
}

async function readJson(
  session: StoreSession,
  text: string,
  values: readonly unknown[],
): Promise<unknown> {
  const { rows } = await session.query<{ facts: unknown }>(text, [...values]);
  return rows[0]?.facts;
}
