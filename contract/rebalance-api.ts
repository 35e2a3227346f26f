/**
 * A rebalance as data: what would move where and why, made from one look at the fleet, saved in a file,
 * carried out by live moves, and refused when the fleet is not as it was.
 */
import { z } from "zod";
import { intentSchema, planSchema } from "./control-api.ts";
import { cellIdSchema, epochSchema, revisionSchema } from "./ids.ts";
import { placementKeySchema } from "./placement-key.ts";
import { overrideSafetySchema } from "./safety-api.ts";

export const rebalanceGoals = ["balance", "tenants", "bytes", "rps"] as const;

/** What is asked for. A share is 0 to 1. */
export const rebalanceAskSchema = z.strictObject({
  /** `balance`: the tightest resource of each cell counts. */
  goal: z.enum(rebalanceGoals).default("balance"),
  /** Nothing is planned while the fullest cell is less than so much above the mean. */
  startAbove: z.number().min(0).max(1).default(0.15),
  /** Planning ends when it is less than so much above it. */
  stopBelow: z.number().min(0).max(1).default(0.08),
  movesMax: z.number().int().min(1).max(100_000).default(1000),
  /** Of all moves together. */
  bytesMax: z.number().int().min(0).default(1_099_511_627_776),
  /** What if this cell were gone, or drained? Nothing is written. */
  removeCells: z.array(cellIdSchema).max(100).default([]),
  /** What if this cell were there, as large as the largest? Nothing is written. */
  addCells: z.array(cellIdSchema).max(100).default([]),
  /** Also of tenants that were moved a short while ago: repairs only. */
  ignoreCooldown: z.boolean().default(false),
});
export type RebalanceAsk = z.infer<typeof rebalanceAskSchema>;

export const loadSchema = z.object({ tenants: z.number(), bytes: z.number(), rps: z.number() });

export const rebalanceMoveSchema = z.object({
  key: placementKeySchema,
  from: cellIdSchema,
  to: cellIdSchema,
  /** At which it is planned: another one makes the plan stale. */
  epoch: epochSchema,
  load: loadSchema,
  /** How much the fullest of the two cells is relieved, as a share of its capacity. */
  gain: z.number(),
  /** `repair`: a rule is broken as it stands. */
  why: z.enum(["repair", "drain", "balance", "swap"]),
  text: z.string(),
});
export type RebalanceMove = z.infer<typeof rebalanceMoveSchema>;

export const cellBalanceSchema = z.object({
  cell: cellIdSchema,
  before: z.number(),
  after: z.number(),
});

export const rebalancePlanSchema = z.object({
  kind: z.literal("cellfleet.rebalance-plan"),
  version: z.literal(1),
  fleet: z.string(),
  revision: revisionSchema,
  madeAt: z.string(),
  expiresAt: z.string(),
  /** A plan with cells that are not there, or as if some were gone, shows and is not carried out. */
  whatIf: z.boolean(),
  ask: rebalanceAskSchema,
  moves: z.array(rebalanceMoveSchema),
  skipped: planSchema.shape.skipped,
  /** Utilisation of the tightest resource, 0 to 1 and above. */
  cells: z.array(cellBalanceSchema),
  summary: z.object({
    peakBefore: z.number(),
    peakAfter: z.number(),
    /** No assignment of these tenants can have a lower peak. */
    peakBound: z.number(),
    bytes: z.number(),
    text: z.string(),
  }),
});
export type RebalancePlan = z.infer<typeof rebalancePlanSchema>;

export const applyRebalanceSchema = z.strictObject({
  plan: rebalancePlanSchema,
  /** Moves in flight at the same time, per cell at most two. */
  parallelMax: z.number().int().min(1).max(32).default(4),
  override: overrideSafetySchema,
  ...intentSchema.shape,
});
