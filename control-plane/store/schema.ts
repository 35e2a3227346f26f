/**
 * The control plane's tables. Enumerations come from the contract's arrays, so that database, API
 * and state machines cannot drift apart.
 *
 * Two numbers order everything: `fleet.revision` (one row, locked by every transaction that changes
 * routing, so revisions are handed out in commit order) and each placement's `epoch`. A row of
 * `placement` carries the revision of its last change: "what changed since R" is one index scan,
 * and hold and release of a key are states of one row, so a late hold cannot follow its release.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgSchema,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
} from "drizzle-orm/pg-core";
import {
  cellHealths,
  cellStates,
  opStates,
  placementStates,
  roles,
  tiers,
} from "../../contract/control-api.ts";
import { leaseModes } from "../../contract/lease-mode.ts";
import { keyKinds } from "../../contract/placement-key.ts";
import { cellStages, guardModes, strategies } from "../../contract/routing-table.ts";
import { recoverySteps } from "../core/recovery.ts";

/** One schema of its own: `DATABASE_URL` may point into a database that others use too. */
export const control = pgSchema("cellfleet_control");

export const big = (name: string) => bigint(name, { mode: "number" });
export const when = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });
export const createdAt = when("created_at").notNull().defaultNow();

/** Exactly one row. */
export const fleet = control.table("fleet", {
  one: boolean("one").primaryKey().default(true),
  /** Minted once; a routing table or an agent of another fleet is refused. */
  id: text("id").notNull(),
  revision: big("revision").notNull().default(0),
  /** The revision at which routing rules, keyspaces or cells changed last. */
  configRevision: big("config_revision").notNull().default(0),
  mode: text("mode", { enum: ["normal", "recovering"] })
    .notNull()
    .default("normal"),
  modeReason: text("mode_reason").notNull().default(""),
  /** Where recovery after a restore stands (core/recovery.ts); `none` in mode normal. */
  recoveryStep: text("recovery_step", { enum: recoverySteps }).notNull().default("none"),
  recoverySince: when("recovery_since"),
  /** The highest that any cell or router presented since recovery began (corrections A5). */
  revisionMaxSeen: big("revision_max_seen").notNull().default(0),
  epochMaxSeen: big("epoch_max_seen").notNull().default(0),
  /** What losers of a key must have applied before anything is granted; 0 while unknown. */
  fenceRevision: big("fence_revision").notNull().default(0),
  /** Server, timeline and database this row was last served from: another one means a restore. */
  incarnation: text("incarnation").notNull().default(""),
  tenantSources: jsonb("tenant_sources").notNull(),
  serviceRoutes: jsonb("service_routes").notNull(),
  globalServices: jsonb("global_services").notNull().default({}),
  policy: jsonb("policy").notNull().default({}),
  /** Hex; minted once: names of tenants are hashed with it (contract/alias.ts). */
  aliasSalt: text("alias_salt")
    .notNull()
    .default(sql`replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')`),
  /** The end of the audit chain, so that a cut tail shows too. Guarded by this row's lock. */
  auditEntries: big("audit_entries").notNull().default(0),
  auditHead: text("audit_head").notNull().default(""),
  createdAt,
});

/** Exactly one row: who acts, and since which term. Every effect of the leader checks the term. */
export const leader = control.table("leader", {
  one: boolean("one").primaryKey().default(true),
  term: big("term").notNull().default(0),
  holder: text("holder").notNull().default(""),
  expiresAt: when("expires_at").notNull().default(sql`'-infinity'`),
});

export const keyspace = control.table("keyspace", {
  name: text("name").primaryKey(),
  strategy: text("strategy", { enum: strategies }).notNull(),
  slotCount: integer("slot_count"),
  guardMode: text("guard_mode", { enum: guardModes }).notNull(),
  createdAt,
});

