/**
 * One connection to a database of the user, for a look at it or a piece of work on it.
 *
 * Always true: it is closed when the work ends, however it ends; no wait on it is without a limit;
 * neither the address nor a password of it stands in a message. What PostgreSQL refuses becomes a
 * `CellError`, because a refusal of a foreign database is an answer and no fault of ours.
 */
import { Duplex } from "node:stream";
import pg from "pg";
import { CellError } from "../contract/errors.ts";
import { resolveSecret } from "../runtime/secret-ref.ts";

export type UserDatabase = {
  /** `env:NAME`, `file:PATH`, `exec:COMMAND`, or a PostgreSQL URL as it is. */
  readonly reference: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Ends the connection when it fires. */
  readonly signal?: AbortSignal;
};

const connectMsMax = 10_000;
const urlPattern = /^postgres(ql)?:\/\//i;

/** True for a URL on the command line that holds a password: everybody on the machine can read it. */
export function exposesPassword(reference: string): boolean {
  if (!urlPattern.test(reference)) return false;
  try {
    return new URL(reference).password !== "";
  } catch {
    return false; // No URL at all: connecting says so.
  }
}

export async function withUserDatabase<T>(
  database: UserDatabase,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await openUserDatabase(database);
  const onAbort = () => sever(client);
  database.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const result = await work(client);
    await client.end();
    return result;
  } catch (error) {
    sever(client);
    throw asRefusal(error);
  } finally {
    database.signal?.removeEventListener("abort", onAbort);
  }
}

/**
 * Ends the connection without a farewell: in the middle of a COPY the server would wait for us to
 * read, and we for its last word.
 */
export function sever(client: pg.Client): void {
  const connection: unknown = Reflect.get(client, "connection");
  if (typeof connection !== "object" || connection === null) return;
  const stream: unknown = Reflect.get(connection, "stream");
  if (stream instanceof Duplex) stream.destroy();
}

/** The caller closes it. */
export async function openUserDatabase(database: UserDatabase): Promise<pg.Client> {
  const url = await resolveUrl(database);
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: connectMsMax,
    application_name: "cellctl",
  });
  client.on("error", () => {}); // Reported by the query that fails.
  try {
    await client.connect();
    return client;
  } catch (error) {
    throw unreachable(client, error);
  }
}

async function resolveUrl({ reference, env }: UserDatabase): Promise<string> {
  const url = urlPattern.test(reference) ? reference : await resolveSecret(reference, env);
  if (urlPattern.test(url) && URL.canParse(url)) return url;
  throw new CellError("CONFIG_INVALID", "What the reference to the database holds is no URL.", {
    nextSteps: ["let it hold postgres://USER:PASSWORD@HOST:5432/DATABASE"],
  });
}

function unreachable(client: pg.Client, error: unknown): CellError {
  const reason = error instanceof Error ? firstReason(error) : String(error);
  return new CellError(
    "CONFIG_INVALID",
    `The database ${client.database ?? ""} at ${client.host}:${client.port} cannot be used: ${reason}`,
    {
      cause: error,
      nextSteps: ["psql URL   (with the same URL, from this machine)"],
      ...(codeOf(error) === undefined ? {} : { details: { code: codeOf(error) } }),
    },
  );
}

/** Several addresses of one name fail together; each tells its own reason. */
function firstReason(error: Error): string {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) {
    return error.errors[0].message;
  }
  return error.message === "" ? error.name : error.message;
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** What PostgreSQL, or the connection to it, refused. Anything else stays what it is. */
export function asRefusal(error: unknown): unknown {
  if (error instanceof CellError || codeOf(error) === undefined) return error;
  const { message } = error instanceof Error ? error : { message: String(error) };
  const hint = error instanceof pg.DatabaseError && error.hint !== undefined ? [error.hint] : [];
  return new CellError(
    "CONFIG_INVALID",
    `The database refused: ${message} (${codeOf(error) ?? "no code"})`,
    { cause: error, nextSteps: hint, details: { code: codeOf(error) } },
  );
}

/**
 * One read-only transaction: also behind a pooler everything in it runs on one connection, and names
 * mean PostgreSQL's own objects, whatever the role has for a search path.
 */
export async function readOnly<T>(
  client: pg.Client,
  options: { readonly statementMsMax: number; readonly snapshot?: boolean },
  work: () => Promise<T>,
): Promise<T> {
  const level = options.snapshot === true ? "repeatable read" : "read committed";
  await client.query(`begin transaction isolation level ${level}, read only`);
  try {
    await client.query("set local search_path = pg_catalog, pg_temp");
    await client.query(`set local statement_timeout = ${options.statementMsMax}`);
    return await work();
  } finally {
    // After an error there is nothing else that could be done, and nothing was written.
    await client.query("rollback").catch(() => {});
  }
}
