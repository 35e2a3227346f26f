/**
 * The control API: what people, the CLI and scripts ask of the control plane. All paths are under
 * `/v1`; every mutation takes an `Idempotency-Key` header, a `reason` and `dryRun`.
 */
import { z } from "zod";
import { unclassedTablesSchema } from "./cell-protocol.ts";
import {
  cellIdSchema,
  epochSchema,
  keyspaceNameSchema,
  opIdSchema,
  revisionSchema,
  tenantIdSchema,
} from "./ids.ts";
import { keyMoveSchema } from "./key-move.ts";
import { leaseModes } from "./lease-mode.ts";
import { cellFailoverSchema, openFailoverSchema, ownerNoteSchema } from "./open-failover.ts";
import { placementKeySchema, slotCountMax } from "./placement-key.ts";
import {
  cellStages,
  guardModes,
  refineStore,
  serviceSchema,
  storeSchema,
  strategies,
} from "./routing-table.ts";

export const idempotencyHeader = "idempotency-key";

/** Roles, weakest first. `router` and `agent` are machine roles: they reach /v1/machine only. */
export const roles = ["viewer", "operator", "admin", "router", "agent"] as const;
export type Role = (typeof roles)[number];

export const cellStates = [
  "provisioning",
  "active",
  "cordoned",
  "draining",
  "quarantined",
  "retired",
] as const;
export type CellState = (typeof cellStates)[number];

/** What is observed of a cell, apart from what is intended: health is not permission. */
export const cellHealths = ["unknown", "healthy", "suspect", "down"] as const;
export type CellHealth = (typeof cellHealths)[number];

/**
 * `suspended`: fenced in its cell and refused by routers until it is resumed. `deleting`: on its way
 * to a tombstone; its rows are being removed from every cell.
 */
export const placementStates = [
  "pending",
  "active",
  "hold",
  "unavailable",
  "suspended",
  "deleting",
] as const;
export type PlacementState = (typeof placementStates)[number];

export const opStates = ["pending", "running", "done", "failed", "cancelled"] as const;
export type OpState = (typeof opStates)[number];

export const tiers = ["standard", "gold", "free"] as const;

/** Asked of every mutation. */
const intent = {
  /** Why; goes to the audit log. */
  reason: z.string().max(500).optional(),
  /** Plan only: same validation, nothing changes, the plan is the answer. */
  dryRun: z.boolean().optional(),
};
export const intentSchema = z.strictObject(intent);

const timestamp = z.string().max(40);
const name = z.string().min(1).max(200);

export const capacitySchema = z.strictObject({
  tenants: z.number().int().min(0).max(100_000_000).default(100_000),
  bytes: z.number().int().min(0).default(1_099_511_627_776),
  rps: z.number().min(0).default(10_000),
  /** No tenant may be declared larger than this share of the cell, 0 to 1. */
  maxTenantShare: z.number().min(0).max(1).default(0.5),
});
export type Capacity = z.infer<typeof capacitySchema>;

export const cellSchema = z.object({
  id: cellIdSchema,
  state: z.enum(cellStates),
  /** What the running operation wants; equal to `state` when there is none. */
  goal: z.enum(cellStates),
  health: z.enum(cellHealths),
  /** One sentence: why the health is what it is. */
  healthReason: z.string(),
  region: z.string(),
  failureDomain: z.string(),
  /** Tiers that may live here; empty means all. */
  tiers: z.array(z.enum(tiers)),
  /** True: only tenants created with this cell by name. */
  dedicated: z.boolean(),
  provider: z.string(),
  capacity: capacitySchema,
  usage: z.object({ tenants: z.number(), bytes: z.number(), rps: z.number() }),
  services: z.record(z.string(), serviceSchema),
  stores: z.record(z.string(), storeSchema),
  release: z.string(),
  schemaVersion: z.string(),
  stage: z.enum(cellStages),
  /** Adopted in place; what its agent and the routers counted as refusable, by code. */
  adopted: z.boolean().optional(),
  wouldRefuse: z.record(z.string(), z.number()).optional(),
  /** Tables of tenants under the guard, as the agent reports; and of any cell those in no class. */
  guardedTables: z.number().optional(),
  unclassed: unclassedTablesSchema.optional(),
  failover: openFailoverSchema.optional(),
  lease: z.object({
    grant: z.number(),
    /** Longest time that a grant now outstanding can still be valid, in milliseconds. */
    outstandingMs: z.number(),
    /** How its leases are to end; absent: `timed`. */
    mode: z.enum(leaseModes).optional(),
    /** False: the cell has not acknowledged the mode yet, and counts as manual until it has. */
    settled: z.boolean().optional(),
  }),
  agents: z.array(
    z.object({
      instance: z.string(),
      endpoint: z.string(),
      primary: z.boolean(),
      seenMs: z.number(),
    }),
  ),
  createdAt: timestamp,
});
export type Cell = z.infer<typeof cellSchema>;

