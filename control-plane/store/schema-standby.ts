/**
 * The tables of standbys and failovers. An annex is a row of `cell` (lease, ownership feed, endpoints,
 * recovery: as any cell); here stands what it is the standby of.
 */
import {
  boolean,
  doublePrecision,
  index,
  integer,
  jsonb,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
} from "drizzle-orm/pg-core";
import { standbyProviders, standbyStates } from "../../contract/standby-api.ts";
import { big, control, createdAt, when } from "./schema.ts";

export const standby = control.table(
  "standby",
  {
    /** Its cell id; never used again. */
    annex: text("annex").primaryKey(),
    origin: text("origin").notNull(),
    host: text("host").notNull(),
    generation: integer("generation").notNull().default(1),
    provider: text("provider", { enum: standbyProviders }).notNull(),
    /** Both belong to it. */
    bucketLo: integer("bucket_lo").notNull(),
    bucketHi: integer("bucket_hi").notNull(),
    state: text("state", { enum: standbyStates }).notNull(),
    reason: text("reason").notNull().default(""),
    /** The origin's partner list that names it for the first time, and that leaves it out; null: not yet. */
    listedAt: big("listed_at"),
    unlistedAt: big("unlisted_at"),
    /** As looked at last. */
    lagBytes: doublePrecision("lag_bytes"),
    /** The newest heartbeat of the origin that was applied there, by its own agent's word, and when it said so. */
    heartbeatAgeMs: doublePrecision("heartbeat_age_ms"),
    sees: text("sees", { enum: ["unknown", "alive", "silent"] })
      .notNull()
      .default("unknown"),
    reportedAt: when("reported_at"),
    /** Remaining promise to the origin when it reported. */
    promiseRemainingMs: doublePrecision("promise_remaining_ms").notNull().default(0),
    /** The latest that its database knew of the origin's (`originSeenSchema`): numbers only grow. */
    seenSystem: text("seen_system").notNull().default(""),
    seenTimeline: integer("seen_timeline").notNull().default(0),
    seenBoot: text("seen_boot"),
    seenGrant: big("seen_grant").notNull().default(0),
    seenLsn: text("seen_lsn").notNull().default("0/0"),
    seenAt: when("seen_at"),
    /** When its word was wanted: a database of the origin's that was started anew asks for a lease. */
    askedAt: when("asked_at"),
    /** The takeover that it is told of (`takeoverOrderSchema`); null: none. */
    orderFailover: text("order_failover"),
    orderAttempt: integer("order_attempt").notNull().default(0),
    orderOpen: boolean("order_open").notNull().default(false),
    /** With `orderOpen`: the origin is proved dead, so promises to it bind no more. */
    orderProved: boolean("order_proved").notNull().default(false),
    /** The takeover that its database recorded: failover and attempt; and whether keys may become active. */
    takeoverFailover: text("takeover_failover"),
    takeoverAttempt: integer("takeover_attempt").notNull().default(0),
    takeoverOpen: boolean("takeover_open").notNull().default(false),
    /** When its stream was cut: the origin's position applied by then. */
    severedAt: when("severed_at"),
    remoteLsn: text("remote_lsn"),
    createdAt,
    updatedAt: when("updated_at").notNull().defaultNow(),
  },
  (table) => [index("standby_origin").on(table.origin), index("standby_host").on(table.host)],
);

export const failover = control.table(
  "failover",
  {
    op: text("op").primaryKey(),
    cell: text("cell").notNull(),
    region: text("region").notNull(),
    mode: text("mode", { enum: ["planned", "unplanned"] }).notNull(),
    /** `auto`, or who asked. */
    startedBy: text("started_by").notNull(),
    /** `failoverPlanSchema`: witnesses, gates, partners as they were when it was decided. */
    plan: jsonb("plan").notNull(),
    options: jsonb("options").notNull().default({}),
    /** A person's wish that is not fulfilled yet. */
    wish: text("wish", { enum: ["none", "abort", "resume"] })
      .notNull()
      .default("none"),
    /** Evidence step by step (waits, leases, severed positions), phases in milliseconds, progress. */
    evidence: jsonb("evidence").notNull().default({}),
    phases: jsonb("phases").notNull().default({}),
    progress: jsonb("progress").notNull().default({}),
    /** When REVOKING was committed, and when the old owner certainly had stopped. */
    revokedAt: when("revoked_at"),
    fencedAt: when("fenced_at"),
    /** `rpoReportSchema`. */
    report: jsonb("report"),
    /** The newest page of acknowledged writes (`failover_ack.id`) that it counts. */
    reportAcks: big("report_acks").notNull().default(0),
    /** Set while it is open: of two failovers of one cell the second is refused. */
    open: boolean("open").notNull().default(true),
    createdAt,
  },
  (table) => [index("failover_cell").on(table.cell), index("failover_created").on(table.createdAt)],
);

/** What routers handed in of a failed-over cell's acknowledged writes, page by page. */
export const failoverAck = control.table(
  "failover_ack",
  {
    id: big("id").primaryKey().generatedAlwaysAsIdentity(),
    failover: text("failover").notNull(),
    router: text("router").notNull(),
    instance: text("instance").notNull(),
    /** `ackedWriteSchema[]`. */
    entries: jsonb("entries").notNull(),
    completeSinceMs: doublePrecision("complete_since_ms").notNull(),
    routerNowMs: doublePrecision("router_now_ms").notNull(),
    last: boolean("last").notNull(),
    createdAt,
  },
  (table) => [index("failover_ack_failover").on(table.failover)],
);

export const keyFates = [
  /** Given to an annex. */
  "adopted",
  /** Given back to the cell it was just being moved from, which has all its rows. */
  "returned",
  /** Nobody holds a copy that may be used; `reason` says why, and what mends it. */
  "unavailable",
  /** It may be what brought its new cell down: nobody is served until a person has looked. */
  "quarantined",
] as const;

/** What became of each key of a failed-over cell; `placement.op` of a key leads here. */
export const failoverKey = control.table(
  "failover_key",
  {
    failover: text("failover").notNull(),
    key: text("key").notNull(),
    fate: text("fate", { enum: keyFates }).notNull(),
    /** Where it went; null: nowhere. */
    target: text("target"),
    /** 0 are the canaries. */
    wave: integer("wave").notNull(),
    /** At the dead cell. */
    epoch: big("epoch").notNull(),
    reason: text("reason").notNull().default(""),
    /** Of one that was returned: how far the copy there had come in the dead cell's log; null: not known. */
    remoteLsn: text("remote_lsn"),
    at: when("at").notNull().defaultNow(),
  },
  (table) => [
    primaryKey({ columns: [table.failover, table.key] }),
    index("failover_key_key").on(table.key),
  ],
);
