/**
 * Service level objectives: what share of requests must end well, for which cells, service and tier, and how
 * much of the error budget is left. A budget that is burnt stops what can wait (`safety-api.ts`).
 */
import { z } from "zod";
import { intentSchema, tiers } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";
import { serviceNameSchema } from "./served-counts.ts";

export const everything = "*";

/** What is counted in minutes is kept so many days at most. */
export const windowDaysMax = 90;

export const objectiveIdSchema = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/);

/** What an objective is about. */
const scope = {
  /** `*`: every cell is held to it, each by itself. */
  cell: z.union([z.literal(everything), cellIdSchema]),
  /** `*`: all services together. */
  service: z.union([z.literal(everything), serviceNameSchema]),
  /** `*`: all tenants, as routers see them; else tenants of this tier, as the agents of cells see them. */
  tier: z.union([z.literal(everything), z.enum(tiers)]),
  /** Share of requests that must end well. */
  target: z.number().min(0.5).max(0.99999),
  windowDays: z.number().int().min(1).max(windowDaysMax),
};

export const objectiveSchema = z.object({
  id: objectiveIdSchema,
  ...scope,
  by: z.string(),
  reason: z.string(),
  since: z.string(),
});
export type Objective = z.infer<typeof objectiveSchema>;

/** What is not said stays as it was; of a new objective it is as `objectiveDefaults` says. */
export const setObjectiveSchema = z.strictObject({
  cell: scope.cell.optional(),
  service: scope.service.optional(),
  tier: scope.tier.optional(),
  target: scope.target.optional(),
  windowDays: scope.windowDays.optional(),
  ...intentSchema.shape,
});
export const objectiveDefaults = {
  cell: everything,
  service: everything,
  tier: everything,
  target: 0.999,
  windowDays: 30,
} as const;

/** The last two stop what can wait. */
export const sloVerdicts = [
  /** Too few requests to say anything. */
  "few",
  "ok",
  /** Six times too fast, over six hours and over the last half hour. */
  "burning",
  /** So fast that the budget of 30 days is gone in two, over an hour and over the last five minutes. */
  "fast-burn",
  /** All of it is used. */
  "burnt",
] as const;
export type SloVerdict = (typeof sloVerdicts)[number];

export const sloStateSchema = z.object({
  cell: z.string(),
  /** In the window. */
  requests: z.number(),
  failures: z.number(),
  /** Failures that the window allows; extrapolated while counts do not fill it yet. */
  budget: z.number(),
  /** Share of the budget; below 0 it is overdrawn. */
  left: z.number(),
  /** How many times faster than the objective allows; 1 uses the budget up exactly at the window's end. */
  burn: z.object({ "5m": z.number(), "30m": z.number(), "1h": z.number(), "6h": z.number() }),
  verdict: z.enum(sloVerdicts),
  /** With numbers. */
  text: z.string(),
});
export type SloState = z.infer<typeof sloStateSchema>;

export const sloSchema = z.object({
  ...objectiveSchema.shape,
  /** Of the cell that is worst off; null: no cell in service is meant. */
  worst: sloStateSchema.nullable(),
  cells: z.array(sloStateSchema),
});
export type Slo = z.infer<typeof sloSchema>;
