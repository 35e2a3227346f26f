/**
 * Failover of a cell: what is asked for, what is told of it, and the report of what was lost.
 *
 * One failover is one operation (`kind: cell.failover`). What may follow what is the table in
 * control-plane/core/failover/failover-state.ts.
 */
import { z } from "zod";
import { ackedWriteSchema } from "./cell-protocol.ts";
import { intentSchema, opSchema } from "./control-api.ts";
import { cellIdSchema, opIdSchema } from "./ids.ts";
import { placementKeySchema } from "./placement-key.ts";

export const failoverSteps = [
  /** The decision is recorded with all that it was made from. */
  "confirmed",
  /** No lease is granted any more, routers stop, promises and the last lease are waited out. */
  "revoking",
  /** Streams from the dead cell are cut: a returning zombie brings nothing into adopted data. */
  "severing",
  /** Keys are given to annexes at the next epoch, canaries first, wave by wave: point of no return per key. */
  "adopting",
  /** Live routers serve the new owners. */
  "routing",
  /** Written and read back through a public router; the report of what was lost is made. */
  "verifying",
  /** Keys are moved from annexes into whole cells by ordinary moves: until then they have no standby. */
  "reprotecting",
  /** Mode `planned`: live moves empty the healthy cell; nothing of the above happens. */
  "evacuating",
  /** The symptom followed tenants to their new cell: nothing more is adopted until somebody decides. */
  "halted",
  /** Before the point of no return only: the cell is given its lease again. */
  "restoring",
  "done",
  "cancelled",
  "failed",
] as const;
export type FailoverStep = (typeof failoverSteps)[number];

export const failoverModes = ["planned", "unplanned"] as const;
/** `off`: nobody looks. `suggest`: an event and the command to type. `auto`: done, within the gates. */
export const failoverPolicies = ["off", "suggest", "auto"] as const;
export type FailoverPolicy = (typeof failoverPolicies)[number];

/** Who says that a cell is gone, independently of each other. */
export const witnessClasses = ["control-plane", "routers", "partners"] as const;
export const witnessSchema = z.object({
  class: z.enum(witnessClasses),
  says: z.enum(["alive", "gone", "unknown"]),
  /** What it saw, with numbers. */
  text: z.string(),
});
export type Witness = z.infer<typeof witnessSchema>;

/** One gate between suspicion and a takeover. */
export const failoverGateSchema = z.object({
  name: z.string(),
  verdict: z.enum(["pass", "block"]),
  text: z.string(),
  /** May a person go past it, by name and with a reason? */
  overridable: z.boolean(),
});
export type FailoverGate = z.infer<typeof failoverGateSchema>;

export const failoverPlanSchema = z.object({
  cell: cellIdSchema,
  mode: z.enum(failoverModes),
  witnesses: z.array(witnessSchema),
  gates: z.array(failoverGateSchema),
  /** Per partner: what it would take over, and how far it is behind. */
  partners: z.array(
    z.object({
      annex: cellIdSchema,
      host: cellIdSchema,
      state: z.string(),
      keys: z.number(),
      lagBytes: z.number().nullable(),
      lagSeconds: z.number().nullable(),
    }),
  ),
  /** Keys that nobody holds a copy of. */
  unavailable: z.object({ keys: z.number(), reason: z.string() }),
  /** Longest time until the old owner certainly has stopped. */
  waitMs: z.number(),
  steps: z.array(z.object({ step: z.enum(failoverSteps), text: z.string() })),
});
export type FailoverPlan = z.infer<typeof failoverPlanSchema>;

export const startFailoverSchema = z.strictObject({
  mode: z.enum(failoverModes).default("unplanned"),
  /** Gates to go past, by name; named in the audit log. */
  override: z.array(z.string().max(60)).max(20).default([]),
  /** Adopt from partners that are further behind than the policy allows. */
  allowDataLoss: z.boolean().default(false),
  /** Somebody has seen that the cell is powered off: promises need not be waited out. */
  provedDead: z.boolean().default(false),
  ...intentSchema.shape,
});

/** `POST /v1/failovers/plan`: changes nothing. */
export const planFailoverSchema = z.strictObject({
  cell: cellIdSchema,
  mode: z.enum(failoverModes).default("unplanned"),
  provedDead: z.boolean().default(false),
});
/** `POST /v1/failovers`. */
export const beginFailoverSchema = z.strictObject({
  cell: cellIdSchema,
  ...startFailoverSchema.shape,
});

