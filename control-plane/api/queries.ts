/**
 * Questions to all cells: recorded with an audit entry first, told to agents in the answer to the call
 * they make anyway, answered by a call of their own, and read by whoever asked in one long poll.
 */
import { z } from "zod";
import {
  type AgentSyncRequest,
  type QueryAnswer,
  queryAnswerSchema,
} from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import {
  createQuerySchema,
  type QueryResult,
  queryAnswerBytesMax,
  queryAnsweredSchema,
  queryResultSchema,
} from "../../contract/query-api.ts";
import { isoTime } from "../../runtime/clock.ts";
import { isIdleAnnex } from "../core/fleet.ts";
import { joinAnswers } from "../core/query-result.ts";
import { databaseNowMs, type Tx } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { channels } from "../store/notify.ts";
import {
  type AskedQuery,
  answeredCells,
  findQuery,
  insertQuery,
  openQueries,
  type QueryRow,
  readAnswers,
  storeAnswer,
} from "../store/queries.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { requireSubject } from "./auth.ts";
import { requireCell } from "./cell-lookup.ts";
import { type ApiContext, waitMsMax } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

export function queryEndpoints(context: ApiContext): readonly Endpoint[] {
  return [askEndpoint(context), readEndpoint(context), answerEndpoint(context)];
}

const askEndpoint = (context: ApiContext): Endpoint =>
  mutation(context, {
    method: "post",
    path: "/v1/queries",
    role: "operator",
    tag: "queries",
    summary: "Ask cells' databases a read-only question; it stands in the audit log.",
    body: createQuerySchema,
    lines: ["sql"],
    answers: { 201: queryResultSchema },
    action: "query.create",
    object: ({ body }) => (body.cells === "all" ? "all cells" : body.cells.join(", ")),
    recorded: ({ sql, ...body }) => ({ ...body, sql: linesOf(sql) }),
    apply: (work, { body }) => ask(context, work, body),
  });

async function ask(
  context: ApiContext,
  work: Work,
  wanted: z.output<typeof createQuerySchema>,
): Promise<Answer> {
  const { tx } = work;
  // While cells and control plane disagree on who owns what, no answer shows each tenant once.
  await lockNormalFleet(tx);
  const cells = await cellsToAsk(tx, wanted.cells);
  const { sql, rowsMax, timeoutMs } = wanted;
  const id = `qry_${context.random.hex(12)}`;
  await work.record(null, { id, cells, rowsMax, timeoutMs, sql: linesOf(sql) });
  await insertQuery(tx, { id, actor: work.actor.name, sql, cells, rowsMax, timeoutMs });
  const row = await findQuery(tx, id);
  if (row === undefined) throw new Error(`query ${id} is gone`);
  return { status: 201, body: asking(row, []) };
}

/** Every cell that may own tenants, or those that are named. Throws CELL_UNKNOWN. */
async function cellsToAsk(tx: Tx, wanted: "all" | readonly string[]): Promise<string[]> {
  if (wanted !== "all") {
    const named = [...new Set(wanted)];
    for (const id of named) await requireCell(tx, id);
    return named;
  }
  // A standby that owns no keys has no rows that anybody may see.
  const cells = (await readCells(tx)).filter(
    (cell) => cell.state !== "retired" && cell.state !== "provisioning" && !isIdleAnnex(cell),
  );
  if (cells.length === 0) {
    throw new CellError("STATE_CONFLICT", "There is no cell to ask.", {
      nextSteps: ["cellctl cell ls"],
    });
  }
  return cells.map(({ id }) => id);
}

const auditLineMax = 1000;

/** As the audit log keeps it: entries have no line ends, and a text in them has a limit. */
function linesOf(sql: string): string[] {
  return sql
    .split(/\r\n|\r|\n/)
    .flatMap((line) => line.match(new RegExp(`.{1,${auditLineMax}}`, "gsu")) ?? [])
    .map((line) => line.replaceAll("\t", "  "));
}

const readEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/queries/{id}",
    role: "operator",
    tag: "queries",
    summary: "A question's answers; waits until all cells have answered or are late.",
    params: { id: z.string().regex(/^qry_[0-9a-f]{24}$/, "is not the id of a question") },
    query: { waitMs: z.coerce.number().int().min(0).max(waitMsMax).default(0) },
    answers: { 200: queryResultSchema },
    serve: async ({ path, query, request }) => ({
      status: 200,
      body: await readResult(context, path.id, query.waitMs, request.signal),
    }),
  });

async function readResult(
  context: ApiContext,
  id: string,
  waitMs: number,
  signal: AbortSignal,
): Promise<QueryResult> {
  const { database, clock, hub } = context;
  const endMs = clock.monotonicMs() + waitMs;
  for (;;) {
    const nap = new AbortController();
    // Before looking, so that no answer comes between the look and the wait.
    const woken = hub.wait(channels.query, id, waitMs, AbortSignal.any([signal, nap.signal]));
    const row = await findQuery(database.read, id);
    const answered = row === undefined ? [] : await answeredCells(database.read, id);
    const leftMs = endMs - clock.monotonicMs();
    const isDone = row !== undefined && (row.leftMs <= 0 || answered.length >= row.cells.length);
    if (row === undefined || isDone || leftMs <= 0 || signal.aborted) {
      nap.abort();
      if (row === undefined) throw unknown(id);
      return isDone ? await joined(context, row) : asking(row, answered);
    }
    await Promise.race([woken, clock.sleep(Math.min(leftMs, row.leftMs + 1), nap.signal)]);
    nap.abort();
  }
}

