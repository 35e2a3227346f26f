/**
 * The sample application's door to PostgreSQL: a small pool, and transactions that say first for
 * which placement key and epoch they speak.
 *
 * Always true here: a pool error never ends the process; a connection on which something other than
 * a plain SQL error happened is thrown away; limits are set inside each transaction, because behind
 * a transaction pooler (PgBouncer) there is no session to keep them.
 */
import pg from "pg";
import { AppError, messageOf, sqlState } from "./errors.ts";

/** The placement key and epoch that a request was forwarded under. */
export type Scope = { readonly key: string; readonly epoch: number };
/** In a transaction. What it is asked for often is prepared once per connection. */
export type Client = {
  readonly query: <Row extends pg.QueryResultRow>(
    text: string,
    values?: readonly unknown[],
  ) => Promise<pg.QueryResult<Row>>;
};

export type Database = {
  /** Commits when `work` resolves. The transaction enters every scope before `work` starts. */
  readonly transaction: <T>(
    scopes: readonly Scope[],
    work: (client: Client) => Promise<T>,
  ) => Promise<T>;
  readonly close: () => Promise<void>;
};

const connectionsMax = 5;
/** Opened at once and kept: at a standby's, the first requests are those that have waited for a takeover. */
const connectionsMin = 2;
const connectTimeoutMs = 2000;
const idleConnectionMs = 30_000;
/** The client's own limit, for a server that fell silent; longer than the server's limits below. */
const queryTimeoutMs = 8000;
const begin = [
  "begin",
  "set local statement_timeout = 5000",
  "set local lock_timeout = 3000",
  "set local idle_in_transaction_session_timeout = 10000",
].join("; ");

export function openDatabase(url: string, onTrouble: (message: string) => void): Database {
  const pool = new pg.Pool({
    connectionString: url,
    ...{ min: connectionsMin, max: connectionsMax },
    connectionTimeoutMillis: connectTimeoutMs,
    idleTimeoutMillis: idleConnectionMs,
    query_timeout: queryTimeoutMs,
    keepAlive: true,
    application_name: "cellfleet-sample",
  });
  pool.on("error", (error) => onTrouble(messageOf(error)));
  // A checked-out connection that breaks emits on the client itself; unheard it ends the process.
  pool.on("connect", (client) => client.on("error", (error) => onTrouble(messageOf(error))));
  for (let at = 0; at < connectionsMin; at += 1) {
    // Whoever needs one later opens it: the database may come up after the application.
    void pool.connect().then(
      (client) => client.release(),
      () => {},
    );
  }

  return {
    transaction: async (scopes, work) => {
      const client = await pool.connect();
      try {
        await client.query(begin);
        const asked = preparing(client);
        if (scopes.length > 0) {
          const entered = [scopes.map(({ key }) => key), scopes.map(({ epoch }) => epoch)];
          await asked.query("select cellfleet.enter_all($1, $2)", entered);
        }
        const result = await work(asked);
        await commit(client);
        client.release();
        return result;
      } catch (error) {
        await abandon(client, error);
        throw error;
      }
    },
    close: () => pool.end(),
  };
}

/**
 * By name, so that the server parses and plans a statement once per connection: the guard's conditions make
 * planning dearer than running. PgBouncer keeps names apart from 1.21 on (`max_prepared_statements`).
 */
const preparing = (client: pg.PoolClient): Client => ({
  query: (text, values) => client.query({ name: nameOf(text), text, values: [...(values ?? [])] }),
});
const names = new Map<string, string>();
function nameOf(text: string): string {
  const name = names.get(text) ?? `sample-${names.size + 1}`;
  names.set(text, name);
  return name;
}

/**
 * A COMMIT that got no answer may have happened. That is said as it is: the caller repeats with the
 * same Idempotency-Key and learns which.
 */
async function commit(client: pg.PoolClient): Promise<void> {
  try {
    await client.query("commit");
  } catch (error) {
    if (sqlState(error) !== undefined) throw error;
    throw new AppError(503, "OUTCOME_UNKNOWN", "the database did not confirm the commit", {
      retryAfterSeconds: 1,
      cause: error,
      nextSteps: ["repeat the request with the same Idempotency-Key"],
    });
  }
}

/** A prepared statement whose columns have changed since: only a new connection forgets it. */
const outdatedPlan = "0A000";

async function abandon(client: pg.PoolClient, error: unknown): Promise<void> {
  const state = sqlState(error);
  const healthy =
    (state !== undefined && state !== outdatedPlan) ||
    (error instanceof AppError && error.code !== "OUTCOME_UNKNOWN");
  if (!healthy) {
    client.release(true);
    return;
  }
  try {
    await client.query("rollback");
    client.release();
  } catch {
    // The connection died meanwhile; the server rolls back by itself when it notices.
    client.release(true);
  }
}
