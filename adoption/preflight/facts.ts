/**
 * What a user's database says of itself, before anything of ours is installed in it: version,
 * settings, who we are and what we may. Reads only, and nothing that needs a superuser.
 */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";

/** Told apart by the roles that each provider makes; none of them hands out a superuser. */
export const platforms = ["plain", "rds", "cloudsql"] as const;
export type Platform = (typeof platforms)[number];

const serverSchema = z.object({
  /** 160004 for 16.4. */
  version: z.number(),
  versionName: z.string(),
  platform: z.enum(platforms),
  isReplica: z.boolean(),
  encoding: z.string(),
  /**
   * What a new session of this role gets, by name, in the setting's own unit; absent where the
   * server does not know it. Limits of our own look are not among them.
   */
  settings: z.record(z.string(), z.string()),
  /** Names of settings that wait for a restart. */
  pendingRestart: z.array(z.string()),
  /** This connection. */
  ssl: z.boolean(),
  /** `local` for a Unix socket. */
  local: z.boolean(),
  connections: z.object({ used: z.number(), max: z.number(), reserved: z.number() }),
  slots: z.object({ used: z.number(), lost: z.array(z.string()) }),
  preparedTransactions: z.number(),
  /** Of the database's default collation; null where the provider knows no versions. */
  collation: z.object({ recorded: z.string().nullable(), actual: z.string().nullable() }),
});
export type ServerFacts = z.infer<typeof serverSchema>;

const appRoleSchema = z.object({
  name: z.string(),
  superuser: z.boolean(),
  bypassesRowSecurity: z.boolean(),
  createRole: z.boolean(),
  ownsDatabase: z.boolean(),
  /** Owns itself, or through a role that it is a member of. The first ten. */
  ownedTables: z.array(z.string()),
  maySetReplicationRole: z.boolean(),
  /** `name=value`, of the role, as `alter role … set` left them. */
  settings: z.array(z.string()),
});

const grantsSchema = z.object({
  user: z.string(),
  superuser: z.boolean(),
  createRole: z.boolean(),
  replication: z.boolean(),
  bypassesRowSecurity: z.boolean(),
  mayCreateInDatabase: z.boolean(),
  mayCreateSubscription: z.boolean(),
  mayMonitor: z.boolean(),
  /** Ends other roles' sessions, superusers' excepted. */
  maySignal: z.boolean(),
  maySetReplicationRole: z.boolean(),
  /** Of the platform: what stands in for the attribute REPLICATION there. */
  platformReplication: z.boolean(),
  packOwner: z.object({ exists: z.boolean(), maySet: z.boolean(), inherits: z.boolean() }),
  /** Owners of tables that this role can not act as, with one table of each. */
  foreignOwners: z.array(z.object({ owner: z.string(), table: z.string() })),
  /** Owners of tables that this role can not become (SET ROLE), with one table of each. */
  closedOwners: z.array(z.object({ owner: z.string(), table: z.string() })),
  pack: z.object({ installed: z.boolean(), mayUse: z.boolean(), mayApply: z.boolean() }),
  /** Null: no role was asked about. `exists: false`: there is none of this name. */
  app: z
    .union([appRoleSchema, z.object({ name: z.string(), exists: z.literal(false) })])
    .nullable(),
});
export type GrantFacts = z.infer<typeof grantsSchema>;

export type Pooling = "none" | "session" | "transaction";
export type PreflightFacts = {
  readonly server: ServerFacts;
  /** Absent where the server is too old to be asked. */
  readonly grants: GrantFacts | undefined;
  readonly pooling: Pooling;
};

export const versionMin = 160_000;

const serverQuery = `
  select jsonb_build_object(
    'version', current_setting('server_version_num')::integer,
    'versionName', current_setting('server_version'),
    'platform', case when exists (select from pg_roles where rolname = 'rds_superuser') then 'rds'
                     when exists (select from pg_roles where rolname = 'cloudsqlsuperuser') then 'cloudsql'
                     else 'plain' end,
    'isReplica', pg_is_in_recovery(),
    'encoding', (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()),
    'settings', (select coalesce(jsonb_object_agg(name, reset_val), '{}') from pg_settings
                  where name = any ($1) and reset_val is not null),
    'pendingRestart', (select coalesce(jsonb_agg(name order by name), '[]') from pg_settings where pending_restart),
    'ssl', coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false),
    'local', inet_server_addr() is null or host(inet_server_addr()) in ('127.0.0.1', '::1'),
    'connections', jsonb_build_object(
       'used', (select coalesce(sum(numbackends), 0) from pg_stat_database),
       'max', current_setting('max_connections')::integer,
       'reserved', current_setting('superuser_reserved_connections')::integer
                   + coalesce(current_setting('reserved_connections', true), '0')::integer),
    'slots', jsonb_build_object(
       'used', (select count(*) from pg_replication_slots),
       'lost', (select coalesce(jsonb_agg(slot_name), '[]') from pg_replication_slots where wal_status = 'lost')),
    'preparedTransactions', (select count(*) from pg_prepared_xacts),
    'collation', jsonb_build_object('recorded', null, 'actual', null)
  ) as facts`;