export const createCellSchema = z.strictObject({
  id: cellIdSchema,
  /** `local` starts processes on this machine; `none` registers what runs already. */
  provider: z.enum(["local", "none"]).default("local"),
  region: z.string().min(1).max(40).default("local"),
  failureDomain: z.string().min(1).max(40).optional(),
  tiers: z.array(z.enum(tiers)).default([]),
  dedicated: z.boolean().default(false),
  capacity: capacitySchema.prefault({}),
  /** How its leases end; absent: as the control plane was started with. */
  leaseMode: z.enum(leaseModes).optional(),
  /** Provider `none`: shorthand for the service `default`. */
  endpoints: serviceSchema.shape.endpoints.optional(),
  services: z.record(z.string(), serviceSchema).optional(),
  /** Of a provider's cell only those of kind `external`: it says itself how its databases are reached. */
  stores: z.record(z.string(), storeSchema.superRefine(refineStore)).optional(),
  ...intent,
});
export type CreateCell = z.infer<typeof createCellSchema>;

export const cellActions = ["cordon", "uncordon", "kill", "stop", "start", "destroy"] as const;
export type CellAction = (typeof cellActions)[number];

export const tenantSchema = z.object({
  id: tenantIdSchema,
  keyspace: keyspaceNameSchema,
  tier: z.enum(tiers),
  region: z.string().nullable(),
  /** Declared size, in bytes and requests per second; the larger of declared and measured counts. */
  size: z.object({ bytes: z.number(), rps: z.number() }),
  measured: z.object({ rows: z.number(), bytes: z.number(), rps: z.number() }),
  labels: z.record(z.string(), z.string()),
  placement: z.object({
    key: placementKeySchema,
    cell: cellIdSchema,
    annex: ownerNoteSchema.shape.annex,
    epoch: epochSchema,
    state: z.enum(placementStates),
    revision: revisionSchema,
  }),
  /** Told of one tenant, not in lists. */
  move: keyMoveSchema.optional(),
  createdAt: timestamp,
});
export type Tenant = z.infer<typeof tenantSchema>;

const sizeSchema = z.strictObject({
  bytes: z.number().int().min(0).default(0),
  rps: z.number().min(0).default(0),
});

/** One line of an import is the same object. */
export const newTenantSchema = z.strictObject({
  id: tenantIdSchema,
  keyspace: keyspaceNameSchema.optional(),
  tier: z.enum(tiers).default("standard"),
  /** Must be placed in this region. */
  region: z.string().min(1).max(40).optional(),
  size: sizeSchema.prefault({}),
  labels: z.record(z.string().max(63), z.string().max(200)).default({}),
  /** Place it here, whatever the score says; capacity still holds. */
  cell: cellIdSchema.optional(),
});
export type NewTenant = z.infer<typeof newTenantSchema>;
export const createTenantSchema = newTenantSchema.extend(intent);

export const keyspaceSchema = z.object({
  /** The name, as every object of a list carries an id. */
  id: keyspaceNameSchema,
  name: keyspaceNameSchema,
  strategy: z.enum(strategies),
  slotCount: z.number().nullable(),
  /** Starts of the ranges, in byte order; the first is the empty text. */
  ranges: z.array(z.string()),
  guardMode: z.enum(guardModes),
  createdAt: timestamp,
});
export type Keyspace = z.infer<typeof keyspaceSchema>;

export const createKeyspaceSchema = z.strictObject({
  name: keyspaceNameSchema,
  strategy: z.enum(strategies),
  slotCount: z.number().int().min(1).max(slotCountMax).optional(),
  /** Strategy range: where a new range begins, beside the first. */
  splitAt: z.array(z.string().min(1).max(128)).max(1000).optional(),
  guardMode: z.enum(guardModes).default("strict"),
  ...intent,
});

/** Only while nothing is placed in the keyspace: an application that serves would meet it unprepared. */
export const changeKeyspaceSchema = z.strictObject({ guardMode: z.enum(guardModes), ...intent });

/** A tenant of a slots or range keyspace that is placed on its own, above its container. */
export const overrideSchema = z.object({
  id: placementKeySchema,
  keyspace: keyspaceNameSchema,
  tenant: tenantIdSchema,
  cell: cellIdSchema,
  epoch: epochSchema,
  container: placementKeySchema,
});
export const createOverrideSchema = z.strictObject({
  keyspace: keyspaceNameSchema,
  tenant: tenantIdSchema,
  /** Another cell than the container's is refused while the container's cell holds rows of the tenant. */
  cell: cellIdSchema,
  ...intent,
});

export const planStepSchema = z.object({
  action: z.string(),
  object: z.string(),
  text: z.string(),
});
/** What an executor would do; `--dry-run` prints exactly this value. */
export const planSchema = z.object({
  kind: z.string(),
  steps: z.array(planStepSchema),
  /** What was considered and not done, with the reason. */
  skipped: z.array(z.object({ object: z.string(), reason: z.string(), text: z.string() })),
});
export type Plan = z.infer<typeof planSchema>;

