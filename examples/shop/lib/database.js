/** The shop's PostgreSQL: a small pool and transactions. Nothing here knows of tenants or cells. */
import pg from "pg";
import { Failure, sqlState } from "./failure.js";

const connectionsMax = 4;

export function openDatabase(url, { max = connectionsMax } = {}) {
  const pool = new pg.Pool({
    connectionString: url,
    max,
    connectionTimeoutMillis: 5000,
    idleTimeoutMillis: 30_000,
    query_timeout: 15_000,
    keepAlive: true,
    application_name: "shop",
  });
  const trouble = (error) => process.stderr.write(`database: ${error.message}\n`);
  pool.on("error", trouble);
  // A checked-out connection that breaks emits on the client itself; unheard it ends the process.
  pool.on("connect", (client) => client.on("error", trouble));

  return {
    query: (text, values) => pool.query(text, values),
    transaction: async (work) => {
      const client = await pool.connect();
      try {
        await client.query("begin");
        const result = await work(client);
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

/** A COMMIT without an answer may have happened; the caller repeats with the same Idempotency-Key. */
async function commit(client) {
  try {
    await client.query("commit");
  } catch (error) {
    if (sqlState(error) !== undefined) throw error;
    throw new Failure(503, "OUTCOME_UNKNOWN", "the database did not confirm the commit", {
      retryAfter: 1,
      cause: error,
      nextSteps: ["repeat the request with the same Idempotency-Key"],
    });
  }
}

async function abandon(client, error) {
  const healthy =
    sqlState(error) !== undefined || (error instanceof Failure && error.code !== "OUTCOME_UNKNOWN");
  if (!healthy) {
    client.release(true);
    return;
  }
  try {
    await client.query("rollback");
    client.release();
  } catch {
    client.release(true); // Died meanwhile: the server rolls back by itself.
  }
}
