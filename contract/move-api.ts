/**
 * Moving placement keys between cells: what is asked for, and what is told of it.
 *
 * One move is one operation (`kind: tenant.move`): keys of one keyspace, from one source cell to one target
 * cell, in all stores of the cell. Its steps are `moveSteps`; what may follow what is the table in
 * control-plane/core/move/move-state.ts.
 */
import { z } from "zod";
import { acceptedSchema, opSchema, opStates } from "./control-api.ts";
import { cellIdSchema, keyspaceNameSchema, opIdSchema, tenantIdSchema } from "./ids.ts";
import { moveEndsNoteSchema } from "./open-failover.ts";
import { placementKeySchema } from "./placement-key.ts";
import { overrideSafetySchema } from "./safety-api.ts";

export const moveSteps = [
  /** Recorded; waits for its turn at source and target. */
  "planned",
  /** Both cells are looked at; nothing is made. */
  "preflight",
  /** Residue removed on the target, key `importing` there, publications, slots, subscriptions. */
  "preparing",
  /** Rows are copied from the slot's exported snapshot. */
  "copying",
  /** The subscription brings what was written since. */
  "catching-up",
  /** Rows compared at one point of the stream, outside of any pause. */
  "verifying",
  /** In sync and verified; waits for `switch`. */
  "ready",
  /** Routers hold requests of the keys. */
  "holding",
  /** Every agent of the source lets none in, and none is in flight. */
  "closing",
  /** The source's databases refuse writes of the keys. */
  "fencing",
  /** The target has applied everything up to the fence. */
  "draining",
  /** The control plane gives the keys to the target at the next epoch: point of no return. */
  "committing",
  /** The target's databases take writes. */
  "activating",
  /** Live routers serve the target, held requests go on. */
  "routing",
  /** The way back is opened, and the frozen source compared with the target as it was before it served. */
  "reversing",
  /** The source follows the target, so that `move reverse` loses nothing. */
  "soaking",
  /** Rows of the two cells differ: nothing is purged, the way back stays open, somebody must look. */
  "diverged",
  /** Slots, publications, subscriptions and the source's rows are removed. */
  "cleaning",
  /** Before the point of no return only: the fence is lifted, gates and routes are opened again. */
  "releasing",
  /** Everything that was made is removed; the source serves as before. */
  "aborting",
  "done",
  "cancelled",
  "failed",
] as const;
export type MoveStep = (typeof moveSteps)[number];

export const moveCheckVerdicts = ["ok", "warning", "refused"] as const;
/** One check of the preflight: what was looked at, what was found, and what mends it. */
export const moveCheckSchema = z.object({
  id: z.string(),
  /** Cell and store it is about; empty: the move as a whole. */
  cell: z.string(),
  store: z.string(),
  verdict: z.enum(moveCheckVerdicts),
  text: z.string(),
  /** What to run; empty when the verdict is `ok`. */
  fix: z.string(),
  /** The error as which a refusal ends `start`; absent: MOVE_UNFIT. */
  code: z.string().optional(),
});
export type MoveCheck = z.infer<typeof moveCheckSchema>;

/** The value that plan, dry run, audit and executor share. */
export const movePlanSchema = z.object({
  keyspace: keyspaceNameSchema,
  keys: z.array(placementKeySchema).min(1).max(100),
  source: cellIdSchema,
  target: cellIdSchema,
  ...moveEndsNoteSchema.shape,
  /** Databases of the application in each cell, by name; both cells have the same. */
  stores: z.array(z.string()),
  tables: z.array(
    z.object({ store: z.string(), table: z.string(), rows: z.number(), bytes: z.number() }),
  ),
  checks: z.array(moveCheckSchema),
  estimate: z.object({
    rows: z.number(),
    bytes: z.number(),
    copyMs: z.number(),
    pauseMs: z.number(),
  }),
  /** In order, as the executor goes. */
  steps: z.array(z.object({ step: z.enum(moveSteps), text: z.string() })),
});
export type MovePlan = z.infer<typeof movePlanSchema>;

const ms = z.number().int().min(0);
export const moveOptionsSchema = z.object({
  /** `auto`: switches as soon as it is ready. `manual`: waits for `move switch`. */
  switch: z.enum(["auto", "manual"]).default("manual"),
  /** Longest time that requests of a key may be held; above it the switch is taken back. */
  pauseBudgetMs: ms.min(50).max(60_000).default(800),
  /** How often a switch is tried before the move gives up. */
  switchTriesMax: z.number().int().min(1).max(100).default(5),
  /** How long the source follows the target after the switch. */
  soakMs: ms.max(30 * 24 * 3_600_000).default(1_800_000),
  /** Bytes per second of the copy; absent: as fast as it goes. */
  copyRateMax: z.number().int().min(1024).optional(),
});
export type MoveOptions = z.infer<typeof moveOptionsSchema>;
/** The same without defaults: what is not said stays as it is. */
const { shape } = moveOptionsSchema;
const moveOptionChangesSchema = z.strictObject({
  switch: shape.switch.unwrap().optional(),
  pauseBudgetMs: shape.pauseBudgetMs.unwrap().optional(),
  switchTriesMax: shape.switchTriesMax.unwrap().optional(),
  soakMs: shape.soakMs.unwrap().optional(),
  copyRateMax: shape.copyRateMax,
});

