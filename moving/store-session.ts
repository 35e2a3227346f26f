/**
 * One connection to a store's database for one piece of work: looking, comparing, holding still.
 *
 * Always true: who asked may stop it. When the signal aborts, the connection is closed, and the server stops
 * what it was doing for it, so that no comparison goes on that nobody waits for. Failures to reach the
 * database, at the start or on the way, are CELL_DATABASE_UNREACHABLE. Closing waits for nobody for long:
 * a server that stands still does not answer a farewell either.
 */

import { Socket } from "node:net";
import pg from "pg";
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import { letPrepare } from "../runtime/preparing.ts";
import { moveErrorOf } from "./connection.ts";
import type { StoreLogin } from "./ports.ts";

export type StoreSession = Queryable & {
  readonly login: StoreLogin;
  /** From here on an answer may take as long as it takes. */
  readonly takeTime: () => void;
  readonly close: () => Promise<void>;
};

const connectMsMax = 5000;
const farewellMsMax = 500;
/**
 * Else the server goes on with a statement whose client is gone, until it has something to say. There are
 * systems on which it cannot know: then the statement ends by its own limits.
 */
export const noticeGoneClients = `do $$ begin
    perform set_config('client_connection_check_interval', '1s', false);
  exception when others then null;
  end $$`;
/** Classes: connection, authorization, too many connections and the like, operator intervention. */
const unreachableClasses = ["08", "28", "53", "57"];
/** A statement that was cancelled or ran out of time says nothing of the database. */
const queryCanceled = "57014";

export async function openStoreSession(
  login: StoreLogin,
  purpose: string,
  signal?: AbortSignal,
  /** A database that does not answer within this does not answer. Undefined: it is waited for. */
  answerMsMax?: number,
): Promise<StoreSession> {
  signal?.throwIfAborted();
  const socket = new Socket();
  const client = newClient(login, purpose, socket, answerMsMax);
  let limitMs = answerMsMax;
  const ask = <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) =>
    client.query<Row>(limited(text, limitMs), values);
  const end = async () => {
    socket.setTimeout(farewellMsMax, () => socket.destroy());
    await client.end().catch(() => {}); // The server may have closed it.
    socket.destroy();
  };
  const stop = () => void end(); // It is being thrown away.
  try {
    await client.connect();
    await ask(noticeGoneClients);
  } catch (error) {
    await end(); // Never opened.
    throw unreachable(login, error);
  }
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  return {
    login,
    query: async <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) => {
      try {
        return await ask<Row>(text, values);
      } catch (error) {
        signal?.throwIfAborted();
        throw isUnreachable(error) ? unreachable(login, error) : error;
      }
    },
    takeTime: () => {
      limitMs = undefined;
    },
    close: async () => {
      signal?.removeEventListener("abort", stop);
      await end();
    },
  };
}

/** node-postgres knows a limit of one question as well, though its types do not. */
const limited = (text: string, limitMs: number | undefined): pg.QueryConfig => {
  const asked: pg.QueryConfig & { readonly query_timeout?: number } = {
    text,
    ...(limitMs === undefined ? {} : { query_timeout: limitMs }),
  };
  return asked;
};

function newClient(
  login: StoreLogin,
  purpose: string,
  socket: Socket,
  answerMsMax: number | undefined,
): pg.Client {
  const client = new pg.Client({
    connectionString: login.url,
    application_name: `cellfleet ${purpose}`,
    connectionTimeoutMillis: Math.min(connectMsMax, answerMsMax ?? connectMsMax),
    stream: () => socket,
    // What nobody waits for any more is not to be done later.
    ...(answerMsMax === undefined ? {} : { statement_timeout: answerMsMax }),
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  });
  client.on("error", () => {}); // Reported by the query that fails.
  letPrepare(client);
  return client;
}

export function isUnreachable(error: unknown): boolean {
  // Not the server that speaks: it is the connection that failed. By its class, for EPIPE, of a socket,
  // looks just like a SQLSTATE.
  const state = error instanceof pg.DatabaseError ? error.code : undefined;
  if (state === queryCanceled) return false;
  return state === undefined || unreachableClasses.includes(state.slice(0, 2));
}

const unreachable = (login: StoreLogin, cause: unknown): CellError =>
  new CellError(
    "CELL_DATABASE_UNREACHABLE",
    `The database of store ${login.store} in cell ${login.cell} does not answer the mover: ${cause instanceof Error ? cause.message : String(cause)}`,
    {
      cause,
      nextSteps: [
        `cellctl cell get ${login.cell}`,
        `check the reference stores.${login.store}.mover of the cell`,
      ],
    },
  );

/** What PostgreSQL itself has refused, with a code of ours; anything else as it is. */
export const refusalOf = (login: StoreLogin, error: unknown): unknown =>
  error instanceof pg.DatabaseError ? moveErrorOf(login, error) : error;
