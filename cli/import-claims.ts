/**
 * `claim import`: names of many tenants from NDJSON, in calls of ten thousand, each all or nothing. All
 * lines are read and tried before the first call that changes something. What is there already is no
 * mistake, so a file that stopped half way is simply sent again.
 */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { z } from "zod";
import {
  claimImportNamesMax,
  claimImportResultSchema,
  importedNameSchema,
} from "../contract/claims-api.ts";
import { CellError } from "../contract/errors.ts";
import { CliError, cannotRead } from "./failures.ts";
import { flag, type Options, text } from "./grammar.ts";
import { nextSteps, sendChange, withoutWatching } from "./mutate.ts";
import { concludeOp, followOp } from "./operations.ts";
import { claimImportView } from "./render/views-claim.ts";
import type { Session } from "./session.ts";

type Line = { readonly line: number; readonly name: z.infer<typeof importedNameSchema> };
type Result = z.infer<typeof claimImportResultSchema>;
type Bad = { readonly line: number; readonly error: string };

const linesShownMax = 20;

export async function importClaims(
  session: Session,
  file: string,
  options: Options,
): Promise<number> {
  const lines = parseLines(await readText(session, file));
  const tried = await sendAll(session, file, lines, { ...options, dryRun: true });
  if (flag(options, "dryRun")) {
    await session.out.one(tried, claimImportView);
    return 0;
  }
  return conclude(session, await sendAll(session, file, lines, options), options);
}

async function sendAll(
  session: Session,
  file: string,
  lines: readonly Line[],
  options: Options,
): Promise<Result> {
  let total: Result = { op: null, committed: 0, unchanged: 0, next_steps: [] };
  for (let from = 0; from < lines.length; from += claimImportNamesMax) {
    const batch = lines.slice(from, from + claimImportNamesMax);
    const verb = flag(options, "dryRun") ? "tried" : "committed";
    await session.progress.now(`${file}  ${verb} ${from} of ${lines.length} names`);
    const result = await send(session, batch, from, options);
    total = {
      op: result.op ?? total.op,
      committed: total.committed + result.committed,
      unchanged: total.unchanged + result.unchanged,
      next_steps: result.next_steps,
    };
  }
  await session.progress.clear();
  return total;
}

/** Routers that serve the last call's revision serve those before it. */
async function conclude(session: Session, total: Result, options: Options): Promise<number> {
  const { op } = total;
  if (op === null || options["wait"] === false) {
    await session.out.one(total, claimImportView);
    return 0;
  }
  const done = await followOp(session, op);
  await concludeOp(session, done);
  const next_steps = withoutWatching(total.next_steps, done.id);
  await session.out.one({ ...total, op: done, next_steps }, claimImportView);
  await nextSteps(session, next_steps);
  return 0;
}

async function readText(session: Session, file: string): Promise<string> {
  if (file === "-") {
    let all = "";
    for await (const chunk of session.io.stdin) all += String(chunk);
    return all;
  }
  const path = resolve(session.io.cwd, file);
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw cannotRead(path, cause);
  }
}

/** Throws IMPORT_INVALID. No message repeats what a line says: a name may be a secret. */
function parseLines(all: string): Line[] {
  const lines: Line[] = [];
  const bad: Bad[] = [];
  for (const [index, raw] of all.split("\n").entries()) {
    const line = index + 1;
    if (raw.trim() === "") continue;
    const parsed = importedNameSchema.safeParse(parseJson(raw));
    if (parsed.success) lines.push({ line, name: parsed.data });
    else {
      const [issue] = parsed.error.issues;
      bad.push({ line, error: `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}` });
    }
  }
  if (bad.length > 0 || lines.length === 0) throw invalid(bad, bad.length);
  return lines;
}

function parseJson(raw: string): unknown {
  try {
    return JSON.parse(raw);
  } catch {
    return undefined; // The schema says that a line is an object.
  }
}

function invalid(bad: readonly Bad[], total: number): CellError {
  const shown = bad.slice(0, linesShownMax).map(({ line, error }) => `line ${line}: ${error}`);
  const head = total === 0 ? "the file holds no names" : `${total} bad lines; nothing was applied`;
  return new CellError("IMPORT_INVALID", [head, ...shown].join("\n"), {
    details: { badLines: bad.slice(0, 100), skipped: total },
    nextSteps: ['a line is {"namespace":"domain","value":"shop.example","tenant":"acme"}'],
  });
}

async function send(
  session: Session,
  batch: readonly Line[],
  from: number,
  options: Options,
): Promise<Result> {
  const key = text(options, "idempotencyKey");
  // One key for the file, one of its own for each call.
  const keyed = key === undefined ? options : { ...options, idempotencyKey: `${key}-${from}` };
  const body = { names: batch.map(({ name }) => name) };
  const change = { path: "/v1/claims/import", body };
  try {
    return await sendChange(session, keyed, change, claimImportResultSchema);
  } catch (error) {
    throw error instanceof CellError && error.code === "IMPORT_INVALID"
      ? inFile(error, batch, flag(options, "dryRun") ? 0 : from)
      : error;
  }
}

/** The control plane counts the lines of its call. `applied`: names of the calls before. */
function inFile(error: CellError, batch: readonly Line[], applied: number): Error {
  const { badLines, skipped } = error.details;
  const bad = (Array.isArray(badLines) ? badLines : []).map((one: Bad) => ({
    line: batch[one.line - 1]?.line ?? one.line,
    error: one.error,
  }));
  const told = invalid(bad, typeof skipped === "number" ? skipped : bad.length);
  if (applied === 0) return told;
  return new CliError("IMPORT_PARTIAL", `${told.message}\nthe ${applied} names before are there`, {
    details: { ...told.details, applied },
    nextSteps: ["correct the lines and send the file again: what is there already is no mistake"],
  });
}