/** What one step of the switch took, in milliseconds, by the executor's monotonic clock. */
export const pausePartsSchema = z.object({
  hold: z.number(),
  close: z.number(),
  fence: z.number(),
  drain: z.number(),
  commit: z.number(),
  activate: z.number(),
  release: z.number(),
  total: z.number(),
});
export type PauseParts = z.infer<typeof pausePartsSchema>;

export const moveProgressSchema = z.object({
  rowsTotal: z.number(),
  rowsCopied: z.number(),
  bytesTotal: z.number(),
  bytesCopied: z.number(),
  /** Bytes of write-ahead log that the target has not applied. */
  lagBytes: z.number().nullable(),
  bytesPerSecond: z.number().nullable(),
  etaMs: z.number().nullable(),
});
export type MoveProgress = z.infer<typeof moveProgressSchema>;

/** A comparison of the rows in both cells: in the open stream, before the switch, or after it. */
export const moveVerificationSchema = z.object({
  phase: z.enum(["before-switch", "after-switch"]),
  at: z.string(),
  equal: z.boolean(),
  tables: z.array(
    z.object({
      store: z.string(),
      table: z.string(),
      sourceRows: z.number(),
      targetRows: z.number(),
      sourceSum: z.string(),
      targetSum: z.string(),
    }),
  ),
});
export type MoveVerification = z.infer<typeof moveVerificationSchema>;

export const moveSchema = z.object({
  id: opIdSchema,
  step: z.enum(moveSteps),
  state: opSchema.shape.state,
  headline: z.string(),
  attempt: z.number(),
  /** Grows with every change of the operation; not with progress alone. */
  version: z.number(),
  paused: z.boolean(),
  /** What was asked of it and not taken up yet: `switch`, `cancel` and the like. */
  asked: z.string().nullable(),
  keyspace: z.string(),
  keys: z.array(z.string()),
  source: z.string(),
  target: z.string(),
  ...moveEndsNoteSchema.shape,
  options: moveOptionsSchema,
  /** The move that this one takes back. */
  reverses: z.string().nullable(),
  progress: moveProgressSchema,
  /** Of the switch that was committed; null before it. */
  pause: pausePartsSchema.nullable(),
  /** Switches that were tried. */
  tries: z.number(),
  verifications: z.array(moveVerificationSchema),
  soakUntil: z.string().nullable(),
  plan: movePlanSchema,
  steps: opSchema.shape.steps,
  error: opSchema.shape.error,
  reason: z.string(),
  createdAt: z.string(),
  updatedAt: z.string(),
});
export type Move = z.infer<typeof moveSchema>;

/** What a list of moves is asked for: a state, or those that run and are paused. */
export const moveStatesAsked = [...opStates, "paused"] as const;

const selection = {
  /**
   * Tenants by id, keys of any kind, or all tenants with these labels (`tier=gold,team=a`; `tier` and
   * `region` are the tenant's own). One of the three at least.
   */
  tenants: z.array(tenantIdSchema).max(10_000).optional(),
  keys: z.array(placementKeySchema).max(10_000).optional(),
  selector: z.string().max(1000).optional(),
  keyspace: keyspaceNameSchema.optional(),
  /** Only what this cell has; the rest is skipped. */
  from: cellIdSchema.optional(),
  to: cellIdSchema,
  /** Keys that share one move, one stream and one pause; they switch or stay together. */
  together: z.number().int().min(1).max(100).default(1),
};

/** `POST /v1/moves/plan`: looks at both cells and changes nothing. */
export const planMovesSchema = z.strictObject({
  ...selection,
  options: moveOptionsSchema.prefault({}),
});
export type PlanMoves = z.output<typeof planMovesSchema>;
/** What was asked for and is not moved: `there-already`, `not-from-there`. */
const skippedSchema = z.object({ object: z.string(), reason: z.string(), text: z.string() });
export const movePlansSchema = z.object({
  items: z.array(movePlanSchema),
  next: z.null(),
  skipped: z.array(skippedSchema),
});
export type MovePlans = z.infer<typeof movePlansSchema>;

/** `POST /v1/moves`: one operation per group of keys. `dryRun`: the plans alone. */
export const startMovesSchema = z.strictObject({
  ...selection,
  options: moveOptionsSchema.prefault({}),
  override: overrideSafetySchema,
  reason: z.string().max(500).optional(),
  dryRun: z.boolean().optional(),
});
export type StartMoves = z.output<typeof startMovesSchema>;
export const startedMovesSchema = z.object({
  items: z.array(moveSchema),
  skipped: z.array(skippedSchema),
  next_steps: z.array(z.string()),
});
export type StartedMoves = z.infer<typeof startedMovesSchema>;

/** `POST /v1/moves/{id}/{action}`; `reverse` answers with the move that it began. */
export const moveActions = [
  "verify",
  "switch",
  "reverse",
  "complete",
  "cancel",
  "pause",
  "resume",
] as const;
export type MoveAction = (typeof moveActions)[number];
export const moveActionSchema = z.strictObject({
  /** Of `reverse`: options of the way back; those of the move itself where nothing is said, switched `auto`. */
  options: moveOptionChangesSchema.optional(),
  reason: z.string().max(500).optional(),
  dryRun: z.boolean().optional(),
});
export const moveActedSchema = z.object({
  move: moveSchema,
  next_steps: acceptedSchema.shape.next_steps,
});
export type MoveActed = z.infer<typeof moveActedSchema>;
