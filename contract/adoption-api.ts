/**
 * What is asked of the control plane about adopting a running application as a cell, and about the
 * end of a tenant: suspended, resumed, exported, deleted with a receipt.
 */
import { z } from "zod";
import { capacitySchema, dryRunSchema, intentSchema, tiers } from "./control-api.ts";
import {
  cellIdSchema,
  epochSchema,
  keyspaceNameSchema,
  opIdSchema,
  tenantIdSchema,
} from "./ids.ts";
import { placementKeySchema } from "./placement-key.ts";
import {
  cellStages,
  guardModes,
  refineStore,
  serviceSchema,
  storeSchema,
} from "./routing-table.ts";
import { overrideSafetySchema } from "./safety-api.ts";

/** A reference to a secret; a URL with a password in it would stand in backups, plans and the audit log. */
export const secretRefPattern = /^(?:env:[A-Za-z_]\w*|file:.+|exec:.+)$/s;
const referenceSchema = z
  .string()
  .max(200)
  .regex(secretRefPattern, "must be a reference, env:NAME, file:PATH or exec:COMMAND, never a URL");
export const adoptedStoreSchema = storeSchema.extend({
  database: referenceSchema,
  mover: referenceSchema.optional(),
});

/**
 * How the databases of a cell are reached, and how the data of its other stores moves. What is not said of a
 * database stays, and none is forgotten; null forgets a store of kind `external`.
 */
export const cellStoresSchema = z.strictObject({
  stores: z
    .record(
      z.string().regex(/^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/, {
        error: "must be 1 to 40 characters: a lower-case letter, then letters, digits and dashes",
      }),
      z
        .strictObject({
          /** `external`: Redis, object storage, search; absent: a database. */
          kind: storeSchema.shape.kind,
          /** Of a database that is new to the cell it must be said. */
          database: referenceSchema.optional(),
          /** Logs in as the role that moves tenants. */
          mover: referenceSchema.optional(),
          keyColumn: storeSchema.shape.keyColumn.unwrap().optional(),
          /** Of an external store: what is told of a move. */
          hook: storeSchema.shape.hook,
          /** It holds nothing of tenants that would have to move: moves leave it out. */
          ignore: z.boolean().optional(),
          /** Asked after a failover whether an acknowledged write is there. */
          idempotency: storeSchema.shape.idempotency,
        })
        .superRefine(refineStore)
        .nullable(),
    )
    .refine((stores) => Object.keys(stores).length > 0, { error: "names no store" }),
  ...intentSchema.shape,
});
export type CellStores = z.output<typeof cellStoresSchema>;

/** Registers what runs already. Nothing is copied, and nothing of ours needs to run there yet. */
export const adoptCellSchema = z.strictObject({
  id: cellIdSchema,
  /** Shorthand for the service `default`. */
  endpoints: serviceSchema.shape.endpoints.optional(),
  services: z.record(z.string().min(1).max(40), serviceSchema).optional(),
  /** By name; the first database of an application is its store `default`. */
  stores: z.record(z.string().min(1).max(40), adoptedStoreSchema),
  /** Go on to stage `observe` as soon as the cell's agent is there. */
  observe: z.boolean().default(false),
  /** Of the keyspace `default`, which owns nothing yet. `row` asks nothing of the application. */
  guardMode: z.enum(guardModes).default("row"),
  region: z.string().min(1).max(40).default("local"),
  failureDomain: z.string().min(1).max(40).optional(),
  tiers: z.array(z.enum(tiers)).default([]),
  capacity: capacitySchema.prefault({}),
  ...intentSchema.shape,
});
export type AdoptCell = z.output<typeof adoptCellSchema>;

export const stageCellSchema = z.strictObject({
  stage: z.enum(cellStages),
  /** To `enforce` although something would have been refused lately, or no tenant is placed yet. */
  acceptRefusals: z.boolean().default(false),
  ...intentSchema.shape,
});

export const destroyCellSchema = z.strictObject({
  /**
   * The word of whoever asks that the storage of a cell without a provider is gone. A deletion that
   * waits for the cell then ends without its confirmation, and the receipt says on whose word.
   */
  storageRemoved: z.boolean().default(false),
  override: overrideSafetySchema,
  ...intentSchema.shape,
});

/** One condition of a change of stage, as it stood when it was looked at. */
export const stageConditionSchema = z.object({
  name: z.string(),
  ok: z.boolean(),
  text: z.string(),
});
export type StageCondition = z.infer<typeof stageConditionSchema>;

/** A dry run of a change of stage: the plan, and whether it may begin now. */
export const stageDryRunSchema = dryRunSchema.extend({ conditions: z.array(stageConditionSchema) });

/** The keyspace tells two tenants of one id apart; absent means wherever it is registered. */
export const tenantActionSchema = z.strictObject({
  keyspace: keyspaceNameSchema.optional(),
  ...intentSchema.shape,
});

/** Where a tenant's rows stand: for whoever copies them out. The audit log knows who asked. */
export const tenantExportSchema = z.object({
  tenant: tenantIdSchema,
  keyspace: keyspaceNameSchema,
  key: placementKeySchema,
  cell: cellIdSchema,
  epoch: epochSchema,
  stores: z.record(z.string(), storeSchema),
});
export type TenantExport = z.infer<typeof tenantExportSchema>;

/** What was removed where. Backups are out of reach, and the receipt says so. */
export const receiptSchema = z.object({
  tenant: tenantIdSchema,
  keyspace: keyspaceNameSchema,
  key: placementKeySchema,
  op: opIdSchema,
  /** False while a cell has not confirmed yet. */
  complete: z.boolean(),
  requestedAt: z.string(),
  completedAt: z.string().nullable(),
  cells: z.array(
    z.object({
      cell: cellIdSchema,
      /** `purged`: no row is left. `waiting`: not confirmed yet. `retired`: destroyed with its storage. */
      state: z.enum(["purged", "waiting", "retired"]),
      /** Rows removed, by table. */
      rows: z.record(z.string(), z.number()),
      confirmedAt: z.string().nullable(),
    }),
  ),
  /** Names that were released. */
  claims: z.number(),
  notes: z.array(z.string()),
});
export type Receipt = z.infer<typeof receiptSchema>;
