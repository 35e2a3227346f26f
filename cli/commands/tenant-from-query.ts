/**
 * `cellctl tenant import --from-query`: places the tenants that an adopted application's own database
 * knows. The lines go through the import that files go through; only where they come from differs.
 */
import { Readable } from "node:stream";
import type { Command } from "commander";
import { cellSchema } from "../../contract/control-api.ts";
import { loadTenantQuery, noteExposedPassword } from "../adoption.ts";
import { apiPath } from "../api.ts";
import { databasesOf, storeReference } from "../database-reference.ts";
import { usage } from "../failures.ts";
import { type Options, text } from "../grammar.ts";
import type { Session } from "../session.ts";

export const fromQueryOptions = (command: Command): Command =>
  command
    .option(
      "--from-query <sql>",
      "instead of a file: one SELECT; column id, or the first, is the id",
    )
    .option("--cell <cell>", "with --from-query: where these tenants live")
    .option("--keyspace <keyspace>", "with --from-query: their keyspace (default: default)")
    .option(
      "--database-url <reference>",
      "with --from-query: env:, file: or exec: (default: the cell's)",
    )
    .option("--store <name>", "with --from-query: which of the cell's databases");

export const fromQueryHelp = `
With --from-query each row is a line: columns id, keyspace, tier, region, bytes, rps and "label.NAME";
others are not looked at. The query can change nothing:

  cellctl tenant import --cell cell-01 --from-query 'select id, plan as tier from accounts'`;

/** True when the tenants come from a query; throws where file and query are mixed. */
export function isFromQuery(file: string | undefined, options: Options): boolean {
  if (text(options, "fromQuery") !== undefined) {
    if (file !== undefined) throw usage("a file or --from-query, not both");
    return true;
  }
  if (file === undefined) throw usage("name a file (- for standard input) or --from-query");
  const belonging = ["cell", "databaseUrl", "store", "keyspace"];
  if (belonging.some((name) => text(options, name) !== undefined)) {
    throw usage("--cell, --keyspace, --store and --database-url go with --from-query");
  }
  return false;
}

export async function importFromQuery(session: Session, options: Options): Promise<number> {
  const cell = text(options, "cell");
  if (cell === undefined)
    throw usage("--from-query needs --cell: the cell where these tenants live");
  // Before any database is asked: a cell that is not known is what has to be said first.
  const stores = await storesOf(session, cell);
  const reference =
    text(options, "databaseUrl") ?? storeReference(cell, stores, text(options, "store"));
  await noteExposedPassword(session, reference);
  const { tenantsFromQuery } = await loadTenantQuery();
  const lines = tenantsFromQuery({
    database: { reference, env: session.io.env, signal: session.interrupted() },
    sql: text(options, "fromQuery") ?? "",
    cell,
    keyspace: text(options, "keyspace"),
  });
  const { importSource } = await import("../import-tenants.ts");
  const stream = Readable.from(lines, { objectMode: false });
  try {
    return await importSource(
      session,
      { stream, name: "the query", size: undefined },
      "ndjson",
      options,
    );
  } finally {
    stream.destroy(); // The control plane may have refused before the last row was read.
  }
}

/** Throws CELL_UNKNOWN. */
async function storesOf(session: Session, cell: string) {
  const api = await session.api();
  return databasesOf((await api.get(apiPath`/v1/cells/${cell}`, cellSchema)).stores);
}
