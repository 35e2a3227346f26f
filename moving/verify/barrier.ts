/**
 * Two snapshots, one in each cell, of the same rows, while the application writes on.
 *
 * For a few milliseconds the keys' locks are held, as a fence holds them, so that every write of the keys is
 * either committed or not begun. A marker committed under the locks follows all of those in the stream; when
 * it is seen at the other end, they were applied. Then both snapshots are opened, and the locks let go.
 *
 * Always true: writers wait for nothing but that. While the locks are waited for, new writers queue behind,
 * so the wait is short and taken up again later; a marker that is late lets the locks go first; and if this
 * process stalls, the server itself ends the session that holds them (then the point does not count).
 */
import { type Queryable, sqlStateOf } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import type { OpId } from "../../contract/ids.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import type { MoveTask, StoreLogin } from "../ports.ts";
import { openStoreSession, refusalOf, type StoreSession } from "../store-session.ts";

export type BarrierOptions = {
  readonly task: MoveTask;
  /** Where the keys are written; the stream flows from here to `reader`. */
  readonly writer: StoreLogin;
  readonly reader: StoreLogin;
  /** Whose markers this stream carries (`cellfleet.move_marker.op`, in the publication's row filter). */
  readonly stream: OpId;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
};

/** Sessions stand in a transaction with the snapshot; closing them is the caller's. */
export type PointInStream = { readonly writer: StoreSession; readonly reader: StoreSession };

/** For the locks of all keys together; then others write for `pauseMs`, and it is tried again. */
const lockMs = [2, 5, 10, 20] as const;
/** For the marker under the locks: a few milliseconds, unless the machines are starved. */
const holdMs = [10, 20, 40, 80, 160, 250] as const;
const triesMax = 60;
const pauseMs = { first: 5, max: 250 } as const;
/** For a marker without any lock: the stream is asked whether it is near before anybody waits. */
const quietMarkerMsMax = 30_000;
const pollMs = 1;
/** Of each statement, which should take a millisecond: somebody may have locked the list of markers. */
const sessionLimits = "set statement_timeout = '30s'; set synchronous_commit = local";
const idleTimedOut = "25P03";
/** Lock timeout; statement timeout. */
const busyStates = ["55P03", "57014"];

type Line = BarrierOptions & { readonly sessions: PointInStream };

export async function openPointInStream(options: BarrierOptions): Promise<PointInStream> {
  const { signal, clock } = options;
  const writer = await openStoreSession(options.writer, "verify", signal);
  let reader: StoreSession | undefined;
  try {
    reader = await openStoreSession(options.reader, "verify", signal);
    const line: Line = { ...options, sessions: { writer, reader } };
    for (const session of [writer, reader]) await session.query(sessionLimits);
    let locksMissed = 0;
    let markersMissed = 0;
    for (let tried = 0; tried < triesMax; tried += 1) {
      await catchUp(line);
      const outcome = await holdAndOpen(line, {
        lockMs: lockMs[Math.min(locksMissed, lockMs.length - 1)] ?? 2,
        holdMs: holdMs[Math.min(markersMissed, holdMs.length - 1)] ?? 10,
      });
      if (outcome === "opened") return { writer, reader };
      if (outcome === "writers") locksMissed += 1;
      else markersMissed += 1;
      await clock.sleep(Math.min(pauseMs.max, pauseMs.first * 2 ** tried), signal);
      signal.throwIfAborted();
    }
    throw locksMissed > markersMissed ? await writersNeverRest(line) : tooFarBehind(line);
  } catch (error) {
    await Promise.all([writer.close(), reader?.close()]);
    throw refusalOf(options.writer, error);
  }
}

async function catchUp(line: Line): Promise<void> {
  const nonce = await writeMarker(line);
  if (!(await isSeen(line, nonce, quietMarkerMsMax))) throw tooFarBehind(line);
}