export const cell = control.table("cell", {
  id: text("id").primaryKey(),
  state: text("state", { enum: cellStates }).notNull(),
  goal: text("goal", { enum: cellStates }).notNull(),
  health: text("health", { enum: cellHealths }).notNull().default("unknown"),
  healthReason: text("health_reason").notNull().default("no agent has reported yet"),
  region: text("region").notNull(),
  failureDomain: text("failure_domain").notNull(),
  tiers: text("tiers", { enum: tiers }).array().notNull(),
  dedicated: boolean("dedicated").notNull(),
  provider: text("provider").notNull(),
  capacityTenants: big("capacity_tenants").notNull(),
  capacityBytes: big("capacity_bytes").notNull(),
  capacityRps: doublePrecision("capacity_rps").notNull(),
  maxTenantShare: doublePrecision("max_tenant_share").notNull(),
  /** Reserved in the transaction that places a tenant, so that concurrent creates cannot overfill. */
  usedTenants: big("used_tenants").notNull().default(0),
  usedBytes: big("used_bytes").notNull().default(0),
  usedRps: doublePrecision("used_rps").notNull().default(0),
  services: jsonb("services").notNull(),
  stores: jsonb("stores").notNull(),
  release: text("release").notNull().default(""),
  schemaVersion: text("schema_version").notNull().default(""),
  /** The last lease granted, with the TTL it was granted for (corrections A6). */
  grant: big("grant_no").notNull().default(0),
  leaseGrantedAt: when("lease_granted_at"),
  leaseTtlMs: integer("lease_ttl_ms").notNull().default(0),
  leaseTerm: big("lease_term").notNull().default(0),
  /** How its leases end, by which change, and the change that its database has acknowledged; -1: not known. */
  leaseMode: text("lease_mode", { enum: leaseModes }).notNull().default("timed"),
  leaseModeNumber: big("lease_mode_number").notNull().default(0),
  leaseModeAcked: big("lease_mode_acked").notNull().default(0),
  /** Set while ownership is being taken away: nothing is granted any more. */
  revoking: boolean("revoking").notNull().default(false),
  /** The database incarnation that holds the cell's lease (corrections A14). */
  systemIdentifier: text("system_identifier").notNull().default(""),
  timeline: integer("timeline").notNull().default(0),
  /** Start of that database's server, and the agent that spoke for it when it was granted last. */
  boot: text("boot").notNull().default(""),
  bootInstance: text("boot_instance").notNull().default(""),
  /** The highest grant number that the cell's database presented: an older one is time travel. */
  grantSeen: big("grant_seen").notNull().default(0),
  /** The highest of those that it said came from a control plane, not from itself by its partners' promises. */
  controlGrantSeen: big("control_grant_seen").notNull().default(0),
  /** It was adopted in place: its registered endpoints are the application itself, not our gates. */
  adopted: boolean("adopted").notNull().default(false),
  /**
   * How far an adopted cell is (contract/routing-table.ts): what routers are told, since when, what
   * its agents are told, and how far its database is. The first and the third differ while a stage changes.
   */
  stage: text("stage", { enum: cellStages }).notNull().default("enforce"),
  stageAt: when("stage_at").notNull().defaultNow(),
  stageGoal: text("stage_goal", { enum: cellStages }).notNull().default("enforce"),
  stageApplied: text("stage_applied", { enum: cellStages }).notNull().default("enforce"),
  /**
   * Which change of `stage_goal` this is, and which one its database made last: what a database knows
   * of a later change is stronger than any answer that was under way, and than a restored backup of this.
   */
  stageNumber: big("stage_number").notNull().default(0),
  stageAppliedNumber: big("stage_applied_number").notNull().default(0),
  /** What guard and gate would have refused, by code, as the primary agent reported it last. */
  wouldRefuse: jsonb("would_refuse").notNull().default({}),
  /** When one of these grew last; null: never. */
  wouldRefuseAt: when("would_refuse_at"),
  /** Tables of tenants under the guard, as reported. */
  guardedTables: integer("guarded_tables").notNull().default(0),
  /** Tables that stand in no class (contract/cell-protocol.ts), as reported; null: not told yet. */
  unclassed: jsonb("unclassed"),
  /** Of an annex (contract/annex.ts): whose standby it is, and where it stands. */
  annexOrigin: text("annex_origin"),
  annexHost: text("annex_host"),
  /** Routers take its placements for unavailable and pass on no answer of it. */
  halted: boolean("halted").notNull().default(false),
  /** The revision of the partner list that the cell is told, and the one that its database has stored. */
  partnerRevision: big("partner_revision").notNull().default(0),
  partnerAcked: big("partner_acked").notNull().default(0),
  /** What the cell's agent has applied and read back. */
  appliedRevision: big("applied_revision").notNull().default(0),
  /** Observed highest, for recovery after a restore (corrections A5). */
  epochMaxSeen: big("epoch_max_seen").notNull().default(0),
  createdAt,
});

