/**
 * `cellctl query 'SELECT …' --all-cells`: one read-only question to the databases of cells, merged into
 * one table. A cell whose rows are not in it, or not all of them, is named, and the command fails.
 */
import {
  createQuerySchema,
  type QueryResult,
  queryResultSchema,
  queryRowsMax,
  queryTimeoutMsMax,
} from "../../contract/query-api.ts";
import { apiPath } from "../api.ts";
import { CliError, usage } from "../failures.ts";
import { collect, flag, type Options, type Register, text, texts } from "../grammar.ts";
import { type Merged, mergeCells } from "../merge-cells.ts";
import { sendChange } from "../mutate.ts";
import { parseDuration } from "../render/units.ts";
import type { Session } from "../session.ts";

const longPollMs = 20_000;
const withinMsMin = 100;

export const register: Register = (noun, bind) => {
  bind(
    noun
      .argument("[sql]", "one statement that only reads; - reads it from standard input")
      .option("--all-cells", "ask every cell")
      .option("--cell <cell>", "ask this cell; repeat for more", collect)
      .option("--rows <count>", "at most this many rows of each cell (default: 1000)")
      .option("--within <time>", "cells that have not answered by then are missing (default: 10s)")
      .option("--partial", "succeed although cells are missing; they are named all the same")
      .option("--reason <text>", "why; goes to the audit log, as the statement does")
      .option("--idempotency-key <key>", "repeat a request without doing it twice")
      .addHelpText("after", help),
    ask,
  );
};

const help = `
  cellctl query 'SELECT status, count(*) FROM orders GROUP BY 1' --all-cells

Every tenant is seen once: a cell shows rows of tenants that are active there. The statement runs as
a login that can only read, and stands in the audit log.`;

async function ask(session: Session, [raw]: readonly string[], options: Options): Promise<number> {
  const body = bodyOf(await sqlOf(session, raw), options);
  const change = { path: "/v1/queries", body };
  const asked = await sendChange(session, options, change, queryResultSchema);
  const merged = mergeCells(await finished(session, asked));
  await print(session, merged);
  return conclude(session, merged, options);
}

async function sqlOf(session: Session, raw: string | undefined): Promise<string> {
  if (raw === undefined) throw usage("a question is missing: cellctl query 'SELECT …' --all-cells");
  if (raw !== "-") return raw;
  let sql = "";
  for await (const chunk of session.io.stdin) sql += String(chunk);
  return sql;
}

function bodyOf(sql: string, options: Options): Record<string, unknown> {
  const cells = texts(options, "cell");
  if (flag(options, "allCells") === cells.length > 0) {
    throw usage("say whom to ask: --all-cells, or --cell ID (once or more)");
  }
  const rowsMax = rowsOf(options);
  const timeoutMs = withinOf(options);
  const body = {
    sql,
    cells: cells.length > 0 ? cells : "all",
    ...(rowsMax === undefined ? {} : { rowsMax }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
  const parsed = createQuerySchema.safeParse(body);
  if (parsed.success) return body;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw usage(problems.join("; "));
}

function rowsOf(options: Options): number | undefined {
  const raw = text(options, "rows");
  if (raw === undefined) return undefined;
  const rows = Number(raw);
  if (Number.isSafeInteger(rows) && rows >= 1 && rows <= queryRowsMax) return rows;
  throw usage(`--rows "${raw}": must be a number from 1 to ${queryRowsMax}`);
}

function withinOf(options: Options): number | undefined {
  const raw = text(options, "within");
  if (raw === undefined) return undefined;
  const ms = Math.round(parseDuration(raw) ?? 0);
  if (ms >= withinMsMin && ms <= queryTimeoutMsMax) return ms;
  throw usage(`--within "${raw}": must be a time from 100ms to 5m, such as 30s`);
}

/** Until every cell has answered or is late. */
async function finished(session: Session, asked: QueryResult): Promise<QueryResult> {
  const api = await session.api();
  let seen = asked;
  while (seen.state === "asking") {
    await session.progress.now(`${seen.id}  waiting for ${named(seen.missing)}`);
    seen = await api.get(apiPath`/v1/queries/${seen.id}`, queryResultSchema, {
      waitMs: longPollMs,
    });
  }
  await session.progress.clear();
  return seen;
}

const namedMax = 5;

function named(cells: ReadonlyArray<{ readonly cell: string }>): string {
  const shown = cells.slice(0, namedMax).map(({ cell }) => cell);
  const more = cells.length > namedMax ? ` and ${cells.length - namedMax} more` : "";
  return `${shown.join(", ")}${more}`;
}

async function print(session: Session, merged: Merged): Promise<void> {
  const { out } = session;
  if (out.structured) return out.one(merged, { id: () => "", columns: [] });
  await out.list(pageOf(merged.items), {
    id: ({ cell }) => cell,
    columns: [
      { head: "CELL", cell: ({ cell }) => cell },
      ...merged.columns.map((name, index) => ({
        head: name,
        cell: ({ values }: Merged["items"][number]) => values[index] ?? "",
      })),
    ],
  });
}

async function* pageOf<T>(items: readonly T[]) {
  yield { items, next: null };
}

/** Never a silently short list: what is missing fails the command, or is at least said. */
async function conclude(session: Session, merged: Merged, options: Options): Promise<number> {
  const lines = [
    ...merged.missing.map(({ cell, reason }) => `${cell} is missing: ${reason}`),
    ...merged.truncated.map((cell) => `${cell} has more rows than these (--rows)`),
  ];
  if (lines.length === 0) return 0;
  if (flag(options, "partial")) {
    for (const line of lines) await session.progress.done("note", line);
    return 0;
  }
  throw new CliError("QUERY_INCOMPLETE", lines.join("\n"), {
    details: { missing: merged.missing, truncated: merged.truncated },
    nextSteps: ["cellctl cell ls", "repeat with --partial to accept what there is"],
  });
}