/** Both sessions stand in their snapshots when it says `opened`, and in no transaction else. */
async function holdAndOpen(
  line: Line,
  limits: { readonly lockMs: number; readonly holdMs: number },
): Promise<"opened" | "writers" | "marker"> {
  const { writer, reader } = line.sessions;
  const locks = await openStoreSession(line.writer, "verify barrier", line.signal);
  try {
    // Compiled before the clock runs.
    await locks.query("select cellfleet.lock_keys('{}')");
    // The server's own bound, should this process stall: room for the marker, and for opening.
    await locks.query(
      `begin; set local lock_timeout = ${limits.lockMs}; set local statement_timeout = ${limits.lockMs * 2};
       set local idle_in_transaction_session_timeout = ${limits.holdMs * 2 + 100}`,
    );
    try {
      await locks.query("select cellfleet.lock_keys($1)", [line.task.keys.map(({ key }) => key)]);
    } catch (error) {
      const state = sqlStateOf(error) ?? "";
      if (busyStates.includes(state)) return "writers";
      // It was this process that stood still, so nobody's rows are at fault: once more.
      if (state === idleTimedOut) return "marker";
      throw error;
    }
    const nonce = await writeMarker(line);
    if (!(await isSeen(line, nonce, limits.holdMs))) return "marker";
    await Promise.all([openSnapshot(writer), openSnapshot(reader)]);
    if (await isOver(locks.query("commit"))) return "opened";
    // The locks were gone before the snapshots stood.
    await Promise.all([writer.query("rollback"), reader.query("rollback")]);
    return "marker";
  } finally {
    await locks.close();
  }
}

const isOver = (work: Promise<unknown>): Promise<boolean> =>
  work.then(
    () => true,
    () => false,
  );

async function openSnapshot(client: Queryable): Promise<void> {
  await client.query("begin isolation level repeatable read read only; select 1");
}

/** A new row each time. It does not wait for the writer's own standbys (`local`), for the stream does not. */
async function writeMarker({ task, stream, random, sessions }: Line): Promise<string> {
  const nonce = random.hex(16);
  await sessions.writer.query(
    "insert into cellfleet.move_marker (op, name, attempt, nonce) values ($1, $2, $3, $4)",
    [stream, `verify-${nonce}`, task.attempt, nonce],
  );
  return nonce;
}

async function isSeen(line: Line, nonce: string, msMax: number): Promise<boolean> {
  const { clock, sessions, stream, signal } = line;
  const until = clock.monotonicMs() + msMax;
  for (;;) {
    const { rows } = await sessions.reader.query(
      "select from cellfleet.move_marker m where m.op = $1 and m.name = $2",
      [stream, `verify-${nonce}`],
    );
    if (rows.length > 0) return true;
    if (clock.monotonicMs() >= until) return false;
    await clock.sleep(pollMs, signal);
    signal.throwIfAborted();
  }
}

async function writersNeverRest(line: Line): Promise<CellError> {
  const { cell, store } = line.writer;
  const { rows } = await line.sessions.writer.query<{ pid: number; age: number }>(
    "select distinct s.pid, s.age_ms::float8 as age from cellfleet.sessions_in_the_way($1) s order by 2 desc limit 20",
    [line.task.keys.map(({ key }) => key)],
  );
  return new CellError(
    "FENCE_BLOCKED",
    `Transactions of the keys in cell ${cell} left no moment free to compare at; nothing was changed`,
    {
      details: { store, sessions: rows },
      nextSteps: rows.map(({ pid }) => `end session ${pid} in cell ${cell}, or wait for it`),
    },
  );
}

const tooFarBehind = ({ writer, reader }: Line): CellError =>
  new CellError(
    "MOVE_STREAM_BROKEN",
    `What is written in store ${writer.store} of cell ${writer.cell} does not reach cell ${reader.cell} in time; nothing was changed`,
    { nextSteps: [`look at pg_stat_subscription in cell ${reader.cell}`] },
  );
