/**
 * What only a superuser may give the role that moves tenants, on a server of one's own. On others
 * `cellctl check --database-url REF --role mover` says what the provider's way is.
 */
import pg from "pg";
import type { Queryable } from "./queryable.ts";

/** `role` is there already; `client` is connected to `database`. May be repeated. */
export async function letMove(client: Queryable, role: string, database: string): Promise<void> {
  const name = pg.escapeIdentifier(role);
  await client.query(`alter role ${name} with replication bypassrls`);
  await client.query(`grant pg_create_subscription, pg_monitor, pg_signal_backend to ${name}`);
  await client.query(`grant create on database ${pg.escapeIdentifier(database)} to ${name}`);
  // How far a standby's stream came: what a failover has lost is counted from there.
  await client.query(`grant execute on function pg_show_replication_origin_status() to ${name}`);
  // A physical standby, whose roles are its origin's, is steered by it: cut off its origin, and promoted.
  await client.query(`grant alter system on parameter primary_conninfo to ${name}`);
  await client.query(
    `grant execute on function pg_promote(boolean, integer), pg_reload_conf() to ${name}`,
  );
  // Copies and removes rows of keys that are not active here: neither guard nor triggers are to fire.
  await client.query(`grant set on parameter session_replication_role to ${name}`);
}
