/**
 * `tenant import`: streams a file to the control plane, which checks every line and applies all or
 * nothing. The file is never held in memory, however large it is.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { type Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { z } from "zod";
import { idempotencyHeader, importResultSchema } from "../contract/control-api.ts";
import { CellError, errorTable } from "../contract/errors.ts";
import { CliError, cannotRead, usage } from "./failures.ts";
import { flag, type Options, text } from "./grammar.ts";
import { nextSteps, withoutWatching } from "./mutate.ts";
import { concludeOp, followOp } from "./operations.ts";
import type { View } from "./render/output.ts";
import { bytes } from "./render/units.ts";
import type { Session } from "./session.ts";
import { upload } from "./upload.ts";

type ImportResult = z.infer<typeof importResultSchema>;
type Source = {
  readonly stream: Readable;
  /** Of a file; what is shown while it is sent. */
  readonly name: string;
  readonly size: number | undefined;
};

const contentTypes = { csv: "text/csv", ndjson: "application/x-ndjson" } as const;
type FileFormat = keyof typeof contentTypes;
const extensions: Readonly<Record<string, FileFormat>> = {
  ".csv": "csv",
  ".ndjson": "ndjson",
  ".jsonl": "ndjson",
};

const linesShownMax = 20;

const resultView: View<ImportResult> = {
  id: ({ op }) => op?.id ?? "",
  columns: [{ head: "ACCEPTED", cell: ({ accepted }) => String(accepted) }],
  details: (result) => [
    ["accepted", String(result.accepted)],
    ["skipped", String(result.skipped)],
    ["per cell", Object.entries(result.perCell).map(([cell, count]) => `${cell}  ${count}`)],
    ["bad lines", result.badLines.map(({ line, error }) => `line ${line}: ${error}`)],
    ["operation", result.op === null ? "none" : `${result.op.id} ${result.op.state}`],
  ],
};

export async function importTenants(
  session: Session,
  file: string,
  options: Options,
): Promise<number> {
  const format = formatOf(file, text(options, "format"));
  const source = await open(session, file);
  return importSource(session, source, format, options);
}

/** Lines from wherever they come. When the source fails, its own error is the one that is told. */
export async function importSource(
  session: Session,
  source: Source,
  format: FileFormat,
  options: Options,
): Promise<number> {
  const result = await send(session, source, format, options);
  if (result.accepted === 0 && result.badLines.length > 0) throw nothingApplied(result);
  return conclude(session, options, result);
}

async function conclude(session: Session, options: Options, result: ImportResult): Promise<number> {
  const waits = options["wait"] !== false && result.op !== null;
  const op = waits && result.op !== null ? await followOp(session, result.op) : result.op;
  if (waits && op !== null) await concludeOp(session, op);
  const next_steps =
    waits && op !== null ? withoutWatching(result.next_steps, op.id) : result.next_steps;
  await session.out.one({ ...result, op, next_steps }, resultView);
  // The table for people has them already.
  const told = session.out.format === "table" || session.out.format === "wide";
  for (const { line, error } of told ? [] : result.badLines) {
    await session.progress.done("failed", `line ${line}: ${error}`);
  }
  if (result.skipped > result.badLines.length) {
    const more = result.skipped - result.badLines.length;
    await session.progress.done("note", `and ${more} more bad lines`);
  }
  await nextSteps(session, next_steps);
  return 0;
}

