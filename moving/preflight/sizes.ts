/**
 * How many rows of the keys stand in each table, and how many bytes they are. Counted where the planner
 * says that an index makes it cheap, estimated by the planner else: a plan must not read a table of a
 * terabyte for a number that nobody needs exactly.
 */
import { escapeIdentifier } from "pg";
import { z } from "zod";
import { sqlStateOf } from "../../cell/store/queryable.ts";
import { rowsOfKeys } from "../key-rows.ts";
import type { MoveTask } from "../ports.ts";
import type { StoreSession } from "../store-session.ts";
import { type ComparedTable, readComparedTables } from "../verify/tables.ts";

export type TableSize = {
  readonly table: string;
  readonly rows: number;
  readonly bytes: number;
  /** Counted, not estimated. */
  readonly exact: boolean;
};

/** In the planner's own unit; reading a page in sequence is 1. About a second on slow disks. */
const countCostMax = 100_000;
const countMsMax = 2000;
const queryCanceled = "57014";
/** Of a row in the heap: header and line pointer, beside the width of its values. */
const rowOverheadBytes = 28;

const explainSchema = z
  .array(
    z.object({
      Plan: z.object({
        "Total Cost": z.number(),
        "Plan Rows": z.number(),
        "Plan Width": z.number(),
      }),
    }),
  )
  .length(1);

export async function countRows(session: StoreSession, task: MoveTask): Promise<TableSize[]> {
  const sizes: TableSize[] = [];
  await session.query("begin read only");
  try {
    await session.query("set local row_security = off");
    for (const table of await readComparedTables(session, task)) {
      sizes.push(await countTable(session, task, table));
    }
  } finally {
    await session.query("rollback");
  }
  return sizes;
}

async function countTable(
  session: StoreSession,
  task: MoveTask,
  table: ComparedTable,
): Promise<TableSize> {
  const name = `${table.schema}.${table.table}`;
  const from = `${table.partitioned ? "" : "only "}${escapeIdentifier(table.schema)}.${escapeIdentifier(table.table)} r where ${rowsOfKeys(task, table.key)}`;
  const { rows } = await session.query<{ "QUERY PLAN": unknown }>(
    `explain (format json) select * from ${from}`,
  );
  const plan = explainSchema.parse(rows[0]?.["QUERY PLAN"])[0]?.Plan;
  const estimated = plan?.["Plan Rows"] ?? 0;
  const width = (plan?.["Plan Width"] ?? 0) + rowOverheadBytes;
  const counted =
    (plan?.["Total Cost"] ?? 0) <= countCostMax ? await count(session, from) : undefined;
  const known = counted ?? estimated;
  return { table: name, rows: known, bytes: known * width, exact: counted !== undefined };
}

/** Undefined: it would have taken too long. */
async function count(session: StoreSession, from: string): Promise<number | undefined> {
  await session.query(`savepoint counting; set local statement_timeout = ${countMsMax}`);
  try {
    const { rows } = await session.query<{ count: unknown }>(
      `select to_jsonb(count(*)) as count from ${from}`,
    );
    return z.number().parse(rows[0]?.count);
  } catch (error) {
    if (sqlStateOf(error) !== queryCanceled) throw error;
    return undefined;
  } finally {
    await session.query("rollback to counting");
  }
}
