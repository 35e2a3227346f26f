/**
 * What a router remembers of a request that somebody may ask about, by the id that stood in the answer:
 * `GET /explain?request=ID` on its admin port. Ids, times and words of the house; nothing of what a
 * request or its answer carried, no path and no address of a client.
 */
import { z } from "zod";

/**
 * `failed`: 5xx, cut off or without an answer. `refused`: the router said no. `sampled`: one of many that
 * went well.
 */
export const rememberedKinds = ["failed", "refused", "sampled"] as const;
export type RememberedKind = (typeof rememberedKinds)[number];

export const rememberedRequestSchema = z.object({
  id: z.string(),
  router: z.string(),
  at: z.string(),
  kind: z.enum(rememberedKinds),
  traceId: z.string(),
  method: z.string(),
  protocol: z.string(),
  /** What the client got; 0: nothing. */
  status: z.number(),
  code: z.string().nullable(),
  message: z.string().nullable(),
  /** Why it ended as it did; `ok` if well. */
  flag: z.string(),
  tenant: z.string().nullable(),
  keyspace: z.string().nullable(),
  /** Where in the request its tenant was named. */
  source: z.string().nullable(),
  service: z.string().nullable(),
  cell: z.string().nullable(),
  key: z.string().nullable(),
  epoch: z.number().nullable(),
  revision: z.number().nullable(),
  /** `refused`: no cell was asked. */
  decision: z.enum(["forwarded", "refused"]),
  attempts: z.number(),
  endpoint: z.string().nullable(),
  /** Attempts that failed, in words. */
  failures: z.array(z.string()),
  /** The code in the cell's own answer, if it named one. */
  cellSaid: z.string().nullable(),
  timings: z.object({
    totalMs: z.number(),
    overheadMs: z.number(),
    holdMs: z.number(),
    queueMs: z.number(),
    connectMs: z.number(),
    firstByteMs: z.number(),
  }),
  /** The story, one sentence a step. */
  trace: z.array(z.string()),
  nextSteps: z.array(z.string()),
});
export type RememberedRequest = z.infer<typeof rememberedRequestSchema>;

const rememberedSpanSchema = z.object({
  kept: z.number(),
  max: z.number(),
  /** Of the oldest that is still known; null: nothing was forgotten since the router started. */
  since: z.string().nullable(),
});
export const rememberedAnswerSchema = z.object({
  router: z.string(),
  startedAt: z.string(),
  items: z.array(rememberedRequestSchema),
  remembers: z.record(z.enum(rememberedKinds), rememberedSpanSchema),
});
export type RememberedAnswer = z.infer<typeof rememberedAnswerSchema>;