export const opSchema = z.object({
  id: opIdSchema,
  kind: z.string(),
  object: z.string(),
  state: z.enum(opStates),
  /** The state of the kind's own machine. */
  step: z.string(),
  /** One sentence about now. */
  headline: z.string(),
  attempt: z.number(),
  /** Grows with every change: pass it to watch for the next. */
  version: z.number(),
  /** The revision that all live routers must serve before `done`; null until known. */
  revision: revisionSchema.nullable(),
  steps: z.array(z.object({ step: z.string(), at: timestamp, text: z.string() })),
  error: z
    .object({ code: z.string(), message: z.string(), next_steps: z.array(z.string()) })
    .nullable(),
  result: z.record(z.string(), z.unknown()),
  actor: z.string(),
  reason: z.string(),
  createdAt: timestamp,
  updatedAt: timestamp,
});
export type Op = z.infer<typeof opSchema>;

/** 202: recorded; or, for a dry run, 200 with the plan. */
export const acceptedSchema = z.object({
  op: opSchema,
  plan: planSchema,
  next_steps: z.array(z.string()),
});
export const dryRunSchema = z.object({ plan: planSchema, next_steps: z.array(z.string()) });

export const resolutionSchema = z.object({
  tenant: z.string(),
  keyspace: z.string(),
  key: z.string(),
  cell: z.string(),
  epoch: z.number(),
  state: z.string(),
  revision: z.number(),
  move: keyMoveSchema.optional(),
  ...ownerNoteSchema.shape,
  /** How it was found, one sentence per step. */
  trace: z.array(z.string()),
});

export const routerSchema = z.object({
  id: name,
  instance: z.string(),
  admin: z.string(),
  revision: revisionSchema,
  /** Revisions behind the fleet's. */
  behind: z.number(),
  live: z.boolean(),
  seenMs: z.number(),
  release: z.string(),
  /** Carried to an adopted cell although it would have been refused, by error code, since its start. */
  wouldRefuse: z.record(z.string(), z.number()).optional(),
});

export const auditEntrySchema = z.object({
  id: z.number(),
  at: timestamp,
  actor: z.string(),
  role: z.string(),
  action: z.string(),
  object: z.string(),
  reason: z.string(),
  /** `accepted` is written before the effect; a refusal says its code. */
  outcome: z.string(),
  before: z.unknown(),
  after: z.unknown(),
  /** SHA-256 over the previous entry's hash and this entry's canonical JSON. */
  prev: z.string(),
  hash: z.string(),
});
export const auditVerdictSchema = z.object({
  ok: z.boolean(),
  entries: z.number(),
  head: z.string(),
  /** The first entry whose hash does not follow; null when the chain holds. */
  brokenAt: z.number().nullable(),
  text: z.string(),
});

export const tokenSchema = z.object({
  id: z.string(),
  name,
  role: z.enum(roles),
  /** Machine tokens speak for one cell or router only. */
  subject: z.string().nullable(),
  expiresAt: timestamp.nullable(),
  createdAt: timestamp,
});
export const createTokenSchema = z.strictObject({
  name: z.string().min(1).max(80),
  role: z.enum(roles),
  subject: z.string().max(64).optional(),
  /** Seconds from now; absent means it does not expire. */
  ttlSeconds: z.number().int().min(1).max(315_360_000).optional(),
  reason: z.string().max(500).optional(),
});
/** The secret is shown once, here; only its hash is kept. */
export const createdTokenSchema = z.object({ token: tokenSchema, secret: z.string() });

export const importResultSchema = z.object({
  op: opSchema.nullable(),
  accepted: z.number(),
  skipped: z.number(),
  /** The first hundred bad lines. */
  badLines: z.array(z.object({ line: z.number(), error: z.string() })),
  perCell: z.record(z.string(), z.number()),
  next_steps: z.array(z.string()),
});

export const statusSchema = z.object({
  fleet: z.string(),
  /** `normal` or `recovering`. */
  mode: z.enum(["normal", "recovering"]),
  modeReason: z.string(),
  revision: revisionSchema,
  leader: z.object({ holder: z.string(), term: z.number(), self: z.boolean() }).nullable(),
  cells: z.object({ total: z.number(), healthy: z.number(), down: z.number() }),
  tenants: z.number(),
  /** `wouldRefuse`: by live routers, for an adopted cell, since they started. */
  routers: z.object({ live: z.number(), inSync: z.number(), wouldRefuse: z.number().optional() }),
  ops: z.object({ running: z.number(), failed: z.number() }),
  failovers: z.array(cellFailoverSchema).optional(),
  /** The end of the audit chain: note it elsewhere, and no later rewriting of the log goes unseen. */
  audit: z.object({ entries: z.number(), head: z.string() }).optional(),
  release: z.string(),
});
export type FleetStatus = z.infer<typeof statusSchema>;

export const list = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), next: z.string().nullable() });
