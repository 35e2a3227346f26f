/**
 * The routing table: all that a router needs, under one revision.
 *
 * Two wire forms, both signed by the control plane:
 * - a **snapshot**, NDJSON: one head line, then lines of placements in bulk (grouped by keyspace,
 *   kind, cell, epoch and state, so that a million tenants cost little more than their ids), then
 *   one tail line with the digest of all bytes before it and its signature;
 * - a **delta**: what changed between two revisions, with tombstones.
 * The file on a router's disk is the snapshot form. A table of static mode is `staticTableSchema`.
 */
import { z } from "zod";
import { aliasHashSchema, aliasNameMax, aliasNamespaceSchema } from "./alias.ts";
import {
  cellIdSchema,
  epochSchema,
  keyspaceNameSchema,
  revisionSchema,
  tenantIdSchema,
} from "./ids.ts";
import { keyKinds, slotCountMax } from "./placement-key.ts";
import { routerKeysSchema } from "./router-key.ts";
import { serviceRouteSchema } from "./service-route.ts";
import { tenantSourceSchema } from "./tenant-source.ts";
import { trafficPolicySchema } from "./traffic-policy.ts";

/**
 * `active`: forward. `hold`: requests wait at the router for the next revision of this key.
 * `unavailable`: known, but nobody may serve it (503, never another cell). `suspended`: known, and
 * served by nobody on purpose (403).
 */
export const routeStates = ["active", "hold", "unavailable", "suspended"] as const;
export type RouteState = (typeof routeStates)[number];

export const strategies = ["directory", "range", "slots"] as const;
export type Strategy = (typeof strategies)[number];

export const guardModes = ["row", "strict"] as const;
export type GuardMode = (typeof guardModes)[number];

/** An application's entry in a cell. Endpoints are http(s) URLs; several are balanced over. */
export const serviceSchema = z.object({
  endpoints: z
    .array(z.url({ protocol: /^https?$/ }))
    .min(1)
    .max(64),
  /** GET on each endpoint; absent means no active probe. */
  health: z.string().startsWith("/").optional(),
  owner: z.string().max(100).optional(),
});

/**
 * What is told of a move, for data that PostgreSQL does not hold: `url` gets a POST, `command` is run by the
 * control plane (only where its operator allows commands), both with the same JSON.
 */
export const storeHookSchema = z.union([
  z.strictObject({
    url: z
      .url({ protocol: /^https?$/ })
      .max(500)
      .refine((url) => !/^[^/]*\/\/[^/?#]*@/.test(url), {
        error: "must name no user or password: it stands in plans, backups and the audit log",
      }),
    timeoutMs: z.number().int().min(10).max(600_000).default(10_000),
  }),
  z.strictObject({
    command: z.string().min(1).max(500),
    timeoutMs: z.number().int().min(10).max(600_000).default(10_000),
  }),
]);
export type StoreHook = z.infer<typeof storeHookSchema>;

/**
 * Where an application keeps which requests it has served: a table of tenants that is written in the
 * transaction of their effect. After a failover it tells of a write whether it is there.
 */
export const idempotencyTableSchema = z.strictObject({
  /** `TABLE`, or `SCHEMA.TABLE`. */
  table: z.string().min(1).max(130),
  /** Default: the store's key column. */
  tenantColumn: z.string().min(1).max(63).optional(),
  /** Holds the `Idempotency-Key` of the request, as it was sent. */
  keyColumn: z.string().min(1).max(63).default("key"),
});
export type IdempotencyTable = z.infer<typeof idempotencyTableSchema>;

/**
 * An application's data in a cell. `database` and `mover` are references (`env:`, `file:`, `exec:`), never
 * secrets; `mover` logs in as the role that moves tenants (absent: nothing of this store can move).
 * A store of kind `external` (Redis, object storage, search) moves by its `hook`, or says `ignore`; a
 * database that says `ignore` holds nothing of tenants.
 */
export const storeSchema = z.object({
  kind: z.enum(["postgres", "external"]).optional(),
  /** Of a database; a store of another kind has none. */
  database: z.string().min(1).max(200).optional(),
  keyColumn: z.string().min(1).max(63).default("tenant_id"),
  mover: z.string().min(1).max(200).optional(),
  hook: storeHookSchema.optional(),
  ignore: z.boolean().optional(),
  idempotency: idempotencyTableSchema.optional(),
});

