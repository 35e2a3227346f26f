/** How far a copy is: estimated before, counted while it goes, told a few times per second at most. */
import type pg from "pg";
import { z } from "zod";
import type { MoveProgress } from "../contract/move-api.ts";
import type { Clock } from "../runtime/clock.ts";
import { rowFilter } from "./filters.ts";
import type { MoveTask } from "./ports.ts";
import type { MovedTable } from "./streams-tables.ts";

const tellEveryMs = 500;

export type Estimate = { readonly rows: number; readonly bytes: number };

const planSchema = z.array(
  z.object({ Plan: z.object({ "Plan Rows": z.number(), "Plan Width": z.number() }) }),
);

/** By the planner's statistics: nothing is read. */
export async function estimateRows(
  client: pg.Client,
  task: MoveTask,
  tables: readonly MovedTable[],
): Promise<Estimate> {
  let rows = 0;
  let bytes = 0;
  for (const table of tables) {
    const { rows: lines } = await client.query<{ "QUERY PLAN": unknown }>(
      `explain (format json) select * from ${table.name} where ${rowFilter(task, table.key)}`,
    );
    const [plan] = planSchema.parse(lines[0]?.["QUERY PLAN"]);
    const count = plan?.Plan["Plan Rows"] ?? 0;
    rows += count;
    // Of the binary form: the length of each value, and of the row.
    bytes += count * ((plan?.Plan["Plan Width"] ?? 0) + 4 * table.columns.length + 2);
  }
  return { rows, bytes };
}

export type Progress = {
  readonly expect: (estimate: Estimate) => void;
  readonly addBytes: (bytes: number) => void;
  readonly addRows: (rows: number) => void;
  /** With what is known by then, whatever the time. */
  readonly finish: () => void;
};

export function createProgress(clock: Clock, tell: (progress: MoveProgress) => void): Progress {
  const startedMs = clock.monotonicMs();
  const total = { rows: 0, bytes: 0 };
  const copied = { rows: 0, bytes: 0 };
  let toldMs = startedMs;
  const report = (isDone: boolean) => {
    toldMs = clock.monotonicMs();
    const seconds = (toldMs - startedMs) / 1000;
    const bytesPerSecond = seconds > 0 && copied.bytes > 0 ? copied.bytes / seconds : null;
    // An estimate that was too low must not be passed by what is counted.
    const rowsTotal = isDone ? copied.rows : Math.max(total.rows, copied.rows);
    const bytesTotal = isDone ? copied.bytes : Math.max(total.bytes, copied.bytes);
    tell({
      rowsTotal: Math.round(rowsTotal),
      bytesTotal: Math.round(bytesTotal),
      rowsCopied: copied.rows,
      bytesCopied: copied.bytes,
      lagBytes: null,
      bytesPerSecond: bytesPerSecond === null ? null : Math.round(bytesPerSecond),
      etaMs:
        bytesPerSecond === null
          ? null
          : Math.round(((bytesTotal - copied.bytes) / bytesPerSecond) * 1000),
    });
  };
  const now = () => {
    if (clock.monotonicMs() - toldMs >= tellEveryMs) report(false);
  };
  return {
    expect: ({ rows, bytes }) => {
      total.rows += rows;
      total.bytes += bytes;
    },
    addBytes: (bytes) => {
      copied.bytes += bytes;
      now();
    },
    addRows: (rows) => {
      copied.rows += rows;
      now();
    },
    finish: () => report(true),
  };
}
