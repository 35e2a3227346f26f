/**
 * One installation or removal at a time in a database: two would each do what the other has planned,
 * and fail half-way with PostgreSQL's own words.
 *
 * Held by the session, so it ends with it. Not the lock of the pack's installer: an agent that starts
 * meanwhile takes that one, and an installation may wait for the agent.
 */
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";

/** The pair form of advisory locks, which shares no number with the single one. */
const lock = "7305, 1";

/** Throws STATE_CONFLICT at once when somebody is at it. */
export async function withInstallationLock<T>(
  client: Queryable,
  work: () => Promise<T>,
): Promise<T> {
  const { rows } = await client.query<{ taken: boolean }>(
    `select pg_try_advisory_lock(${lock}) as taken`,
  );
  if (rows[0]?.taken !== true) throw await occupied(client);
  try {
    return await work();
  } finally {
    // A connection that is gone holds nothing.
    await client.query(`select pg_advisory_unlock(${lock})`).catch(() => undefined);
  }
}

async function occupied(client: Queryable): Promise<CellError> {
  const { rows } = await client.query<{ pid: number }>(
    `select l.pid from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
      where l.locktype = 'advisory' and (l.classid, l.objid) = (7305, 1) and l.objsubid = 2 and l.granted`,
  );
  const pid = rows[0]?.pid;
  const who = pid === undefined ? "has just ended" : `runs (pid ${pid})`;
  return new CellError("STATE_CONFLICT", `Another installation ${who}; nothing was changed`, {
    nextSteps: [
      "run the same command again when it has ended",
      ...(pid === undefined
        ? []
        : [`or, if nobody knows of it: select pg_terminate_backend(${pid});`]),
    ],
  });
}
