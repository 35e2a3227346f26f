/**
 * The control plane's own PostgreSQL: one pool, migrations under an advisory lock, transactions.
 *
 * A server that dies ends queries, never this process: every client and the pool have an error
 * handler. A transaction that lost a deadlock or a serialization race is run again, so `work` must
 * do nothing but talk to the database. Lock order everywhere: `fleet` row, cell rows, tenant rows,
 * and the event lock last.
 */
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import pg from "pg";
import { must } from "../../runtime/assert.ts";
import { letPrepare } from "../../runtime/preparing.ts";
import type { Random } from "../../runtime/random.ts";
import { bootstrapFleet } from "./bootstrap.ts";

type Drizzle = NodePgDatabase;
export type Tx = Parameters<Parameters<Drizzle["transaction"]>[0]>[0];
/** Reads may go to the pool or to a transaction. */
export type Reader = Drizzle | Tx;

export type Database = {
  /** For what drizzle does not do: COPY, LISTEN. A client taken from it must be released. */
  readonly pool: pg.Pool;
  /** Single statements outside a transaction. */
  readonly read: Drizzle;
  readonly transaction: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>;
  /** One consistent view for several reads (REPEATABLE READ, READ ONLY). */
  readonly snapshot: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>;
  readonly close: () => Promise<void>;
};

export type DatabaseOptions = {
  readonly url: string;
  /** Connections at most. Default 10. */
  readonly connectionsMax?: number;
  /** Told of every connection that broke while idle. */
  readonly onConnectionError: (error: Error) => void;
};

/** One arbitrary number per purpose, for `pg_advisory_lock`. */
export const advisoryLocks = { migrate: 727_001, event: 727_002 } as const;

const int8 = 20;
const transactionAttemptsMax = 4;
/** A statement of the control plane that takes longer is a fault; an import raises it for itself. */
const statementTimeoutMs = 30_000;

export function openDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.connectionsMax ?? 10,
    connectionTimeoutMillis: 5000,
    idleTimeoutMillis: 60_000,
    application_name: "cellfleet-control-plane",
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: 30_000,
    keepAlive: true,
    types: {
      // Every bigint of this schema is below 2^53, so a number is exact. For plain `pool` queries:
      // drizzle's own know their columns.
      getTypeParser: (oid, format) => {
        if (oid === int8) return Number;
        return format === "binary"
          ? pg.types.getTypeParser(oid, "binary")
          : pg.types.getTypeParser(oid, "text");
      },
    },
  });
  pool.on("error", options.onConnectionError);
  pool.on("connect", (client) => {
    client.on("error", options.onConnectionError);
    letPrepare(client);
  });
  const read = drizzle(pool);

  return {
    pool,
    read,
    transaction: (work) => withRetry(() => read.transaction(work)),
    snapshot: (work) =>
      read.transaction(work, { isolationLevel: "repeatable read", accessMode: "read only" }),
    close: () => pool.end(),
  };
}

/** Brings the schema up to date and mints the fleet, whoever of several control planes comes first. */
export async function prepareDatabase(database: Database, random: Random): Promise<void> {
  const guard = await database.pool.connect();
  try {
    // Drizzle's migrator is not safe to run concurrently; the lock goes with this session.
    await guard.query("set statement_timeout = 0");
    await guard.query("select pg_advisory_lock($1)", [advisoryLocks.migrate]);
    await migrate(database.read, {
      migrationsFolder: join(import.meta.dirname, "migrations"),
      migrationsSchema: "cellfleet_control",
      migrationsTable: "migration",
    });
    await database.transaction((tx) => bootstrapFleet(tx, random));
  } finally {
    // Ends the session and with it the lock, also when the migration threw.
    guard.release(true);
  }
}

/** The SQLSTATE behind an error, through drizzle's wrapper; undefined when it was not PostgreSQL's. */
export function sqlStateOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string" && /^[0-9A-Z]{5}$/.test(error.code)) {
    return error.code;
  }
  return sqlStateOf(error.cause);
}

const raceStates: ReadonlySet<string> = new Set(["40001", "40P01"]);

async function withRetry<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await run();
    } catch (error) {
      if (attempt >= transactionAttemptsMax || !raceStates.has(sqlStateOf(error) ?? "")) {
        throw error;
      }
    }
  }
}

/** The database's clock, in milliseconds: what leases and deadlines of the control plane are measured by. */
export async function databaseNowMs(reader: Reader): Promise<number> {
  const { rows } = await reader.execute<{ ms: number }>(
    // Not bigint: drizzle brings its own type parsers, and gives that as text.
    sql`select floor(extract(epoch from clock_timestamp()) * 1000)::float8 as ms`,
  );
  return must(rows[0], "the database's clock").ms;
}

const busyMsMax = 1000;

/**
 * Work that will be done again soon anyway: given up when its locks are not free within a second (an
 * import holds the fleet's for longer), so that a cell's call is answered in time. Undefined then.
 */
export async function unlessBusy<T>(
  database: Database,
  work: (tx: Tx) => Promise<T>,
): Promise<T | undefined> {
  try {
    return await database.transaction(async (tx) => {
      await tx.execute(sql.raw(`set local lock_timeout = ${busyMsMax}`));
      return work(tx);
    });
  } catch (error) {
    if (sqlStateOf(error) === lockNotAvailable) return undefined;
    throw error;
  }
}

const lockNotAvailable = "55P03";
