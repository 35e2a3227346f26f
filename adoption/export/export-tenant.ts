/**
 * `cellctl tenant export`: every row of one tenant, from every table of tenants of every database of
 * its cell, into one file or folder.
 *
 * Always true: each database is read in one REPEATABLE READ snapshot, which also proves that the cell
 * owns the tenant; counts and a sum are written behind the rows, so that a file that was cut short or
 * changed can be told; and the file has its name only when it is whole.
 */
import type pg from "pg";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { Random } from "../../runtime/random.ts";
import { type UserDatabase, withUserDatabase } from "../connection.ts";
import { copyCsv, copyJson } from "./copy-out.ts";
import { openSummed, type SummedFile, writeWhole } from "./export-file.ts";
import { requireOwnership } from "./ownership.ts";
import { type ExportTable, findTables } from "./tables.ts";

export const exportFormats = ["ndjson", "csv-dir"] as const;
export type ExportFormat = (typeof exportFormats)[number];

export type ExportRequest = {
  readonly tenant: string;
  readonly keyspace: string;
  readonly key: string;
  readonly cell: string;
  readonly epoch: number;
  readonly schemaVersion: string;
  /** By the names of the cell's stores. */
  readonly stores: readonly { readonly name: string; readonly database: UserDatabase }[];
  readonly manifest: Manifest | undefined;
  readonly format: ExportFormat;
  readonly path: string;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => Promise<void>;
};

export type ExportedTable = {
  readonly store: string;
  readonly table: string;
  readonly rows: number;
};
/** When the snapshot of a store was taken, by its own clock. */
export type ExportSnapshot = { readonly store: string; readonly at: string };
export type ExportSummary = {
  readonly id: string;
  readonly keyspace: string;
  readonly cell: string;
  readonly epoch: number;
  readonly schemaVersion: string;
  readonly format: ExportFormat;
  readonly file: string;
  readonly snapshots: readonly ExportSnapshot[];
  readonly tables: readonly ExportedTable[];
  readonly rows: number;
  readonly bytes: number;
  /** Of all bytes before the last line (`csv-dir`: of `export.json` up to its own sums). */
  readonly sha256: string;
};

const formatVersion = 1;

export function exportTenant(request: ExportRequest): Promise<ExportSummary> {
  const target = {
    path: request.path,
    folder: request.format === "csv-dir",
    mark: request.random.hex(4),
  };
  return writeWhole(target, (path) =>
    request.format === "csv-dir" ? writeCsvFolder(request, path) : writeNdjson(request, path),
  );
}

async function writeNdjson(request: ExportRequest, path: string): Promise<ExportSummary> {
  const file = await openSummed(path);
  try {
    await file.write(`${JSON.stringify({ export: headOf(request) })}\n`);
    const copied = await overTables(request, async (client, store, table) => {
      const prefix = `{"store":${JSON.stringify(store)},"table":${JSON.stringify(table.name)},"row":`;
      let rows = 0;
      for await (const part of copyJson(client, table, { prefix, suffix: "}" })) {
        request.signal.throwIfAborted();
        rows += part.rows;
        await file.write(part.bytes);
        await request.onProgress(`${table.name}: ${rows} copied`);
      }
      return rows;
    });
    const summary = summaryOf(request, copied, file);
    const { bytes, rows, sha256 } = summary;
    await file.write(`${JSON.stringify({ end: { ...copied, rows, bytes, sha256 } })}\n`);
    return summary;
  } finally {
    await file.close();
  }
}

async function writeCsvFolder(request: ExportRequest, path: string): Promise<ExportSummary> {
  const files: { readonly file: string; readonly bytes: number; readonly sha256: string }[] = [];
  const copied = await overTables(request, async (client, store, table) => {
    // A slash in a name of PostgreSQL's must not lead out of the folder.
    const name = `${[store, table.name].map(encodeURIComponent).join(".")}.csv`;
    const file = await openSummed(`${path}/${name}`);
    let rows = 0;
    try {
      for await (const part of copyCsv(client, table)) {
        request.signal.throwIfAborted();
        rows += part.rows;
        await file.write(part.bytes);
        await request.onProgress(`${table.name}  ${file.bytes()} bytes`);
      }
    } finally {
      await file.close();
    }
    files.push({ file: name, bytes: file.bytes(), sha256: file.sha256() });
    return rows;
  });
  const index = await openSummed(`${path}/export.json`);
  try {
    await index.write(`${JSON.stringify({ export: headOf(request), ...copied, files })}\n`);
    const summary = summaryOf(request, copied, index);
    await index.write(`${JSON.stringify({ end: { sha256: summary.sha256 } })}\n`);
    const bytes = files.reduce((sum, file) => sum + file.bytes, summary.bytes);
    return { ...summary, bytes };
  } finally {
    await index.close();
  }
}

const headOf = (request: ExportRequest) => ({
  version: formatVersion,
  tenant: request.tenant,
  keyspace: request.keyspace,
  key: request.key,
  cell: request.cell,
  epoch: request.epoch,
  schema_version: request.schemaVersion,
  stores: request.stores.map(({ name }) => name),
});

function summaryOf(
  request: ExportRequest,
  { snapshots, tables }: Copied,
  file: SummedFile,
): ExportSummary {
  return {
    id: request.tenant,
    keyspace: request.keyspace,
    cell: request.cell,
    epoch: request.epoch,
    schemaVersion: request.schemaVersion,
    format: request.format,
    file: request.path,
    snapshots,
    tables,
    rows: tables.reduce((sum, { rows }) => sum + rows, 0),
    bytes: file.bytes(),
    sha256: file.sha256(),
  };
}

type Copy = (client: pg.Client, store: string, table: ExportTable) => Promise<number>;

type Copied = {
  readonly snapshots: readonly ExportSnapshot[];
  readonly tables: readonly ExportedTable[];
};

/** Database after database, each in a snapshot of its own. */
async function overTables(request: ExportRequest, copy: Copy): Promise<Copied> {
  const snapshots: ExportSnapshot[] = [];
  const tables: ExportedTable[] = [];
  for (const store of request.stores) {
    await withUserDatabase(store.database, async (client) => {
      const begun = await beginSnapshot(client, request);
      snapshots.push({ store: store.name, at: begun.at });
      for (const table of begun.tables) {
        const rows = await copy(client, store.name, table);
        tables.push({ store: store.name, table: table.name, rows });
      }
      await client.query("commit");
    });
  }
  return { snapshots, tables };
}

/** Values are written the same way whatever a role or database has for a default. */
const plainValues = [
  "set local search_path = pg_catalog, pg_temp",
  "set local datestyle = 'ISO, YMD'",
  "set local intervalstyle = 'iso_8601'",
  "set local timezone = 'UTC'",
  "set local extra_float_digits = 1",
  "set local bytea_output = 'hex'",
  "set local statement_timeout = 0",
].join("; ");

async function beginSnapshot(
  client: pg.Client,
  request: ExportRequest,
): Promise<{ readonly at: string; readonly tables: readonly ExportTable[] }> {
  await client.query("begin transaction isolation level repeatable read, read only");
  await client.query(plainValues);
  const { tables, visibility } = await findTables(client, request);
  await requireOwnership(client, { ...request, mustBeActive: visibility });
  const { rows } = await client.query<{ at: string }>("select to_json(now()) #>> '{}' as at");
  return { at: rows[0]?.at ?? "", tables };
}