/** A write that was acknowledged and whose fate matters after a failover. */
const reportedWriteSchema = ackedWriteSchema.extend({
  /** Why: its position is behind the partner's, or nobody knows its position. */
  because: z.string(),
});

export const rpoTenantSchema = z.object({
  tenant: z.string(),
  key: placementKeySchema,
  /** Nothing acknowledged earlier than so many seconds before the cell was cut off is lost. */
  boundSeconds: z.number().nullable(),
  lost: z.array(reportedWriteSchema),
  /** Neither found at the adopter nor proved absent. */
  unknown: z.array(reportedWriteSchema),
});
export const rpoReportSchema = z.object({
  failover: opIdSchema,
  cell: cellIdSchema,
  /** 1 as it was made first; each amendment by what was handed in late is one more. */
  revision: z.number().int().min(1).default(1),
  amendedAt: z.string().nullable().default(null),
  /** When witnesses confirmed it gone for the first time; where they never did, when the failover began. */
  detectedAt: z.string(),
  /** From then on the old owner certainly acknowledged nothing. */
  fencedAt: z.string().nullable(),
  /** `exact`: every router that served the cell handed in a ring that reaches back far enough. */
  method: z.enum(["exact", "bound"]),
  methodReason: z.string(),
  partners: z.array(
    z.object({
      annex: cellIdSchema,
      host: cellIdSchema,
      /** `X/Y`; of a cell with several stores `NAME=X/Y, …`. */
      remoteLsn: z.string().nullable(),
      heartbeatAgeMs: z.number().nullable(),
      keys: z.number(),
    }),
  ),
  totals: z.object({
    keys: z.number(),
    adopted: z.number(),
    unavailable: z.number(),
    quarantined: z.number(),
    acked: z.number(),
    lost: z.number(),
    unknown: z.number(),
    /** Behind the partner's position, yet found at the adopter by their idempotency record. */
    found: z.number(),
  }),
  tenants: z.array(rpoTenantSchema),
  unavailable: z.array(z.object({ key: placementKeySchema, reason: z.string() })),
  quarantined: z.array(z.object({ key: placementKeySchema, reason: z.string() })),
});
export type RpoReport = z.infer<typeof rpoReportSchema>;

export const failoverSchema = z.object({
  id: opIdSchema,
  cell: cellIdSchema,
  mode: z.enum(failoverModes),
  /** `auto`, or who asked. */
  by: z.string(),
  step: z.enum(failoverSteps),
  headline: z.string(),
  op: opSchema,
  plan: failoverPlanSchema,
  /** Milliseconds spent per step so far. */
  phases: z.record(z.string(), z.number()),
  progress: z.object({
    keys: z.number(),
    adopted: z.number(),
    routed: z.number(),
    unavailable: z.number(),
    quarantined: z.number(),
    reprotected: z.number(),
  }),
  report: rpoReportSchema.nullable(),
});
export type Failover = z.infer<typeof failoverSchema>;

const nextSteps = z.array(z.string());
/** Of a dry run: what would be done; every gate is open, or gone past. */
export const failoverDryRunSchema = z.object({ plan: failoverPlanSchema, next_steps: nextSteps });
/** Begun, or asked for: `abort` and `resume` are wishes, which the failover fulfils at its next step. */
export const failoverActedSchema = z.object({ failover: failoverSchema, next_steps: nextSteps });
export type FailoverActed = z.infer<typeof failoverActedSchema>;
export const failoverActions = ["abort", "resume"] as const;
export type FailoverAction = (typeof failoverActions)[number];

/** `GET /v1/detection`: what witnesses say of every cell, and what is done about it. */
export const detectionSchema = z.object({
  policy: z.enum(failoverPolicies),
  /** `flag`: as control planes were started; `runtime`: somebody said so since. */
  policyFrom: z.enum(["flag", "runtime"]),
  policyBy: z.string(),
  policyReason: z.string(),
  policyAt: z.string().nullable(),
  /** Since the leader looked last; null: nobody looks. */
  ageMs: z.number().nullable(),
  cells: z.array(
    z.object({
      id: cellIdSchema,
      state: z.enum(["healthy", "suspect", "gray", "gone"]),
      text: z.string(),
      /** Of one that is healthy, since when in a row; of another, since it was not well, however it flapped. */
      forMs: z.number(),
      witnesses: z.array(witnessSchema),
    }),
  ),
});
export type Detection = z.infer<typeof detectionSchema>;

/** `PUT /v1/failover-policy`; null: as control planes were started. */
export const setFailoverPolicySchema = z.strictObject({
  policy: z.enum(failoverPolicies).nullable(),
  ...intentSchema.shape,
});
