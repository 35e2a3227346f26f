/**
 * The answers of cells as one list. Cells whose columns are others than those of most cells cannot stand
 * in one table with them: they are named as missing, never put under wrong heads.
 */
import { z } from "zod";
import type { QueryResult } from "../contract/query-api.ts";

/** What `cellctl query -o json` prints. */
export const mergedSchema = z.object({
  columns: z.array(z.string()),
  /** In the order of the columns; null is NULL. */
  items: z.array(z.object({ cell: z.string(), values: z.array(z.string().nullable()) })),
  missing: z.array(z.object({ cell: z.string(), reason: z.string() })),
  /** Cells that have more rows than these. */
  truncated: z.array(z.string()),
});
export type Merged = z.infer<typeof mergedSchema>;

export function mergeCells({ cells, missing }: QueryResult): Merged {
  const answers = Object.entries(cells).sort(([a], [b]) => (a < b ? -1 : 1));
  const columns = commonColumns(answers.map(([, answer]) => answer.columns));
  const merged: Merged = { columns, items: [], missing: [...missing], truncated: [] };
  for (const [cell, answer] of answers) {
    if (!isSame(answer.columns, columns)) {
      const reason = `its columns are others: ${answer.columns.join(", ")}`;
      merged.missing.push({ cell, reason });
      continue;
    }
    for (const values of answer.rows) merged.items.push({ cell, values });
    if (answer.truncated) merged.truncated.push(cell);
  }
  merged.missing.sort((a, b) => (a.cell < b.cell ? -1 : 1));
  return merged;
}

const isSame = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((name, index) => name === b[index]);

/** Those of most cells; of as many, those of the first cell. */
function commonColumns(all: ReadonlyArray<readonly string[]>): string[] {
  const counted = all.map((columns) => ({
    columns,
    times: all.filter((other) => isSame(other, columns)).length,
  }));
  const most = Math.max(0, ...counted.map(({ times }) => times));
  return [...(counted.find(({ times }) => times === most)?.columns ?? [])];
}
