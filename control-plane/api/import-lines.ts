/**
 * The lines of an import as they arrive: CSV or NDJSON, bounded per line, numbered as in the file.
 * What cannot be read at all is a bad line too, and reading goes on behind it; but for a CSV record
 * beyond the limit: nobody can say where it was meant to end, so the whole file is refused.
 */
import { createHash, type Hash } from "node:crypto";
import { Readable } from "node:stream";
import { parse } from "csv-parse";
import { CellError } from "../../contract/errors.ts";
import {
  csvHeaderProblem,
  csvRecord,
  type LineResult,
  parseImportLine,
} from "../core/import-line.ts";
import { hostileText } from "./json-body.ts";

export type ImportFormat = "csv" | "ndjson";

/** Longer lines are bad lines. */
export const lineBytesMax = 64 * 1024;

/** Throws VALIDATION_FAILED. */
export function importFormat(contentType: string | null): ImportFormat {
  const type = (contentType ?? "").split(";")[0]?.trim().toLowerCase();
  if (type === "text/csv") return "csv";
  if (type === "application/x-ndjson" || type === "application/jsonl") return "ndjson";
  throw new CellError(
    "VALIDATION_FAILED",
    "content-type: must be text/csv or application/x-ndjson",
  );
}

export type ImportSource = {
  readonly lines: AsyncIterable<LineResult>;
  /** SHA-256, hex, of all bytes; right after the last line. */
  readonly digest: () => string;
};

export function readImport(body: AsyncIterable<Uint8Array>, format: ImportFormat): ImportSource {
  const hash = createHash("sha256");
  const bytes = hashing(body, hash);
  return {
    lines: format === "csv" ? readCsv(bytes) : readNdjson(bytes),
    digest: () => hash.digest("hex"),
  };
}

async function* hashing(
  body: AsyncIterable<Uint8Array>,
  hash: Hash,
): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of body) {
    hash.update(chunk);
    yield chunk;
  }
}

const newline = 10;

async function* readNdjson(body: AsyncIterable<Uint8Array>): AsyncGenerator<LineResult, void> {
  let number = 0;
  for await (const line of splitLines(body)) {
    number += 1;
    if (line === "too long") {
      yield { ok: false, line: number, error: `longer than ${lineBytesMax} bytes` };
      continue;
    }
    const result = parseJsonLine(number, line);
    if (result !== undefined) yield result;
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/** Undefined: an empty line, which is skipped. */
function parseJsonLine(line: number, bytes: Uint8Array): LineResult | undefined {
  let value: unknown;
  try {
    const text = decoder.decode(bytes).trim();
    if (text === "") return undefined;
    value = JSON.parse(text);
  } catch (error) {
    const why = error instanceof SyntaxError ? "not JSON" : "not UTF-8";
    return { ok: false, line, error: why };
  }
  return checked(line, value);
}

function checked(line: number, value: unknown): LineResult {
  const bad = hostileText(value, "line");
  return bad === undefined
    ? parseImportLine(line, value)
    : { ok: false, line, error: `${bad}: must not contain control characters or broken Unicode` };
}

/** Lines without their end; one that is too long is dropped up to its end. */
async function* splitLines(
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array | "too long", void> {
  let rest: Buffer = Buffer.alloc(0);
  let isTooLong = false;
  for await (const chunk of body) {
    const buffer = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    let from = 0;
    for (let end = buffer.indexOf(newline); end >= 0; end = buffer.indexOf(newline, from)) {
      yield isTooLong || end - from > lineBytesMax ? "too long" : buffer.subarray(from, end);
      isTooLong = false;
      from = end + 1;
    }
    rest = buffer.subarray(from);
    if (rest.length > lineBytesMax) {
      isTooLong = true;
      rest = Buffer.alloc(0);
    }
  }
  if (isTooLong) yield "too long";
  else if (rest.length > 0) yield rest;
}

type CsvRow = { readonly record: string[]; readonly info: { readonly lines: number } };

async function* readCsv(body: AsyncIterable<Uint8Array>): AsyncGenerator<LineResult, void> {
  const bad: LineResult[] = [];
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    max_record_size: lineBytesMax,
    on_skip: (error) => {
      const line = error !== undefined && "lines" in error ? Number(error["lines"]) : 0;
      if (error?.code === "CSV_MAX_RECORD_SIZE") {
        parser.destroy(recordTooLong(line));
        return undefined;
      }
      bad.push({ ok: false, line, error: error?.message ?? "not CSV" });
      return undefined;
    },
  });
  const input = Readable.from(body);
  input.on("error", (error) => parser.destroy(error));
  const rows: AsyncIterable<CsvRow> = input.pipe(parser);
  let header: readonly string[] | undefined;
  for await (const { record, info } of rows) {
    yield* bad.splice(0);
    if (header === undefined) {
      header = record.map((name) => name.trim());
      const problem = csvHeaderProblem(header);
      if (problem === undefined) continue;
      throw new CellError("IMPORT_INVALID", `line ${info.lines}: ${problem}`, {
        details: { badLines: [{ line: info.lines, error: problem }], skipped: 0 },
      });
    }
    yield csvLine(info.lines, header, record);
  }
  yield* bad;
}

/** Skipping is no way out: the parser takes the lines behind for parts of the record. */
function recordTooLong(line: number): CellError {
  const error = `longer than ${lineBytesMax} bytes, or a quote is not closed`;
  return new CellError("IMPORT_INVALID", `line ${line}: ${error}`, {
    details: { badLines: [{ line, error }], skipped: 0 },
    nextSteps: ["Mend the line and send the file again; it cannot be skipped."],
  });
}

function csvLine(line: number, header: readonly string[], record: readonly string[]): LineResult {
  if (record.length !== header.length) {
    return { ok: false, line, error: `${record.length} fields, the header has ${header.length}` };
  }
  if (record.some((field) => field.includes("\uFFFD"))) {
    return { ok: false, line, error: "not UTF-8" };
  }
  return checked(line, csvRecord(header, record));
}
