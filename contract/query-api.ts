/**
 * Questions to all cells: read-only SQL of an operator, run in each cell's database by its agent. A
 * cell that is missing in the answer is named, with the reason; the rest is never passed off as all.
 */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";

export const querySqlMax = 100_000;
export const queryRowsMax = 100_000;
export const queryTimeoutMsMax = 300_000;
/** All rows of all cells together; what is over it is missing, and said so. */
export const queryBytesMax = 48 * 1024 * 1024;
/** The rows of one cell's answer, as JSON. */
export const queryAnswerBytesMax = 8 * 1024 * 1024;

export const createQuerySchema = z.strictObject({
  sql: z.string().min(1).max(querySqlMax),
  /** `all`: every cell that may own tenants. */
  cells: z.union([z.literal("all"), z.array(cellIdSchema).min(1).max(1000)]).default("all"),
  /** Of each cell. */
  rowsMax: z.number().int().min(1).max(queryRowsMax).default(1000),
  /** Cells that have not answered by then are missing. */
  timeoutMs: z.number().int().min(100).max(queryTimeoutMsMax).default(10_000),
  reason: intentSchema.shape.reason,
});

const columns = z.array(z.string());
export const queryResultSchema = z.object({
  id: z.string(),
  /** `asking`: cells may still answer. */
  state: z.enum(["asking", "done"]),
  actor: z.string(),
  createdAt: z.string(),
  deadlineAt: z.string(),
  /** All cells have answered, with all their rows. */
  complete: z.boolean(),
  /** Cells without rows here, and why. */
  missing: z.array(z.object({ cell: z.string(), reason: z.string() })),
  cells: z.record(
    z.string(),
    z.object({
      columns,
      /** Values as PostgreSQL writes them, null for NULL. */
      rows: z.array(z.array(z.string().nullable())),
      /** More rows stood there than were asked for. */
      truncated: z.boolean(),
    }),
  ),
});
export type QueryResult = z.infer<typeof queryResultSchema>;

/** To an agent: was its answer kept? Not when it is late, or another came first. */
export const queryAnsweredSchema = z.object({ kept: z.boolean() });
