/**
 * `tenant import --from-query`: the tenants that a running application knows already, as lines of an
 * import. Each row becomes one line, also a bad one, so that line 7 of the answer is row 7 here: the
 * control plane judges the values, by the rules of every other import.
 *
 * Always true: the query runs in a read-only transaction, as a cursor, so that it can change nothing
 * and a million rows never stand in memory at once.
 */
import type pg from "pg";
import { CellError } from "../contract/errors.ts";
import { asRefusal, openUserDatabase, sever, type UserDatabase } from "./connection.ts";

export type TenantQuery = {
  readonly database: UserDatabase;
  /** One SELECT. The column `id`, else the first one, is the tenant's id. */
  readonly sql: string;
  readonly cell: string;
  readonly keyspace: string | undefined;
};

const rowsPerFetch = 2000;
/** A query that has not begun to answer by then is not one for a running application's database. */
const statementMsMax = 300_000;

const texts = ["keyspace", "tier", "region"] as const;
const numbers = ["bytes", "rps"] as const;
const labelPrefix = "label.";

/** What a query's columns mean, for the help of the command. */
export const queryColumns = ["id", ...texts, ...numbers] as const;

type Row = Readonly<Record<string, string | null>>;

/** Lines of NDJSON, many to a chunk. Throws CONFIG_INVALID with what PostgreSQL says. */
export async function* tenantsFromQuery(query: TenantQuery): AsyncGenerator<string, void> {
  const client = await openUserDatabase(query.database);
  const onAbort = () => sever(client);
  query.database.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await client.query("begin transaction isolation level repeatable read, read only");
    await client.query(`set local statement_timeout = ${statementMsMax}`);
    await declare(client, query.sql);
    for (;;) {
      const { rows, fields } = await fetch(client);
      if (rows.length === 0) return;
      const columns = fields.map(({ name }) => name);
      yield rows.map((row) => `${JSON.stringify(toTenant(row, columns, query))}\n`).join("");
    }
  } catch (error) {
    throw inWordsOfTheQuery(error);
  } finally {
    query.database.signal?.removeEventListener("abort", onAbort);
    await client.end().catch(() => {}); // Closed by the signal, or by the server.
  }
}

/** The extended protocol takes one statement: a second one behind a semicolon is refused. */
async function declare(client: pg.Client, sql: string): Promise<void> {
  const one = sql.trim().replace(/;\s*$/, "");
  const config: pg.QueryConfig & { readonly queryMode: "extended" } = {
    text: `declare cellctl_tenants no scroll cursor without hold for ${one}`,
    queryMode: "extended",
  };
  await client.query(config);
}

/** Every value as PostgreSQL writes it: a bigint id must not become a rounded number. */
const asText = { getTypeParser: () => (value: string) => value };

const fetch = (client: pg.Client): Promise<pg.QueryResult<Row>> =>
  client.query<Row>({ text: `fetch ${rowsPerFetch} from cellctl_tenants`, types: asText });

function toTenant(row: Row, columns: readonly string[], query: TenantQuery): unknown {
  const id = columns.includes("id") ? row["id"] : row[columns[0] ?? ""];
  const tenant: Record<string, unknown> = { id: id ?? undefined };
  if (query.keyspace !== undefined) tenant["keyspace"] = query.keyspace;
  for (const name of texts) if (hasValue(row, name)) tenant[name] = row[name];
  const size: Record<string, unknown> = {};
  for (const name of numbers) if (hasValue(row, name)) size[name] = numberOrText(row[name] ?? "");
  const labels = columns
    .filter((name) => name.startsWith(labelPrefix) && hasValue(row, name))
    .map((name) => [name.slice(labelPrefix.length), row[name]]);
  return { ...tenant, cell: query.cell, size, labels: Object.fromEntries(labels) };
}

const hasValue = (row: Row, name: string): boolean =>
  row[name] !== undefined && row[name] !== null && row[name] !== "";

/** What is no number stays text, so that the control plane says what is wrong with it. */
const numberOrText = (value: string): number | string =>
  /^\d+(\.\d+)?$/.test(value) ? Number(value) : value;

function inWordsOfTheQuery(error: unknown): unknown {
  const refusal = asRefusal(error);
  if (!(refusal instanceof CellError) || refusal.details["code"] === undefined) return refusal;
  return new CellError(refusal.code, refusal.message, {
    cause: error,
    details: refusal.details,
    nextSteps: [
      ...refusal.nextSteps,
      "give one SELECT, such as --from-query 'select id, plan as tier from accounts'",
    ],
  });
}
