/**
 * Which of several agents of one cell writes ownership and renews the lease: the one whose connection
 * holds a session advisory lock in the cell's database. PostgreSQL gives it up with the connection,
 * so no second clock is needed; being primary twice for a moment is harmless, because every write of
 * an agent is conditional.
 */
import type pg from "pg";

const primaryLockName = "cellfleet/primary";

/** `client`: one connection that is kept for as long as the role is held. */
export async function tryBecomePrimary(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ held: boolean }>(
    "select pg_try_advisory_lock(cellfleet.lock_key($1)) as held",
    [primaryLockName],
  );
  return rows[0]?.held === true;
}

/** Does this connection (still) hold it? False positive never; asks the database. */
export async function isPrimary(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ held: boolean }>(
    `select exists (
       select from pg_locks l, (select cellfleet.lock_key($1) as key) k
        where l.locktype = 'advisory' and l.pid = pg_backend_pid() and l.granted
          and l.database = (select d.oid from pg_database d where d.datname = current_database())
          and l.objsubid = 1
          and (l.classid::bigint << 32 | l.objid::bigint) = k.key) as held`,
    [primaryLockName],
  );
  return rows[0]?.held === true;
}

export async function stepDown(client: pg.ClientBase): Promise<void> {
  await client.query("select pg_advisory_unlock(cellfleet.lock_key($1))", [primaryLockName]);
}