/** An external store moves by its hook, or stays behind; a database is reached and has no hook. */
export function refineStore(
  store: {
    readonly kind?: "postgres" | "external" | undefined;
    readonly database?: string | undefined;
    readonly mover?: string | undefined;
    readonly hook?: unknown;
    readonly ignore?: boolean | undefined;
  },
  context: z.RefinementCtx,
): void {
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (store.kind !== "external") {
    if (store.hook !== undefined) refuse("hook", "goes with kind external: a database has none");
    return;
  }
  if (store.database !== undefined) refuse("database", "an external store has none");
  if (store.mover !== undefined) refuse("mover", "an external store has none");
  if ((store.hook === undefined) !== (store.ignore === true)) {
    refuse("hook", "an external store has a hook, or ignore: true; one of them");
  }
}

/**
 * How far a cell that was adopted in place has come. `pass-through`: it takes every request that the
 * table does not place elsewhere, straight at its registered endpoints; its database needs nothing
 * of ours. `observe`: the same, through its agents, and guard, gate and router count what they
 * would refuse. `enforce`: they refuse. A cell that was not adopted is born in `enforce`; at most one
 * cell of a fleet is in another stage.
 */
export const cellStages = ["pass-through", "observe", "enforce"] as const;
export type CellStage = (typeof cellStages)[number];

export const routedCellSchema = z.object({
  id: cellIdSchema,
  services: z.record(z.string().min(1).max(40), serviceSchema),
  region: z.string().max(40).optional(),
  /** Absent means `enforce`. */
  stage: z.enum(cellStages).optional(),
  /** Of an annex: the cell that it stands in, which is what clients are told in `x-cell`. */
  host: cellIdSchema.optional(),
  /** Its ownership is being taken away: its placements are unavailable, no answer of its own is passed on. */
  halted: z.literal(true).optional(),
  /** Halted, and certainly over: its placements are given to new owners at this moment. Requests may wait for that. */
  handover: z.literal(true).optional(),
});
export type RoutedCell = z.infer<typeof routedCellSchema>;

export const routedKeyspaceSchema = z.object({
  name: keyspaceNameSchema,
  strategy: z.enum(strategies),
  /** Of strategy slots: a power of two. */
  slotCount: z.number().int().min(1).max(slotCountMax).optional(),
  guardMode: z.enum(guardModes),
});
export type RoutedKeyspace = z.infer<typeof routedKeyspaceSchema>;

/** Kinds of names that routers are told of, at most. */
export const aliasNamespacesMax = 100;

/** How the names of tenants are hashed, the same in the control plane and in every router (`alias.ts`). */
export const aliasingSchema = z.object({
  /** Of this fleet, hex. Whoever holds the table can try names out; API keys are too many to try. */
  salt: z.string().regex(/^[0-9a-f]{32,128}$/),
  /** `fold`: upper and lower case are the same name. */
  namespaces: z
    .array(z.object({ name: aliasNamespaceSchema, fold: z.boolean() }))
    .max(aliasNamespacesMax),
});
export type Aliasing = z.infer<typeof aliasingSchema>;

/**
 * Names of tenants in bulk: pairs of hash and tenant id. One name may stand for several tenants; a
 * request that has nothing but such a name is ambiguous.
 */
export const aliasGroupSchema = z.object({
  alias: aliasNamespaceSchema,
  keyspace: keyspaceNameSchema,
  names: z.array(z.tuple([aliasHashSchema, tenantIdSchema])).max(10_000),
});
export type AliasGroup = z.infer<typeof aliasGroupSchema>;

/** Services outside of all cells, by name: what a route of class `global` speaks of. */
export const globalServicesSchema = z.record(z.string().min(1).max(40), serviceSchema);

export const snapshotHeadSchema = z.object({
  kind: z.literal("cellfleet.routing-table"),
  version: z.literal(1),
  /** The fleet's own id: a table of another fleet is refused. */
  fleet: z.string().min(1).max(64),
  revision: revisionSchema,
  tenantSources: z.array(tenantSourceSchema),
  serviceRoutes: z.array(serviceRouteSchema),
  keyspaces: z.array(routedKeyspaceSchema),
  cells: z.array(routedCellSchema),
  globalServices: globalServicesSchema.optional(),
  aliasing: aliasingSchema.optional(),
  policy: trafficPolicySchema.optional(),
  /** Absent: a control plane that knows of none, whose cells cannot ask for signatures. */
  routerKeys: routerKeysSchema.optional(),
  /** Placements that follow. */
  placements: z.number().int().min(0),
  /** Names that follow; absent means none. */
  aliases: z.number().int().min(0).optional(),
});
export type SnapshotHead = z.infer<typeof snapshotHeadSchema>;

