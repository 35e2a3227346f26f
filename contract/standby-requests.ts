/** What operators ask of standbys, and are told of them; the standby itself stands in standby-api.ts. */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";
import { bucketCount } from "./placement-key.ts";
import { standbySchema } from "./standby-api.ts";

const bucket = z
  .number()
  .int()
  .min(0)
  .max(bucketCount - 1);

/** A standby whose database and agent an operator runs. */
export const addStandbySchema = z.strictObject({
  origin: cellIdSchema,
  host: cellIdSchema,
  buckets: z
    .object({ lo: bucket, hi: bucket })
    .refine(({ lo, hi }) => lo <= hi, "lo must not be above hi")
    .default({ lo: 0, hi: bucketCount - 1 }),
  /** Of the annex, by the names that the origin's have. */
  stores: z.record(
    z.string().min(1).max(40),
    z.strictObject({
      database: z.string().min(1).max(200),
      mover: z.string().min(1).max(200),
      keyColumn: z.string().min(1).max(63).optional(),
    }),
  ),
  /** Of the annex's agents; they tell it themselves. */
  endpoints: z
    .array(z.url({ protocol: /^https?$/ }))
    .max(100)
    .default([]),
  ...intentSchema.shape,
});

export const standbyChangedSchema = z.object({
  standby: standbySchema,
  next_steps: z.array(z.string()),
});

/** What of a cell's tenants could be taken over now. */
export const protectionSchema = z.object({
  /** The cell. */
  id: cellIdSchema,
  /** Of what an annex took over: the cell that it is a part of. */
  host: cellIdSchema.optional(),
  tenants: z.number().int().min(0),
  /** Of these, without a standby that may be adopted from; where only some buckets have one, by their share. */
  unprotected: z.number().int().min(0),
  /** Buckets that have one. */
  buckets: z.number().int().min(0).max(bucketCount),
  /** Why not all have; empty when they do. */
  reason: z.string(),
});
