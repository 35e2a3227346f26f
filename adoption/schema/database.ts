/**
 * Connections to an application's own database. They fix what a session may have set otherwise, so
 * that nothing a database or a role has for a default changes what our statements mean.
 */
import pg from "pg";
import { CellError } from "../../contract/errors.ts";

const connectTimeoutMs = 10_000;
export const applicationName = "cellctl schema";

export type Database = {
  readonly client: pg.Client;
  /** One more connection to the same place: to look at what the first one is waiting for. */
  readonly open: () => Promise<pg.Client>;
  readonly close: () => Promise<void>;
};

/** `url` is a secret: it stands in no message. Throws CONFIG_INVALID when nobody answers. */
export async function openDatabase(url: string): Promise<Database> {
  const opened: pg.Client[] = [];
  const open = async () => {
    const client = await connect(url);
    opened.push(client);
    return client;
  };
  return {
    client: await open(),
    open,
    close: async () => {
      // A connection that is gone already has nothing to close.
      await Promise.all(opened.map((client) => client.end().catch(() => undefined)));
    },
  };
}

async function connect(url: string): Promise<pg.Client> {
  const client = newClient(url);
  // A server that goes away is told by the query that runs, or by the next one.
  client.on("error", () => undefined);
  try {
    await client.connect();
    await client.query("set search_path = pg_catalog, pg_temp");
    await client.query("set client_min_messages = warning");
    await client.query("set statement_timeout = 0; set idle_in_transaction_session_timeout = 0");
    await client.query("set lock_timeout = 0; set session_replication_role = default").catch(
      // Only who may set it can have it set otherwise.
      () => client.query("set lock_timeout = 0"),
    );
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    const why = error instanceof Error ? error.message : String(error);
    throw new CellError("CONFIG_INVALID", `The database does not let us in: ${why}`, {
      cause: error,
      nextSteps: ["check host, port, role and password behind the reference of --database-url"],
    });
  }
}

function newClient(url: string): pg.Client {
  try {
    return new pg.Client({
      connectionString: url,
      application_name: applicationName,
      connectionTimeoutMillis: connectTimeoutMs,
      keepAlive: true,
    });
  } catch (error) {
    // The message of a parser would quote the address, password included.
    throw new CellError("CONFIG_INVALID", "What --database-url refers to is not an address", {
      cause: error,
      nextSteps: ["it looks like postgres://ROLE:PASSWORD@HOST:5432/DATABASE"],
    });
  }
}
