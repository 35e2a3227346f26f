/**
 * Rules that protect the fleet, as operators see and set them. Every operation that takes something from
 * service or moves tenants asks them twice: when it is planned, and when it takes effect.
 */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";

/**
 * `repair`: gives service back, or loses nothing by waiting for nobody: no lever stops it. `optional`: can
 * wait. `placement`: new tenants.
 */
export const operationClasses = ["repair", "optional", "placement"] as const;
export type OperationClass = (typeof operationClasses)[number];

export const safetyRules = [
  /** The fleet-wide lever is not engaged. */
  "lever",
  /** Every gating switch that names the operation is open. */
  "switch",
  /** Enough cells stay healthy. */
  "healthy-cells",
  /** Enough cells stay open for placement. */
  "open-cells",
  /** What one more cell carries still has room elsewhere. */
  "headroom",
  /** Nothing else happens to the cell, or to one that keeps its standby, or whose standby it keeps. */
  "one-operation",
  /** Not too many tenants are in motion. */
  "motion",
  /** Some time has passed since the last failover. */
  "wait",
  /** No error budget is burnt. */
  "budget",
] as const;
export type SafetyRule = (typeof safetyRules)[number];

/** Rules to go past, by name; needs a reason, and is written to the audit log. */
export const overrideSafetySchema = z.array(z.enum(safetyRules)).max(20).optional();

export const ruleVerdictSchema = z.object({
  rule: z.enum(safetyRules),
  verdict: z.enum(["pass", "block"]),
  /** With numbers. */
  text: z.string(),
  /** May a person go past it, by name (`--override RULE`) and with a reason? */
  overridable: z.boolean(),
  /** The error as which it refuses. */
  code: z.enum(["SAFETY_RULE", "LEVER_ENGAGED", "BUDGET_BURNT"]),
});
export type RuleVerdict = z.infer<typeof ruleVerdictSchema>;

export const leverSchema = z.object({
  id: z.literal("fleet"),
  engaged: z.boolean(),
  by: z.string(),
  reason: z.string(),
  since: z.string().nullable(),
});
export type Lever = z.infer<typeof leverSchema>;

/** The reason is asked for: whoever comes next must know why the fleet stands still. */
export const engageLeverSchema = z.strictObject({
  ...intentSchema.shape,
  reason: z.string().min(1, "say why: --reason TEXT").max(500),
});

export const switchSchema = z.object({
  /** `deploys`, `month-end`, … */
  id: z.string().regex(/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/),
  open: z.boolean(),
  /** Kinds of operations that need it open: `move.start`, `cell.*`; empty: every optional one. */
  kinds: z.array(z.string().max(60)).max(50),
  by: z.string(),
  reason: z.string(),
  since: z.string(),
});
export type GatingSwitch = z.infer<typeof switchSchema>;

export const setSwitchSchema = z.strictObject({
  open: z.boolean(),
  kinds: switchSchema.shape.kinds.optional(),
  ...intentSchema.shape,
});

/** What the rules count by. A share is 0 to 1. */
export const safetyLimitsSchema = z.strictObject({
  healthyCellsMin: z.number().int().min(0).max(1000).default(1),
  openCellsMin: z.number().int().min(0).max(1000).default(1),
  /** `require`: refuse where a cell less would not fit. `warn`: say it. */
  headroom: z.enum(["require", "warn", "off"]).default("warn"),
  motionShareMax: z.number().min(0).max(1).default(0.2),
  /** So many may always be in motion, however few there are in all. */
  motionFloor: z.number().int().min(0).max(1_000_000).default(20),
  waitAfterFailoverMs: z
    .number()
    .int()
    .min(0)
    .max(7 * 24 * 3_600_000)
    .default(0),
});
export type SafetyLimits = z.infer<typeof safetyLimitsSchema>;

export const setLimitsSchema = z.strictObject({
  healthyCellsMin: z.number().int().min(0).max(1000).optional(),
  openCellsMin: z.number().int().min(0).max(1000).optional(),
  headroom: z.enum(["require", "warn", "off"]).optional(),
  motionShareMax: z.number().min(0).max(1).optional(),
  motionFloor: z.number().int().min(0).max(1_000_000).optional(),
  waitAfterFailoverMs: z
    .number()
    .int()
    .min(0)
    .max(7 * 24 * 3_600_000)
    .optional(),
  ...intentSchema.shape,
});

export const safetySchema = z.object({
  lever: leverSchema,
  limits: safetyLimitsSchema,
  /** As they stand now, for an optional operation on no cell in particular. */
  verdicts: z.array(ruleVerdictSchema),
});
