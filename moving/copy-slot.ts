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
  /** Who is waited for, in words, every now and then while it waits. */
  readonly onWait: (blockers: string) => void;
  readonly signal: AbortSignal;
};

export type ExportedSlot = {
  readonly snapshot: string;
  /** The snapshot ends with it; the slot stays. */
  readonly close: () => Promise<void>;
};

/** The limit of the whole wait is another; a lock's own must not come before it. */
const lockMsAfter = 10_000;
const lookMs = 2000;
/** Nobody can end the wait of `makeSlot` before: whoever still wants it asks again. */
const makeMsMax = 15_000;
/** Told of a wait that may be taken up again. */
const lockNotAvailable = "55P03";

/** `application`: of the connection that makes it, so that whoever comes later can end it. */
export async function exportSlot(
  login: StoreLogin,
  slot: string,
  application: string,
  options: SlotOptions,
): Promise<ExportedSlot> {
  const { clock, waitMsMax } = options;
  const client = await openMover(login, {
    name: application,
    statementMsMax: 0,
    lockMsMax: waitMsMax + lockMsAfter,
    replication: true,
  });
  const close = () => client.end().catch(() => {}); // The server may have closed it.
  // A closed socket does not end who waits for a slot: the server has to be told.
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const deadlineMs = clock.monotonicMs() + waitMsMax;
  let inTheWay: readonly Blocker[] | undefined;
  const watch = async () => {
    for (;;) {
      await clock.sleep(Math.min(lookMs, deadlineMs - clock.monotonicMs()), signal);
      if (stop.signal.aborted) return;
      const isOver = options.signal.aborted || clock.monotonicMs() >= deadlineMs;
      const found = await findBlockers(login).catch(() => []); // It goes on, or is over, either way.
      if (stop.signal.aborted) return;
      if (isOver) {
        inTheWay = found;
        await endBackend(login, application);
        return;
      }
      if (found.length > 0) options.onWait(textOf(found));
    }
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
    throw inTheWay === undefined
      ? moveErrorOf(login, error)
      : waitedTooLong(login, inTheWay, waitMsMax, undefined);
  } finally {
    stop.abort();
    await watching;
  }
}

/** A slot without a snapshot, from the database's own function. Not inside a transaction that wrote. */
export async function makeSlot(login: StoreLogin, slot: string, waitMsMax: number): Promise<void> {
  const waitMs = Math.min(waitMsMax, makeMsMax);
  const options = { name: slot, statementMsMax: waitMs, lockMsMax: waitMs + lockMsAfter };
  await withMover(login, options, async (client) => {
    try {
      await client.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    } catch (error) {
      if (sqlStateOf(error) !== "57014") throw error;
      throw waitedTooLong(login, await findBlockers(login), waitMs, lockNotAvailable);
    }
  });
}

const blockerSchema = z.object({
  blocker: z.string(),
  /** Of a prepared transaction: none. */
  pid: z.number().nullable(),
  user: z.string().nullable(),
  age_ms: z.number().nullable(),
});
type Blocker = z.infer<typeof blockerSchema>;

const textOf = (blockers: readonly Blocker[]): string =>
  blockers.map(({ blocker }) => blocker).join(", ");

/** Transactions that wrote and did not end, oldest first, other sessions' and prepared ones. */
async function findBlockers(login: StoreLogin): Promise<readonly Blocker[]> {
  return withMover(login, { name: "cellfleet blockers" }, async (client) => {
    const { rows } = await client.query(
      `select blocker, pid, "user", (extract(epoch from clock_timestamp() - since) * 1000)::float8 as age_ms from (
         select format('process %s (%s%s, %s) since %s s', a.pid, coalesce(a.usename, '?'),
                       coalesce(' in ' || a.datname, ''), coalesce(a.state, '?'),
                       round(extract(epoch from clock_timestamp() - a.xact_start))) as blocker,
                a.pid, a.usename::text as "user", a.xact_start as since
           from pg_stat_activity a
          where a.backend_xid is not null and a.pid <> pg_backend_pid()
         union all
         select format('prepared transaction %s of %s', p.gid, p.owner), null, p.owner::text, p.prepared
           from pg_prepared_xacts p) b
       order by since limit 10`,
    );
    return rows.map((row) => blockerSchema.parse(row));
  });
}

/** `sqlState`: of what the executor may try again by itself. */
function waitedTooLong(
  login: StoreLogin,
  blockers: readonly Blocker[],
  waitMsMax: number,
  sqlState: string | undefined,
): CellError {
  const ends = blockers.flatMap(({ pid }) => (pid === null ? [] : `pg_terminate_backend(${pid})`));
  return new CellError(
    "MOVE_UNFIT",
    `Transactions on the server of cell ${login.cell} have not ended for ${Math.round(waitMsMax / 1000)} s, so no slot could be made: ${textOf(blockers) || "they are not shown to the mover"}; nothing was changed`,
    {
      details: {
        ...{ cell: login.cell, store: login.store },
        sessions: blockers.map(({ pid, user, age_ms: ageMs }) => ({ pid, user, ageMs })),
        ...(sqlState === undefined ? {} : { sqlState }),
      },
      nextSteps: [
        ends.length === 0
          ? 'psql -c "select pid, usename, xact_start from pg_stat_activity where backend_xid is not null"'
          : `psql -c "select ${ends.join(", ")}"`,
      ],
    },
  );
}

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