export const agent = control.table(
  "agent",
  {
    cell: text("cell").notNull(),
    instance: text("instance").notNull(),
    endpoint: text("endpoint").notNull(),
    primary: boolean("is_primary").notNull(),
    appReachable: boolean("app_reachable").notNull().default(false),
    databaseReachable: boolean("database_reachable").notNull().default(false),
    /** Services of the cell that it stands in front of. */
    services: text("services").array().notNull().default(sql`array['default']`),
    seenAt: when("seen_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.cell, table.instance] })],
);

export const placement = control.table(
  "placement",
  {
    key: text("key").primaryKey(),
    keyspace: text("keyspace").notNull(),
    kind: text("kind", { enum: keyKinds }).notNull(),
    value: text("value").notNull(),
    cell: text("cell").notNull(),
    epoch: big("epoch").notNull(),
    state: text("state", { enum: placementStates }).notNull(),
    revision: big("revision").notNull(),
    op: text("op").notNull(),
    attempt: integer("attempt").notNull().default(0),
    /** A tombstone: routers are told that the key is gone. */
    deleted: boolean("deleted").notNull().default(false),
  },
  (table) => [
    index("placement_revision").on(table.revision),
    index("placement_cell_revision").on(table.cell, table.revision),
    index("placement_pending").on(table.cell, table.revision).where(sql`state = 'pending'`),
    index("placement_pending_op").on(table.op).where(sql`state = 'pending'`),
    // The container of a tenant in a keyspace of ranges: the greatest start not above it, in byte order.
    index("placement_container").on(table.keyspace, table.kind, sql`value COLLATE "C"`),
  ],
);

export const tenant = control.table(
  "tenant",
  {
    id: text("id").primaryKey(),
    keyspace: text("keyspace").notNull(),
    tier: text("tier", { enum: tiers }).notNull(),
    region: text("region"),
    sizeBytes: big("size_bytes").notNull(),
    sizeRps: doublePrecision("size_rps").notNull(),
    measuredRows: big("measured_rows").notNull().default(0),
    measuredBytes: big("measured_bytes").notNull().default(0),
    measuredRps: doublePrecision("measured_rps").notNull().default(0),
    labels: jsonb("labels").notNull(),
    /** The key the tenant is served under: its own, or its container's. */
    placementKey: text("placement_key").notNull(),
    createdAt,
  },
  (table) => [
    index("tenant_placement_key").on(table.placementKey),
    index("tenant_gold").on(table.placementKey).where(sql`tier = 'gold'`),
    index("tenant_labels").using("gin", table.labels),
  ],
);

export const router = control.table("router", {
  id: text("id").primaryKey(),
  instance: text("instance").notNull(),
  admin: text("admin").notNull(),
  revision: big("revision").notNull(),
  epochMax: big("epoch_max").notNull().default(0),
  checksum: text("checksum").notNull().default(""),
  release: text("release").notNull().default(""),
  /** What it would have refused for a cell in pass-through or observe, by error code, since its start. */
  wouldRefuse: jsonb("would_refuse").notNull().default({}),
  /** Its public keys (contract/router-key.ts), newest first, as routing tables name them. */
  keys: jsonb("keys").notNull().default([]),
  /** When one of these grew last; null: never. */
  wouldRefuseAt: when("would_refuse_at"),
  /** When it called for the first time; null: before anybody noted that. */
  firstSeenAt: when("first_seen_at"),
  seenAt: when("seen_at").notNull().defaultNow(),
});

export const op = control.table(
  "op",
  {
    id: text("id").primaryKey(),
    kind: text("kind").notNull(),
    object: text("object").notNull(),
    state: text("state", { enum: opStates }).notNull(),
    step: text("step").notNull(),
    headline: text("headline").notNull(),
    attempt: integer("attempt").notNull().default(0),
    /** Grows with every change; the condition of every compare-and-set. */
    version: integer("version").notNull().default(1),
    revision: big("revision"),
    steps: jsonb("steps").notNull().default([]),
    error: jsonb("error"),
    input: jsonb("input").notNull().default({}),
    result: jsonb("result").notNull().default({}),
    actor: text("actor").notNull(),
    reason: text("reason").notNull().default(""),
    /** The plan that was recorded, as `--dry-run` prints it. */
    plan: jsonb("plan").notNull().default({}),
    /** The running step ends in failure, or says so, after this. */
    deadlineAt: when("deadline_at"),
    createdAt,
    updatedAt: when("updated_at").notNull().defaultNow(),
  },
  (table) => [
    index("op_open").on(table.state).where(sql`state in ('pending','running')`),
    index("op_object").on(table.object),
  ],
);

export const event = control.table("event", {
  id: big("id").primaryKey().generatedAlwaysAsIdentity(),
  at: when("at").notNull().defaultNow(),
  kind: text("kind").notNull(),
  object: text("object").notNull(),
  text: text("text").notNull(),
});

/** Append-only (a trigger refuses UPDATE, DELETE and TRUNCATE); ids have no gaps. */
export const audit = control.table("audit", {
  id: big("id").primaryKey(),
  at: when("at").notNull(),
  actor: text("actor").notNull(),
  role: text("role").notNull(),
  action: text("action").notNull(),
  object: text("object").notNull(),
  reason: text("reason").notNull(),
  outcome: text("outcome").notNull(),
  before: jsonb("before"),
  after: jsonb("after"),
  prev: text("prev").notNull(),
  hash: text("hash").notNull(),
});

export const token = control.table(
  "token",
  {
    id: text("id").primaryKey(),
    name: text("name").notNull(),
    role: text("role", { enum: roles }).notNull(),
    /** The cell or router a machine token speaks for. */
    subject: text("subject"),
    /** SHA-256, hex: the secret has 256 random bits, so no slow hash is needed. */
    hash: text("hash").notNull(),
    expiresAt: when("expires_at"),
    revokedAt: when("revoked_at"),
    createdAt,
  },
  (table) => [uniqueIndex("token_hash").on(table.hash)],
);

export const idempotency = control.table(
  "idempotency",
  {
    tokenId: text("token_id").notNull(),
    key: text("key").notNull(),
    /** SHA-256 over method, path and body. */
    requestHash: text("request_hash").notNull(),
    /** Null while the first request is being served. */
    status: integer("status"),
    body: jsonb("body"),
    createdAt,
  },
  (table) => [
    primaryKey({ columns: [table.tokenId, table.key] }),
    index("idempotency_age").on(table.createdAt),
  ],
);

/** Where the next leased id range of a sequence begins, fleet-wide. Only ever grows. */
export const idSequence = control.table("id_sequence", {
  sequence: text("sequence").primaryKey(),
  next: big("next").notNull(),
});

/** Id ranges handed to cells, for ever disjoint. */
export const idLease = control.table(
  "id_lease",
  {
    sequence: text("sequence").notNull(),
    lo: big("lo").notNull(),
    hi: big("hi").notNull(),
    cell: text("cell").notNull(),
    createdAt,
  },
  (table) => [primaryKey({ columns: [table.sequence, table.lo] })],
);
