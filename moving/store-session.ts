/**
 * One connection to a store's database for one piece of work: looking, comparing, holding still.
 *
 * Always true: who asked may stop it. When the signal aborts, the connection is closed, and the server stops
 * what it was doing for it, so that no comparison goes on that nobody waits for. Failures to reach the
 * database, at the start or on the way, are CELL_DATABASE_UNREACHABLE.
 */
import pg from "pg";
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import { moveErrorOf } from "./connection.ts";
import type { StoreLogin } from "./ports.ts";

export type StoreSession = Queryable & {
  readonly login: StoreLogin;
  readonly close: () => Promise<void>;
};

const connectMsMax = 5000;
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
): Promise<StoreSession> {
  signal?.throwIfAborted();
  const client = newClient(login, purpose);
  const stop = () => void client.end().catch(() => {}); // It is being thrown away.
  try {
    await client.connect();
    await client.query(noticeGoneClients);
  } catch (error) {
    await client.end().catch(() => {}); // Never opened.
    throw unreachable(login, error);
  }
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  return {
    login,
    query: async <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) => {
      try {
        return await client.query<Row>(text, values);
      } catch (error) {
        signal?.throwIfAborted();
        throw isUnreachable(error) ? unreachable(login, error) : error;
      }
    },
    close: async () => {
      signal?.removeEventListener("abort", stop);
      await client.end().catch(() => {}); // The server may have closed it.
    },
  };
}

function newClient(login: StoreLogin, purpose: string): pg.Client {
  const client = new pg.Client({
    connectionString: login.url,
    application_name: `cellfleet ${purpose}`,
    connectionTimeoutMillis: connectMsMax,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  });
  client.on("error", () => {}); // Reported by the query that fails.
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
