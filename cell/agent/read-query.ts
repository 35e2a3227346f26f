/**
 * One read-only question to the cell's database, as a login of its own.
 *
 * Always true: the operator's text is one statement, and one that only reads: it is the body of a
 * cursor, sent by the protocol that takes a single statement, inside a transaction that cannot write.
 * The login's own rights are the fence behind that. Rows, bytes and time are bounded; what is cut is
 * said to be cut. Whatever the text did to its session ends with the session, and the session ends
 * with the question: one that does not go by itself is ended from a second connection.
 */
import { Socket } from "node:net";
import pg from "pg";
import type { AgentSyncResponse, QueryAnswer } from "../../contract/cell-protocol.ts";
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import { sqlStateOf } from "../store/queryable.ts";

export type Question = NonNullable<AgentSyncResponse["queries"]>[number];
export type Answer = QueryAnswer["answer"];

/** Of the answer's rows as JSON: what a control plane takes in one body. */
export const answerBytesMax = 8 * 1024 * 1024;
/** A single row of PostgreSQL may have a gigabyte: the connection is cut before this process suffers. */
const receivedBytesMax = 64 * 1024 * 1024;
const watchMs = 20;
const batchRows = 100;
const connectMs = 3000;
const messageMax = 2000;
/** How often the server looks whether the client of a running statement is still there. */
const checkMs = 1000;
const endTries = 10;
const endPauseMs = 100;

/** `stop` ends it early. Never rejects. */
export async function runQuestion(
  question: Question,
  url: string,
  clock: Clock,
  stop: AbortSignal = new AbortController().signal,
): Promise<Answer> {
  const socket = new Socket();
  let client: pg.Client | undefined;
  let session: Session | undefined;
  let cut: string | undefined;
  const watch = startWatch({ clock, socket, timeoutMs: question.timeoutMs, stop }, (reason) => {
    cut = reason;
  });
  try {
    client = createReader(url, socket, question.timeoutMs);
    await client.connect();
    session = await openSession(client);
    return await read(client, question);
  } catch (error) {
    return cut === undefined ? failure(error) : failed("CUT_OFF", cut);
  } finally {
    watch();
    // It may be broken already, and nothing in it is to be kept.
    await client?.end().catch(() => {});
    if (cut !== undefined && session !== undefined) await endSession(session, url, clock);
  }
}

/** The backend, and when it began: numbers are used again. */
type Session = { readonly pid: string; readonly since: string };

async function openSession(client: pg.Client): Promise<Session> {
  // The server then looks itself whether anybody still waits. Not every system of a server can.
  await client.query(`set client_connection_check_interval = ${checkMs}`).catch(() => {});
  const { rows } = await client.query<Session>(
    "select pid::text as pid, backend_start::text as since from pg_stat_activity where pid = pg_backend_pid()",
  );
  return must(rows[0], "the session's own backend");
}

/**
 * The text may have taken away its own time limit, and a backend that sleeps does not notice that its
 * client is gone: it would hold its locks, and back vacuum, for ever. The same login may end it.
 */
async function endSession({ pid, since }: Session, url: string, clock: Clock): Promise<void> {
  const socket = new Socket();
  const late = clock.after(2 * connectMs, () => socket.destroy());
  const client = createReader(url, socket, connectMs);
  try {
    await client.connect();
    // A second is for a backend that goes by itself; the answer says whether it is gone.
    for (let tries = 0; tries < endTries; tries += 1) {
      const { rowCount } = await client.query({
        text: "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1::int and backend_start = $2::timestamptz",
        values: [pid, since],
      });
      if (rowCount === 0) break;
      await clock.sleep(endPauseMs);
    }
  } catch {
    // The database is out of reach; the check of the connection above is what is left.
  } finally {
    late.cancel();
    await client.end().catch(() => {});
  }
}

function createReader(url: string, socket: Socket, timeoutMs: number): pg.Client {
  const client = new pg.Client({
    connectionString: url,
    stream: () => socket,
    connectionTimeoutMillis: Math.min(connectMs, timeoutMs),
    application_name: "cellfleet-query",
    // As PostgreSQL writes them: the control plane passes on what it does not understand.
    types: { getTypeParser: () => (value: string) => value },
  });
  // Every failure reaches the caller through the call that it interrupts.
  client.on("error", () => {});
  return client;
}

async function read(client: pg.Client, question: Question): Promise<Answer> {
  await client.query("begin transaction isolation level repeatable read read only");
  const limit = `set local statement_timeout = ${question.timeoutMs}`;
  await client.query(limit);
  // A name makes it a prepared statement, and that is one statement or an error.
  await client.query({
    name: "question",
    text: `declare question no scroll cursor for ${question.sql}`,
  });
  const rows: Array<Array<string | null>> = [];
  let columns: string[] = [];
  let bytes = 0;
  for (;;) {
    // The text may have changed it in the batch before.
    await client.query(limit);
    const asked = Math.min(batchRows, question.rowsMax + 1 - rows.length);
    const batch = await client.query<Array<string | null>>({
      text: `fetch ${asked} from question`,
      rowMode: "array",
    });
    columns = batch.fields.map((field) => field.name);
    for (const row of batch.rows) {
      bytes += Buffer.byteLength(JSON.stringify(row));
      if (rows.length >= question.rowsMax || bytes > answerBytesMax) {
        return { kind: "rows", columns, rows, truncated: true };
      }
      rows.push(row);
    }
    if (batch.rows.length < asked) return { kind: "rows", columns, rows, truncated: false };
  }
}

/** Returns how to stop watching. */
function startWatch(
  known: {
    readonly clock: Clock;
    readonly socket: Socket;
    readonly timeoutMs: number;
    readonly stop: AbortSignal;
  },
  onCut: (reason: string) => void,
): () => void {
  const { clock, socket, timeoutMs, stop } = known;
  const cut = (reason: string) => {
    onCut(reason);
    socket.destroy(new Error(reason));
  };
  const late = clock.after(timeoutMs, () => cut(`there was no answer within ${timeoutMs} ms`));
  let timer = clock.after(watchMs, look);
  function look(): void {
    if (socket.bytesRead > receivedBytesMax) {
      cut(`a row is too large: more than ${receivedBytesMax} bytes came for one batch`);
    } else timer = clock.after(watchMs, look);
  }
  const onStop = () => cut("the agent is stopping");
  stop.addEventListener("abort", onStop, { once: true });
  return () => {
    stop.removeEventListener("abort", onStop);
    late.cancel();
    timer.cancel();
  };
}

function failure(error: unknown): Answer {
  const state = sqlStateOf(error) ?? "";
  const text = String(errorFields(error)["error"]);
  // Errors of the network have codes too, of other lengths.
  return failed(/^[0-9A-Z]{5}$/.test(state) ? state : "UNREACHABLE", text);
}

export const failed = (code: string, message: string): Answer => ({
  kind: "error",
  code: code.slice(0, 40),
  message: message.slice(0, messageMax),
});