const unknown = (id: string): CellError =>
  new CellError("NOT_FOUND", `There is no question ${id}; answers are kept for ten minutes.`, {
    nextSteps: ["cellctl query 'SELECT …' --all-cells"],
  });

const headOf = (row: QueryRow) => ({
  id: row.id,
  actor: row.actor,
  createdAt: isoTime(row.createdAt.getTime()),
  deadlineAt: isoTime(row.deadlineAt.getTime()),
});

/** No rows yet: half an answer would be taken for a whole one. */
const asking = (row: QueryRow, answered: readonly string[]): QueryResult => ({
  ...headOf(row),
  state: "asking",
  complete: false,
  missing: row.cells
    .filter((cell) => !answered.includes(cell))
    .map((cell) => ({ cell, reason: "it has not answered yet" })),
  cells: {},
});

const joined = (context: ApiContext, row: QueryRow): Promise<QueryResult> =>
  context.database.snapshot(async (tx) => {
    const answers = await readAnswers(tx, row.id);
    const fleet = { cells: await readCells(tx), nowMs: await databaseNowMs(tx) };
    return { ...headOf(row), state: "done" as const, ...joinAnswers(row, answers, fleet) };
  });

/** Around the rows: names of columns, commas. */
const envelopeBytesMax = 1024 * 1024;

const answerEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "post",
    path: "/v1/machine/agent/query-answers",
    role: "agent",
    tag: "machine",
    summary: "A cell's answer to a question; kept once, and not after the deadline",
    body: queryAnswerSchema,
    bodyBytesMax: queryAnswerBytesMax + envelopeBytesMax,
    // Rows hold what tenants wrote.
    verbatim: true,
    answers: { 200: queryAnsweredSchema },
    serve: async ({ caller, body }) => {
      requireSubject(caller, body.cell);
      const kept = await context.database.transaction((tx) => storeAnswer(tx, storable(body)));
      return { status: 200, body: { kept } };
    },
  });

/** PostgreSQL keeps no NUL and no broken Unicode; a cell's own database holds neither. */
function storable(said: QueryAnswer): QueryAnswer {
  const text = JSON.stringify(said, (_name, value: unknown) =>
    typeof value === "string" ? value.toWellFormed().replaceAll("\u0000", "\ufffd") : value,
  );
  return queryAnswerSchema.parse(JSON.parse(text));
}

export type Questions = {
  /** Begins to listen; `end` must follow. */
  readonly turn: (said: AgentSyncRequest, ms: number, signal: AbortSignal) => QuestionTurn;
};

type Asked = { readonly queries: readonly AskedQuery[]; readonly isNews: boolean };

export type QuestionTurn = {
  /** What the cell is asked now, and whether this agent has not been told of all of it before. */
  readonly asked: () => Promise<Asked>;
  /** Waits for `other` or for a question, whichever comes first; both are over then. */
  readonly wait: (other: (stop: AbortSignal) => Promise<void>) => Promise<void>;
  /** For the answer to the agent; what it is told is no news to it any more. */
  readonly end: (asked: Asked) => { queries?: AskedQuery[] };
};

/** Agents remembered for what they were told; with more of them some are told twice. */
const toldMax = 2000;

/**
 * Questions in the answers to agents. A question is repeated until it is answered or late, but only the
 * first time does it end an agent's wait: an agent that is still working on it must not call in circles.
 * While the fleet recovers, nobody is asked: a key may be active in two cells.
 */
export function createQuestions(context: ApiContext): Questions {
  const told = new Map<string, ReadonlySet<string>>();
  const { hub, database } = context;
  return {
    turn: (said, ms, signal) => {
      const nap = new AbortController();
      const stop = AbortSignal.any([signal, nap.signal]);
      // Before anybody looks, so that no question comes between the look and the wait.
      const woken = hub.wait(channels.query, topicOf(said.cell), Math.max(0, ms), stop);
      const agent = `${said.cell} ${said.instance}`;
      return {
        asked: async () => {
          const queries = said.primary ? await openQueries(database.read, said.cell) : [];
          const known = told.get(agent);
          return { queries, isNews: queries.some(({ id }) => known?.has(id) !== true) };
        },
        wait: async (other) => {
          await Promise.race([woken, other(stop)]);
          nap.abort();
        },
        end: ({ queries }) => {
          nap.abort();
          told.delete(agent);
          if (queries.length === 0) return {};
          if (told.size >= toldMax) told.clear();
          told.set(agent, new Set(queries.map(({ id }) => id)));
          return { queries: [...queries] };
        },
      };
    },
  };
}

/** Apart from the questions' own topics: an answer is no news to agents. */
const topicOf = (cell: string): string => `cell ${cell}`;
