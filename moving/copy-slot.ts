/**
 * A slot and the snapshot at which it begins: what the snapshot shows and what the slot will send are
 * all there is, and nothing twice.
 *
 * What must always be true: PostgreSQL waits here for every transaction that wrote and did not end, of any
 * tenant on the server; that wait has a limit, and its end names who was in the way.
 */
import pg from "pg";
import { z } from "zod";
import { sqlStateOf } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { moveErrorOf, openMover, withMover } from "./connection.ts";
import type { StoreLogin } from "./ports.ts";

export type SlotOptions = {
  readonly clock: Clock;
  readonly waitMsMax: number;
  readonly signal: AbortSignal;
};

export type ExportedSlot = {
  readonly snapshot: string;
  /** The snapshot ends with it; the slot stays. */
  readonly close: () => Promise<void>;
};

/** `application`: of the connection that makes it, so that whoever comes later can end it. */
export async function exportSlot(
  login: StoreLogin,
  slot: string,
  application: string,
  options: SlotOptions,
): Promise<ExportedSlot> {
  const client = await openMover(login, {
    name: application,
    statementMsMax: 0,
    replication: true,
  });
  const close = () => client.end().catch(() => {}); // The server may have closed it.
  // A closed socket does not end who waits for a slot: the server has to be told.
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  let blockers: string[] | undefined;
  const watch = async () => {
    await options.clock.sleep(options.waitMsMax, signal);
    if (stop.signal.aborted) return;
    blockers = await findBlockers(login).catch(() => []); // The wait is over either way.
    await endBackend(login, application);
  };
  const watching = watch().catch(() => {}); // The creation below reports a database that is gone.
  try {
    const { rows } = await client.query(
      // Commands of the replication protocol are words in capitals.
      `CREATE_REPLICATION_SLOT ${pg.escapeIdentifier(slot)} LOGICAL pgoutput (SNAPSHOT 'export')`,
    );
    const { snapshot_name: snapshot } = z.object({ snapshot_name: z.string() }).parse(rows[0]);
    return { snapshot, close };
  } catch (error) {
    await close();
    options.signal.throwIfAborted();
    throw blockers === undefined
      ? moveErrorOf(login, error)
      : waitedTooLong(login, blockers, options.waitMsMax);
  } finally {
    stop.abort();
    await watching;
  }
}

/** A slot without a snapshot, from the database's own function. Not inside a transaction that wrote. */
export async function makeSlot(login: StoreLogin, slot: string, waitMsMax: number): Promise<void> {
  await withMover(login, { name: slot, statementMsMax: waitMsMax }, async (client) => {
    try {
      await client.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    } catch (error) {
      if (sqlStateOf(error) !== "57014") throw error;
      throw waitedTooLong(login, await findBlockers(login), waitMsMax);
    }
  });
}

const blockerSchema = z.object({ blocker: z.string() });

/** Transactions that wrote and did not end, oldest first, other sessions' and prepared ones. */
async function findBlockers(login: StoreLogin): Promise<string[]> {
  return withMover(login, { name: "cellfleet blockers" }, async (client) => {
    const { rows } = await client.query(
      `select blocker from (
         select format('process %s (%s%s, %s) since %s s', a.pid, coalesce(a.usename, '?'),
                       coalesce(' in ' || a.datname, ''), coalesce(a.state, '?'),
                       round(extract(epoch from clock_timestamp() - a.xact_start))) as blocker, a.xact_start as since
           from pg_stat_activity a
          where a.backend_xid is not null and a.pid <> pg_backend_pid()
         union all
         select format('prepared transaction %s of %s', p.gid, p.owner), p.prepared from pg_prepared_xacts p) b
       order by since limit 10`,
    );
    return rows.map((row) => blockerSchema.parse(row).blocker);
  });
}

const waitedTooLong = (
  login: StoreLogin,
  blockers: readonly string[],
  waitMsMax: number,
): CellError =>
  new CellError(
    "MOVE_UNFIT",
    `Transactions on the server of cell ${login.cell} have not ended for ${Math.round(waitMsMax / 1000)} s, so no slot could be made: ${blockers.join(", ") || "they are not shown to the mover"}; nothing was changed`,
    {
      nextSteps: [
        "end those transactions: select pg_terminate_backend(PID)",
        "start the move again",
      ],
    },
  );

/** Ends every session of this name in the database, and waits until they are gone. */
export async function endSessions(
  client: pg.Client,
  application: string,
  clock: Clock,
): Promise<void> {
  const deadline = clock.monotonicMs() + endMsMax;
  for (;;) {
    const { rows } = await client.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = $1 and pid <> pg_backend_pid()`,
      [application],
    );
    if (rows.length === 0) return;
    if (clock.monotonicMs() > deadline) {
      throw new CellError("MOVE_UNFIT", `Sessions named ${application} do not end`, {
        nextSteps: ["look at pg_stat_activity, then try again"],
      });
    }
    await clock.sleep(5);
  }
}

const endMsMax = 30_000;

const endBackend = (login: StoreLogin, application: string): Promise<void> =>
  withMover(login, { name: "cellfleet end" }, async (client) => {
    await client.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
      [application],
    );
  });
