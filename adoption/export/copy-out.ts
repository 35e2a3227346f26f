/**
 * One table's rows of one tenant, as COPY sends them: never in memory as a whole, however many.
 * NDJSON carries PostgreSQL's own JSON of a row, so that numbers keep every digit.
 */
import type pg from "pg";
import { to } from "pg-copy-streams";
import type { ExportTable } from "./tables.ts";

export type CopiedPart = { readonly rows: number; readonly bytes: Buffer };

const newline = 10;

/** `prefix` and `suffix` go around each row's JSON. */
export async function* copyJson(
  client: pg.Client,
  table: ExportTable,
  around: { readonly prefix: string; readonly suffix: string },
): AsyncGenerator<CopiedPart, void> {
  const query = `copy (select row_to_json(r) from ${table.from} r where ${table.condition ?? "false"}) to stdout`;
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of client.query(to(query))) {
    const buffer = rest.length === 0 ? bufferOf(chunk) : Buffer.concat([rest, bufferOf(chunk)]);
    const end = buffer.lastIndexOf(newline) + 1;
    rest = buffer.subarray(end);
    if (end === 0) continue;
    const lines = buffer.toString("utf8", 0, end - 1).split("\n");
    const text = lines
      .map((line) => `${around.prefix}${withoutEscapes(line)}${around.suffix}\n`)
      .join("");
    yield { rows: lines.length, bytes: Buffer.from(text) };
  }
}

/** With a header line, also where there is no row. */
export async function* copyCsv(
  client: pg.Client,
  table: ExportTable,
): AsyncGenerator<CopiedPart, void> {
  const query = `copy (select r.* from ${table.from} r where ${table.condition ?? "false"}) to stdout with (format csv, header)`;
  const stream = client.query(to(query));
  for await (const chunk of stream) yield { rows: 0, bytes: bufferOf(chunk) };
  yield { rows: stream.rowCount, bytes: Buffer.alloc(0) };
}

const bufferOf = (chunk: unknown): Buffer =>
  Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));

/**
 * COPY's own escapes, undone. A line break or a tab that stands in JSON as itself is space between
 * tokens, kept by columns of type json: inside of strings JSON writes them as escapes of its own.
 */
const withoutEscapes = (line: string): string =>
  line.replace(/\\([\\bfnrtv])/g, (_, letter: string) => (letter === "\\" ? "\\" : " "));