async function send(
  session: Session,
  source: Source,
  format: FileFormat,
  options: Options,
): Promise<ImportResult> {
  const api = await session.api();
  const reason = text(options, "reason");
  const key = text(options, "idempotencyKey") ?? session.io.random.uuid();
  const counted = countBytes(session, source);
  // An error of the source reaches the request through the stream itself, which then fails.
  let broken: unknown;
  const feeding = pipeline(source.stream, counted).catch(() => undefined);
  source.stream.once("error", (error) => {
    broken = error;
  });
  const result = await upload({
    fleet: api.fleet,
    path: "/v1/tenants/import",
    query: {
      ...(flag(options, "skipBadLines") ? { skipBadLines: "true" } : {}),
      ...(flag(options, "dryRun") ? { dryRun: "true" } : {}),
      ...(reason === undefined ? {} : { reason }),
    },
    headers: { "content-type": contentTypes[format], [idempotencyHeader]: key },
    body: counted,
    schema: importResultSchema,
    signal: session.interrupted(),
  }).catch((error: unknown) => {
    throw broken instanceof CellError ? broken : withKey(error, session, source, key);
  });
  await feeding;
  await session.progress.clear();
  return result;
}

function countBytes(session: Session, { name, size }: Source): Transform {
  let sent = 0;
  let shown = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sent += chunk.length;
      const step = Math.floor(size === undefined ? sent / 10_000_000 : (sent / size) * 20);
      if (step === shown) return done(undefined, chunk);
      shown = step;
      const share = size === undefined ? "" : ` of ${bytes(size)}`;
      session.progress.now(`${name}  sent ${bytes(sent)}${share}`).then(
        () => done(undefined, chunk),
        (error: Error) => done(error),
      );
    },
  });
}

function formatOf(file: string, asked: string | undefined): FileFormat {
  if (asked === "csv" || asked === "ndjson") return asked;
  if (asked !== undefined) throw usage(`--format "${asked}": must be csv or ndjson`);
  const known = extensions[extname(file).toLowerCase()];
  if (known !== undefined) return known;
  throw usage(`cannot tell the format of "${file}" by its name: give --format csv or ndjson`);
}

async function open(session: Session, file: string): Promise<Source> {
  if (file === "-") {
    // Standard input of a process is a Readable; the type of `Io` asks for less.
    return { stream: session.io.stdin as Readable, name: "standard input", size: undefined };
  }
  const path = resolve(session.io.cwd, file);
  try {
    const { size } = await stat(path);
    const stream = createReadStream(path);
    await new Promise((ready, failed) =>
      stream.once("ready", () => ready(undefined)).once("error", failed),
    );
    return { stream, name: file, size };
  } catch (cause) {
    throw cannotRead(path, cause);
  }
}

function withKey(error: unknown, session: Session, source: Source, key: string): unknown {
  if (session.interrupted().aborted) {
    return new CliError(
      "DETACHED",
      `interrupted while ${source.name} was being sent; it may have been applied`,
      {
        nextSteps: [`repeat with --idempotency-key ${key}   (never done twice)`],
      },
    );
  }
  if (!(error instanceof CellError)) return error;
  if (error.code === "IMPORT_INVALID" && !session.out.structured) return withLines(error);
  if (errorTable[error.code].source === "client") return error;
  return new CellError(error.code, error.message, {
    cause: error.cause,
    details: { ...error.details, idempotencyKey: key },
    nextSteps: [`repeat with --idempotency-key ${key}   (never done twice)`, ...error.nextSteps],
  });
}

const nothingApplied = (result: ImportResult): CellError =>
  withLines(
    new CellError("IMPORT_INVALID", "no line of the file is good", {
      details: { badLines: result.badLines, skipped: result.skipped },
      nextSteps: ["correct the lines and import again"],
    }),
  );

/** For people: the lines below the message. Programs find them among the details. */
function withLines(error: CellError): CellError {
  const { data = [] } = importResultSchema.shape.badLines.safeParse(error.details["badLines"]);
  // The control plane's message may begin with the first of them.
  const lines = data
    .map((bad) => `line ${bad.line}: ${bad.error}`)
    .filter((line) => !error.message.includes(line));
  const shown = lines.slice(0, linesShownMax);
  const more = lines.length > shown.length ? [`and ${lines.length - shown.length} more`] : [];
  return new CellError(error.code, [error.message, ...shown, ...more].join("\n"), {
    cause: error.cause,
    details: error.details,
    nextSteps: error.nextSteps,
  });
}