const collationQuery = `
  select jsonb_build_object('recorded', datcollversion,
                            'actual', pg_database_collation_actual_version(oid)) as facts
    from pg_database where datname = current_database()`;

/** `role` is a name of this file's own; what a user wrote travels as a parameter. */
const ownedBy = (role: string): string => `
  (select coalesce(jsonb_agg(t.name), '[]') from (
     select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
        and n.nspname not in ('information_schema', 'cellfleet')
        and (c.relowner = ${role}.oid or (pg_has_role(${role}.oid, c.relowner, 'MEMBER') and not ${role}.rolsuper))
      order by 1 limit 10) t)`;

/** Owners of the application's tables whom the asking role is not as `right` says, with one table of each. */
const ownersWithout = (right: "USAGE" | "SET"): string => `
    (select coalesce(jsonb_agg(jsonb_build_object('owner', o.owner, 'table', o.name) order by o.owner), '[]')
       from (select pg_get_userbyid(c.relowner) as owner, min(c.oid::regclass::text) as name
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
                and n.nspname not in ('information_schema', 'cellfleet')
                and not pg_has_role(r.oid, c.relowner, '${right}')
                and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass
                                   and d.objid = c.oid and d.deptype = 'e')
              group by c.relowner) o)`;

const grantsQuery = `
  select jsonb_build_object(
    'user', r.rolname, 'superuser', r.rolsuper, 'createRole', r.rolcreaterole,
    'replication', r.rolreplication, 'bypassesRowSecurity', r.rolbypassrls,
    'mayCreateInDatabase', has_database_privilege(current_database(), 'CREATE'),
    'mayCreateSubscription', pg_has_role('pg_create_subscription', 'USAGE'),
    'mayMonitor', pg_has_role('pg_read_all_stats', 'USAGE'),
    'maySignal', pg_has_role('pg_signal_backend', 'USAGE'),
    'maySetReplicationRole', has_parameter_privilege('session_replication_role', 'SET'),
    'platformReplication', exists (select from pg_roles p where p.rolname in ('rds_replication', 'rds_superuser')
                                                             and pg_has_role(r.oid, p.oid, 'USAGE')),
    'packOwner', jsonb_build_object(
       'exists', exists (select from pg_roles where rolname = 'cellfleet_owner'),
       'maySet', exists (select from pg_roles p where p.rolname = 'cellfleet_owner'
                                                and pg_has_role(r.oid, p.oid, 'SET')),
       'inherits', exists (select from pg_roles p where p.rolname = 'cellfleet_owner'
                                                  and pg_has_role(r.oid, p.oid, 'USAGE'))),
    'foreignOwners', ${ownersWithout("USAGE")},
    'closedOwners', ${ownersWithout("SET")},
    'pack', jsonb_build_object(
       'installed', to_regnamespace('cellfleet') is not null,
       'mayUse', coalesce(has_schema_privilege(to_regnamespace('cellfleet'), 'USAGE'), false),
       'mayApply', exists (select from pg_proc p where p.pronamespace = to_regnamespace('cellfleet')
                              and p.proname = 'apply_ownership' and has_function_privilege(p.oid, 'EXECUTE'))),
    'app', case when $1::text is null then null else coalesce((
       select jsonb_build_object(
         'name', a.rolname, 'superuser', a.rolsuper, 'bypassesRowSecurity', a.rolbypassrls,
         'createRole', a.rolcreaterole,
         'ownsDatabase', exists (select from pg_database d where d.datname = current_database() and d.datdba = a.oid),
         'ownedTables', ${ownedBy("a")},
         'maySetReplicationRole', has_parameter_privilege(a.oid, 'session_replication_role', 'SET'),
         'settings', (select coalesce(jsonb_agg(item), '[]') from pg_db_role_setting s, unnest(s.setconfig) item
                       where s.setrole = a.oid
                         and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))))
         from pg_roles a where a.rolname = $1), jsonb_build_object('name', $1::text, 'exists', false)) end
  ) as facts from pg_roles r where r.rolname = current_user`;

export async function readServerFacts(
  client: Queryable,
  settings: readonly string[],
): Promise<ServerFacts> {
  const facts = serverSchema.parse(await readJson(client, serverQuery, [[...settings]]));
  if (facts.version < versionMin) return facts;
  const collation = serverSchema.shape.collation.parse(await readJson(client, collationQuery, []));
  return { ...facts, collation };
}

/** PostgreSQL 16 or newer only: older ones lack what is asked for. */
export const readGrantFacts = async (
  client: Queryable,
  appRole: string | undefined,
): Promise<GrantFacts> =>
  grantsSchema.parse(await readJson(client, grantsQuery, [appRole ?? null]));

async function readJson(client: Queryable, text: string, values: unknown[]): Promise<unknown> {
  const { rows } = await client.query<{ facts: unknown }>(text, values);
  return rows[0]?.facts;
}
