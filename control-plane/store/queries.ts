/**
 * Questions of operators to all cells, and what cells answered. Rows of tenants pass through here for
 * minutes: `removeOldQueries` takes them away. A cell answers once, and not after the deadline: what an
 * operator was told is missing does not come true later.
 */
import { and, asc, eq, sql } from "drizzle-orm";
import type { AgentSyncResponse, QueryAnswer } from "../../contract/cell-protocol.ts";
import { queryAnswerSchema } from "../../contract/cell-protocol.ts";
import { queryBytesMax } from "../../contract/query-api.ts";
import type { Reader, Tx } from "./database.ts";
import { channels } from "./notify.ts";
import { query, queryAnswer } from "./schema-adoption.ts";

export type QueryRow = typeof query.$inferSelect & {
  /** Until the deadline; not above 0 when it has passed. */
  readonly leftMs: number;
};
export type AskedQuery = NonNullable<AgentSyncResponse["queries"]>[number];

export type NewQuery = {
  readonly id: string;
  readonly actor: string;
  readonly sql: string;
  readonly cells: readonly string[];
  readonly rowsMax: number;
  readonly timeoutMs: number;
};

/** The deadline is the database's clock plus `timeoutMs`. Wakes the agents that wait. */
export async function insertQuery(tx: Tx, fresh: NewQuery): Promise<void> {
  await tx.insert(query).values({
    ...fresh,
    cells: [...fresh.cells],
    createdAt: sql`clock_timestamp()`,
    deadlineAt: sql`clock_timestamp() + make_interval(secs => ${fresh.timeoutMs / 1000}::float8)`,
  });
  await tx.execute(sql`select pg_notify(${channels.query}, '')`);
}

/** What a cell is asked now; each with the time that is left for it. */
export async function openQueries(reader: Reader, cell: string): Promise<AskedQuery[]> {
  const { rows } = await reader.execute<AskedQuery>(sql`
    select q.id, q.sql, q.rows_max as "rowsMax",
           greatest(1, ceil(extract(epoch from q.deadline_at - clock_timestamp()) * 1000))::int
             as "timeoutMs"
      from cellfleet_control.query as q
      join cellfleet_control.fleet as f on f.mode = 'normal'
     where q.deadline_at > clock_timestamp() and ${cell} = any (q.cells)
       and not exists (select 1 from cellfleet_control.query_answer as a
                        where a.query = q.id and a.cell = ${cell})
     order by q.created_at, q.id limit 20`);
  return rows;
}

/** False: it is late, was answered before, or nobody asked this cell. */
export async function storeAnswer(tx: Tx, said: QueryAnswer): Promise<boolean> {
  // One after the other, so that together they stay below the limit.
  const [asked] = await tx
    .select({ rowsMax: query.rowsMax })
    .from(query)
    .where(
      and(
        eq(query.id, said.id),
        sql`${said.cell} = any (${query.cells})`,
        sql`${query.deadlineAt} > clock_timestamp()`,
      ),
    )
    .for("update");
  if (asked === undefined) return false;
  const cut = withinRows(said.answer, asked.rowsMax);
  const text = JSON.stringify(cut);
  const { rows: sizes } = await tx.execute<{ bytes: number }>(sql`
    select coalesce(sum(octet_length(answer::text)), 0)::float8 as bytes
      from cellfleet_control.query_answer where query = ${said.id}`);
  const isTooMuch = (sizes[0]?.bytes ?? 0) + Buffer.byteLength(text) > queryBytesMax;
  const answer = isTooMuch ? tooMuch : cut;
  const kept = await tx
    .insert(queryAnswer)
    .values({ query: said.id, cell: said.cell, answer })
    .onConflictDoNothing()
    .returning({ cell: queryAnswer.cell });
  if (kept.length === 0) return false;
  await tx.execute(sql`select pg_notify(${channels.query}, ${said.id})`);
  return true;
}

function withinRows(answer: QueryAnswer["answer"], rowsMax: number): QueryAnswer["answer"] {
  if (answer.kind !== "rows" || answer.rows.length <= rowsMax) return answer;
  return { ...answer, rows: answer.rows.slice(0, rowsMax), truncated: true };
}

const tooMuch: QueryAnswer["answer"] = {
  kind: "error",
  code: "ANSWER_TOO_LARGE",
  message: `all cells' rows together are more than ${queryBytesMax} bytes; ask for fewer rows or columns`,
};

export async function findQuery(reader: Reader, id: string): Promise<QueryRow | undefined> {
  const leftMs = sql<number>`floor(extract(epoch from ${query.deadlineAt} - clock_timestamp()) * 1000)::float8`;
  const [found] = await reader.select({ row: query, leftMs }).from(query).where(eq(query.id, id));
  return found === undefined ? undefined : { ...found.row, leftMs: found.leftMs };
}

/** Which cells have answered: without their rows. */
export async function answeredCells(reader: Reader, id: string): Promise<string[]> {
  const rows = await reader
    .select({ cell: queryAnswer.cell })
    .from(queryAnswer)
    .where(eq(queryAnswer.query, id))
    .orderBy(asc(queryAnswer.cell));
  return rows.map(({ cell }) => cell);
}

const answerSchema = queryAnswerSchema.shape.answer;

export async function readAnswers(
  reader: Reader,
  id: string,
): Promise<ReadonlyMap<string, QueryAnswer["answer"]>> {
  const rows = await reader
    .select({ cell: queryAnswer.cell, answer: queryAnswer.answer })
    .from(queryAnswer)
    .where(eq(queryAnswer.query, id))
    .orderBy(asc(queryAnswer.cell));
  return new Map(rows.map(({ cell, answer }) => [cell, answerSchema.parse(answer)]));
}

/** How long a question and its rows are kept, from the moment it was asked. */
export const queriesKeptMs = 600_000;

export async function removeOldQueries(tx: Tx): Promise<void> {
  await tx.execute(sql`
    with old as (
      delete from cellfleet_control.query
       where created_at < clock_timestamp() - make_interval(secs => ${queriesKeptMs / 1000}::float8)
         and deadline_at < clock_timestamp()
      returning id
    )
    delete from cellfleet_control.query_answer where query in (select id from old)`);
}