/** Placements that share all but their value. `values` are tenant ids, range starts or slot numbers as text. */
export const placementGroupSchema = z.object({
  keyspace: keyspaceNameSchema,
  kind: z.enum(keyKinds),
  cell: cellIdSchema,
  epoch: epochSchema,
  state: z.enum(routeStates),
  values: z.array(z.string().max(128)).max(10_000),
});
export type PlacementGroup = z.infer<typeof placementGroupSchema>;

export const snapshotTailSchema = z.object({
  /** SHA-256, hex, of every byte before this line. */
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  /** `tableChecksum` of the table, so that drift after deltas shows. */
  checksum: z.string().regex(/^[0-9a-f]{16}$/),
  keyId: z.string().max(64),
  /** Ed25519 over `cellfleet.routing-table\n<digest>`, base64. */
  signature: z.string().max(200),
});
export type SnapshotTail = z.infer<typeof snapshotTailSchema>;

export const deltaBodySchema = z.object({
  fleet: z.string().min(1).max(64),
  /** The delta applies to exactly this revision. */
  from: revisionSchema,
  to: revisionSchema,
  /** Whole lists, when they changed. */
  tenantSources: z.array(tenantSourceSchema).optional(),
  serviceRoutes: z.array(serviceRouteSchema).optional(),
  keyspaces: z.array(routedKeyspaceSchema).optional(),
  cells: z.array(routedCellSchema).optional(),
  globalServices: globalServicesSchema.optional(),
  aliasing: aliasingSchema.optional(),
  policy: trafficPolicySchema.optional(),
  routerKeys: routerKeysSchema.optional(),
  upserts: z.array(placementGroupSchema),
  /** Tombstones: placement keys that are gone. */
  deletes: z.array(z.string().max(256)),
  /** Names that came, and names that went; absent means none. */
  aliasUpserts: z.array(aliasGroupSchema).optional(),
  aliasDeletes: z.array(aliasGroupSchema).optional(),
  /** Of the table after the delta. A mismatch makes the router ask for a snapshot. */
  checksum: z.string().regex(/^[0-9a-f]{16}$/),
});
export type DeltaBody = z.infer<typeof deltaBodySchema>;

/** `body` is the JSON text that was signed, byte for byte. */
export const signedDeltaSchema = z.object({
  body: z.string(),
  keyId: z.string().max(64),
  /** Ed25519 over `cellfleet.delta\n<body>`, base64. */
  signature: z.string().max(200),
});
export type SignedDelta = z.infer<typeof signedDeltaSchema>;

const staticCellSchema = z.union([
  z.strictObject({ endpoints: serviceSchema.shape.endpoints, health: serviceSchema.shape.health }),
  z.strictObject({ services: z.record(z.string().min(1).max(40), serviceSchema) }),
]);

/** A router without a control plane: one JSON file. Epochs are optional there, so none are checked. */
export const staticTableSchema = z.strictObject({
  tenantKey: z
    .array(tenantSourceSchema)
    .min(1)
    .default([{ header: "x-tenant-id" }]),
  serviceRoutes: z.array(serviceRouteSchema).default([]),
  cells: z
    .record(z.string(), staticCellSchema)
    .refine((cells) => Object.keys(cells).length > 0, "needs at least one cell"),
  tenants: z.record(z.string(), z.string()).default({}),
  /** Pass-through of day one: whatever no listed tenant is named in goes to this cell, by name. */
  passThrough: cellIdSchema.optional(),
  globalServices: globalServicesSchema.optional(),
  policy: trafficPolicySchema.optional(),
  /**
   * Names by namespace, as sources with `alias` find them: of one tenant, or of several. Case counts,
   * except in a namespace that is read from the host.
   */
  aliases: z
    .record(
      aliasNamespaceSchema,
      z.record(
        z.string().min(1).max(aliasNameMax),
        z.union([tenantIdSchema, z.array(tenantIdSchema)]),
      ),
    )
    .optional(),
});
export type StaticTable = z.infer<typeof staticTableSchema>;
