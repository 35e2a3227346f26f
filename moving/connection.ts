/**
 * Connections of the role that moves, and what their failures are called.
 *
 * What must always be true: a database that cannot be reached, or lets nobody in, is
 * CELL_DATABASE_UNREACHABLE and worth trying again; every other refusal of PostgreSQL has a code that is
 * not, with PostgreSQL's own words. No wait without a limit. No password in an error or in a server's log.
 */
import pg from "pg";
import { CellError, type ErrorCode } from "../contract/errors.ts";
import type { StoreLogin } from "./ports.ts";

export type MoverOptions = {
  /** `application_name`, by which others see who it is. */
  readonly name: string;
  /** Of each statement; 0: no limit, the caller watches. Default 60 s. */
  readonly statementMsMax?: number;
  /** For each lock. Default 5 s. */
  readonly lockMsMax?: number;
  /** Speaks the replication protocol: simple statements only. */
  readonly replication?: boolean;
};

const connectMsMax = 10_000;
const statementMsMaxDefault = 60_000;
/** Above the server's own limit: only a server that does not speak at all meets it. */
const silenceMs = 10_000;
const lockMsMaxDefault = 5_000;

export async function openMover(login: StoreLogin, options: MoverOptions): Promise<pg.Client> {
  const statementMsMax = options.statementMsMax ?? statementMsMaxDefault;
  const client = new pg.Client({
    connectionString: login.url,
    application_name: options.name,
    connectionTimeoutMillis: connectMsMax,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    ...(statementMsMax === 0
      ? {}
      : { statement_timeout: statementMsMax, query_timeout: statementMsMax + silenceMs }),
    lock_timeout: options.lockMsMax ?? lockMsMaxDefault,
    ...(options.replication === true ? { replication: "database" } : {}),
  });
  client.on("error", () => {}); // The query under way, or the next one, reports it.
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => {}); // Never opened.
    throw moveErrorOf(login, error);
  }
}

export async function withMover<T>(
  login: StoreLogin,
  options: MoverOptions,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await openMover(login, options);
  try {
    return await work(client);
  } catch (error) {
    throw moveErrorOf(login, error);
  } finally {
    await client.end().catch(() => {}); // The server may have closed it.
  }
}

/** All or nothing. */
export async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query("begin");
  try {
    const result = await work();
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => {}); // The connection is gone, and the transaction with it.
    throw error;
  }
}

const unreachableStates = /^(08|28|57P|53300|3D000)/;

/** PostgreSQL's refusals by their SQLSTATE: what somebody has to mend. */
const refusals: ReadonlyArray<readonly [RegExp, ErrorCode]> = [
  // Rights; slots, senders or workers used up; wal_level.
  [/^(42501|53400|55000|0A000)$/, "DATABASE_UNFIT"],
  [/^(42P01|42703|42704|42P10|42804|22P0[34]|428C9)$/, "SCHEMA_UNFIT"],
  // A row that stands already, a row that the other schema does not take.
  [/^23/, "MOVE_STREAM_BROKEN"],
  // Locks and time.
  [/^(55P03|57014|40P01|40001|55006)$/, "MOVE_UNFIT"],
];
const isOfLocks = /^(55P03|40P01|55006)$/;
/** Who holds what somebody else waits for. */
const whoBlocks =
  "select pid, pg_blocking_pids(pid), usename, state, xact_start, query from pg_stat_activity where datname = current_database() order by xact_start";

/** What has a code already, and what was aborted, stays as it is. */
export function moveErrorOf(login: StoreLogin, error: unknown): unknown {
  if (error instanceof CellError || (error instanceof Error && error.name === "AbortError")) {
    return error;
  }
  // By its class: EPIPE, of a socket, looks just like a SQLSTATE.
  const state = error instanceof pg.DatabaseError ? error.code : undefined;
  const where = `store ${login.store} of cell ${login.cell}`;
  const said = error instanceof Error ? error.message : String(error);
  if (error instanceof TypeError) return error;
  if (state === undefined || unreachableStates.test(state)) {
    return new CellError(
      "CELL_DATABASE_UNREACHABLE",
      `The database of ${where} does not answer the mover (its reference is stores.${login.store}.mover), or does not let it in: ${said}`,
      {
        nextSteps: [`cellctl cell get ${login.cell}`],
        cause: error,
      },
    );
  }
  const code = refusals.find(([pattern]) => pattern.test(state))?.[1] ?? "OP_FAILED";
  return new CellError(code, `The database of ${where} refused (${state}): ${said}`, {
    nextSteps: isOfLocks.test(state)
      ? [`psql -c "${whoBlocks}"`]
      : ["cellctl check --database-url REF --role mover"],
    // By it the executor knows what may pass by itself.
    details: { cell: login.cell, store: login.store, sqlState: state },
    cause: error,
  });
}

/** What a URL may say that libpq knows as well; node-postgres has words of its own. */
const libpqKeywords = new Set([
  ...["host", "port", "user", "password", "dbname", "options", "channel_binding"],
  ...["sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation"],
]);

/** For a subscription of another server: keywords and values, as libpq reads them. */
export function connectionText(login: StoreLogin, name: string): string {
  const url = new URL(login.url);
  const values: Record<string, string> = {
    host: decodeURIComponent(url.hostname).replace(/^\[|\]$/g, ""),
    port: url.port === "" ? "5432" : url.port,
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    dbname: decodeURIComponent(url.pathname.slice(1)),
    connect_timeout: "10",
    keepalives_idle: "10",
    keepalives_interval: "5",
    keepalives_count: "3",
  };
  for (const [key, value] of url.searchParams) {
    if (libpqKeywords.has(key)) values[key] = value;
    else if (key === "ssl" && value === "true") values["sslmode"] = "require";
  }
  values["application_name"] = name;
  // A policy that hides rows from the mover must stop the stream, not thin it out.
  values["options"] = [values["options"], "-crow_security=off"].filter(Boolean).join(" ");
  return Object.entries(values)
    .map(([key, value]) => `${key}='${value.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`)
    .join(" ");
}
