/** `cellctl tenant export`: every row of a tenant, into one file, asked of the control plane first. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { tenantExportSchema } from "../../contract/adoption-api.ts";
import { cellSchema } from "../../contract/control-api.ts";
import { type ExportSummary, loadExport, loadManifest, noteExposedPassword } from "../adoption.ts";
import { apiPath } from "../api.ts";
import { databasesOf, storeReference } from "../database-reference.ts";
import { CliError, usage } from "../failures.ts";
import { type Options, text } from "../grammar.ts";
import { sendChange } from "../mutate.ts";
import type { View } from "../render/output.ts";
import { bytes, counted } from "../render/units.ts";
import type { Session } from "../session.ts";

const formats = ["ndjson", "csv-dir"] as const;
type Format = (typeof formats)[number];
const isFormat = (raw: string): raw is Format => (formats as readonly string[]).includes(raw);

export const exportCommand = (noun: Command): Command =>
  noun
    .command("export <tenant>")
    .description("every row of a tenant from every table, in one consistent file")
    .requiredOption("-O, --output-file <file>", "the file (csv-dir: the folder); must not exist")
    .option("--format <format>", "ndjson (default) or csv-dir")
    .option("--keyspace <keyspace>", "in this keyspace (default: default)")
    .option("--database-url <reference>", "env:, file: or exec: (default: the cell's)")
    .option("--store <name>", "only this one of the cell's databases")
    .option("--manifest <file>", "tables that are not guarded yet, by cellfleet.schema.yaml")
    .option("--reason <text>", "why; goes to the audit log")
    .option("--idempotency-key <key>", "repeat a request without doing it twice")
    .addHelpText(
      "after",
      "\nThe role of the database URL has to see every row: the tables' owner, or the application's role.",
    );

const view: View<ExportSummary> = {
  id: ({ file }) => file,
  columns: [{ head: "ROWS", cell: ({ rows }) => String(rows) }],
  details: (summary) => [
    ["file", summary.file],
    [
      "from",
      `${summary.cell}, epoch ${summary.epoch}, schema ${summary.schemaVersion || "not recorded"}`,
    ],
    ["rows", summary.tables.map(({ store, table, rows }) => `${rows}  ${table}  (store ${store})`)],
    ["size", bytes(summary.bytes)],
    ["sha256", summary.sha256],
  ],
};

export async function exportTenantRows(
  session: Session,
  id: string,
  options: Options,
): Promise<number> {
  const format = text(options, "format") ?? "ndjson";
  if (!isFormat(format)) throw usage(`--format "${format}": must be one of ${formats.join(", ")}`);
  const manifestFile = text(options, "manifest");
  const manifest =
    manifestFile === undefined
      ? undefined
      : await (await loadManifest()).readManifest(resolve(session.io.cwd, manifestFile));
  const keyspace = text(options, "keyspace");
  const where = await sendChange(
    session,
    options,
    {
      path: apiPath`/v1/tenants/${id}/export`,
      body: keyspace === undefined ? {} : { keyspace },
    },
    tenantExportSchema,
  );
  const api = await session.api();
  const { schemaVersion } = await api.get(apiPath`/v1/cells/${where.cell}`, cellSchema);
  const stores = storesOf(session, { ...where, stores: databasesOf(where.stores) }, options);
  for (const { database } of stores) await noteExposedPassword(session, database.reference);
  const { exportTenant } = await loadExport();
  const summary = await exportTenant({
    ...where,
    schemaVersion,
    stores,
    manifest,
    format,
    path: resolve(session.io.cwd, text(options, "outputFile") ?? ""),
    random: session.io.random,
    signal: session.interrupted(),
    onProgress: (line) => session.progress.now(line),
  }).catch((error: unknown) => {
    throw session.interrupted().aborted
      ? new CliError("DETACHED", "interrupted; no file was written", {
          nextSteps: [`cellctl tenant export ${id} --output-file FILE`],
        })
      : error;
  });
  await session.progress.clear();
  await session.out.one(summary, view);
  await session.note(`${counted(summary.rows, "row")}: the file holds personal data, keep it so.`);
  return 0;
}

type Where = {
  readonly cell: string;
  readonly stores: Readonly<Record<string, { database: string }>>;
};

/** All of the cell's databases, or one that was named: half of a tenant must be asked for by name. */
function storesOf(session: Session, { cell, stores }: Where, options: Options) {
  const reference = text(options, "databaseUrl");
  const only = text(options, "store");
  const names = Object.keys(stores);
  const database = (of: string) => ({
    reference: of,
    env: session.io.env,
    signal: session.interrupted(),
  });
  if (reference !== undefined) {
    if (only === undefined && names.length > 1) {
      throw usage(`${cell} has several stores: say which one --database-url is, by --store NAME`);
    }
    return [{ name: only ?? names[0] ?? "default", database: database(reference) }];
  }
  if (only !== undefined || names.length === 0) {
    const found = storeReference(cell, stores, only);
    return [{ name: only ?? "default", database: database(found) }];
  }
  return names.map((name) => ({ name, database: database(storeReference(cell, stores, name)) }));
}
