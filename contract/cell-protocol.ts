/**
 * What a cell's agent and the control plane say to each other.
 *
 * The agent asks, the control plane answers: one long-polled call carries the heartbeat, what the
 * agent has applied, what it saw highest, and brings the lease, changes of ownership in order of
 * revision, and id ranges. A cell therefore needs no inbound door for the control plane, and a
 * control plane that is gone is simply silent.
 *
 * Order matters (corrections A5, A14): the agent presents the highest revision, epoch and grant
 * that its database has seen; a control plane that knows less than the cell must not grant.
 */
import { z } from "zod";
import { cellIdSchema, epochSchema, keyspaceNameSchema, revisionSchema } from "./ids.ts";
import { leaseModeWordSchema } from "./lease-mode.ts";
import { placementKeySchema } from "./placement-key.ts";
import { announcedKeysSchema } from "./router-key.ts";
import { cellStages, guardModes, strategies } from "./routing-table.ts";
import { outcomeBatchSchema, servedCountSchema, servedCountsMax } from "./served-counts.ts";
import {
  annexReportSchema,
  originReportSchema,
  partnerListSchema,
  takeoverOrderSchema,
} from "./standby-api.ts";

/** More changes of a cell's stage than anybody makes; above it a number is nonsense. */
const stageNumberMax = 1_000_000_000_000;

/** A placement key in one cell's database. Only `active` may write and be read by the application. */
export const ownershipStates = ["active", "fenced", "importing", "moved", "dropped"] as const;
export type OwnershipState = (typeof ownershipStates)[number];

/** What the control plane wants a cell's database to say about one key. */
export const ownershipChangeSchema = z.object({
  key: placementKeySchema,
  state: z.enum(ownershipStates),
  epoch: epochSchema,
  /** The operation and its attempt: a cell refuses a smaller pair than the last it obeyed. */
  op: z.string().max(64),
  attempt: z.number().int().min(0),
  /**
   * With state `dropped`, or `fenced` for a key above a container: remove every row of the key from
   * every guarded table, and report it.
   */
  purge: z.boolean().optional(),
});
export type OwnershipChange = z.infer<typeof ownershipChangeSchema>;

/** Measured per tenant since the last report; absolute values, not differences. */
export const tenantStatSchema = z.object({
  keyspace: keyspaceNameSchema,
  tenant: z.string().max(128),
  rows: z.number().int().min(0),
  bytes: z.number().int().min(0),
  /** Requests per second over the last window. */
  rps: z.number().min(0),
});
export type TenantStat = z.infer<typeof tenantStatSchema>;

/**
 * Tables of a cell's database that its manifest does not class, or classes `tenant` while no guard is on
 * them: guard, move and standby would pass them by (corrections A20).
 */
export const unclassedTablesSchema = z.object({
  count: z.number().int().min(0),
  /** The first of them, for people: `public.notes`. */
  names: z.array(z.string().max(200)).max(20),
});
export type UnclassedTables = z.infer<typeof unclassedTablesSchema>;

export const agentSyncRequestSchema = z.object({
  cell: cellIdSchema,
  /** The fleet that this cell's database belongs to, once an answer has told it: another one is refused. */
  fleet: z.string().max(64).optional(),
  /** One agent process; the primary is the one that holds the advisory lock in the cell's database. */
  instance: z.string().max(64),
  primary: z.boolean(),
  /** The ingress of this agent, as routers reach it. */
  endpoint: z.url({ protocol: /^https?$/ }),
  release: z.string().max(64),
  schemaVersion: z.string().max(64),
  database: z.object({
    /** `pg_control_system().system_identifier`, as text: it is a 64-bit number. */
    systemIdentifier: z.string().max(32),
    timeline: z.number().int().min(1),
    /** `pg_postmaster_start_time()`, ISO 8601. */
    boot: z.string().max(40),
    /** The highest grant number stored durably in the cell's database, of several stores the lowest; 0 if none. */
    grant: z.number().int().min(0),
    reachable: z.boolean(),
  }),
  /** Ownership of this cell is applied, and read back, up to this revision, in all its stores. */
  appliedRevision: revisionSchema,
  /** The highest epoch in the cell's database; 0 if it owns nothing. */
  epochMax: z.number().int().min(0),
  /** Changes that the cell refused because it knows something newer. */
  refused: z
    .array(
      z.object({ key: placementKeySchema, state: z.enum(ownershipStates), epoch: epochSchema }),
    )
    .max(1000),
  app: z.object({ reachable: z.boolean() }),
  /** Services of this cell that this agent stands in front of; absent means `default` alone. */
  services: z.array(z.string().min(1).max(40)).max(100).optional(),
  /** How far the cell's database has come, and what it would have refused in stage `observe`. */
  stage: z
    .object({
      /** Durable in the cell's database. */
      applied: z.enum(cellStages),
      /** `stageNumber` of the last change that was made there; absent or 0: none was. */
      number: z.number().int().min(0).max(stageNumberMax).optional(),
      /** Since the SQL pack was installed, by SQLSTATE (`CF001`, …) of the guard and code of the gate. */
      wouldRefuse: z.record(z.string().max(40), z.number().int().min(0)),
      /** Tables of tenants under the guard. */
      guardedTables: z.number().int().min(0),
      /** Absent: not looked at yet. */
      unclassed: unclassedTablesSchema.optional(),
    })
    .optional(),
  /** Purges that are finished: rows removed per table, and that none was left. Repeated until answered. */
  purged: z
    .array(
      z.object({
        key: placementKeySchema,
        op: z.string().max(64),
        attempt: z.number().int().min(0),
        rows: z.record(z.string().max(200), z.number().int().min(0)),
      }),
    )
    .max(1000)
    .optional(),
  /** Ask for a lease grant; the agent has read its database's clock before sending. */
  wantLease: z.boolean(),
  /** Of the lease that stands, by the agent's monotonic clock; absent: an agent of an earlier release. */
  leaseLeftMs: z.number().min(0).optional(),
  /** It is not for all keys: those that a silent partner may have taken over are stopped. */
  leaseInPart: z.boolean().optional(),
  /** How its leases end, as all stores have it; absent: an agent of an earlier release, whose leases are timed. */
  leaseMode: leaseModeWordSchema.optional(),
  /** Sequences whose leased ids run low: `public.orders_id_seq`, of a further store `billing/public.…`. */
  wantIdRanges: z
    .array(z.object({ sequence: z.string().max(200), floor: z.number().int().min(0) }))
    .max(500),
  /**
   * The highest id of all ranges this cell holds, per sequence: a control plane that was restored
   * from an older state must not hand them out again.
   */
  idRangesHeld: z
    .array(z.object({ sequence: z.string().max(200), max: z.number().int().min(0) }))
    .max(500)
    .optional(),
  stats: z.array(tenantStatSchema).max(10_000),
  /** How requests of tenants ended; absent: nothing new, or an agent of an earlier release. */
  outcomes: outcomeBatchSchema.optional(),
  /** Wait at most this long for changes, in milliseconds; 0 answers at once. */
  waitMs: z.number().int().min(0).max(30_000),
  /** What this cell knows as the origin of standbys; absent: a cell of an earlier release. */
  origin: originReportSchema.optional(),
  /** Of an annex. */
  annex: annexReportSchema.optional(),
  /** In answer to `report: "ownership"`: a page of all the cell's keys, in key order. */
  ownership: z
    .object({
      entries: z
        .array(
          z.object({ key: placementKeySchema, state: z.enum(ownershipStates), epoch: epochSchema }),
        )
        .max(10_000),
      last: z.boolean(),
    })
    .optional(),
});
export type AgentSyncRequest = z.infer<typeof agentSyncRequestSchema>;

export const agentSyncResponseSchema = z.object({
  fleet: z.string(),
  /** Changes up to this revision are in `changes`; the cursor of the next call. */
  revision: revisionSchema,
  /** Whole revisions: one may change all slots of a keyspace in one cell. */
  changes: z.array(ownershipChangeSchema).max(20_000),
  /** True when more changes wait: call again at once. */
  more: z.boolean(),
  keyspaces: z.array(
    z.object({
      name: keyspaceNameSchema,
      strategy: z.enum(strategies),
      slotCount: z.number().int().optional(),
      guardMode: z.enum(guardModes),
      /** Strategy range: where ranges begin, of all cells; without them the last one here had no end. */
      ranges: z.array(z.string()).optional(),
    }),
  ),
  /** Absent: no lease is granted now; `leaseRefused` then says why. */
  lease: z.object({ grant: z.number().int().min(1), ttlMs: z.number().int().min(1) }).optional(),
  leaseRefused: z.string().optional(),
  /** How its leases are to end; absent: as they do. */
  leaseMode: leaseModeWordSchema.optional(),
  idRanges: z.array(
    z.object({
      sequence: z.string(),
      /** Both ends belong to the range. Below 2^53. */
      lo: z.number().int(),
      hi: z.number().int(),
    }),
  ),
  /** The control plane was restored and wants to hear all the cell knows. */
  report: z.enum(["nothing", "ownership"]),
  /** The stage that the cell is to be in; absent means as it is. */
  stage: z.enum(cellStages).optional(),
  /** With `stage`: which change of it this is. What is older than a cell's database knows is void. */
  stageNumber: z.number().int().min(0).max(stageNumberMax).optional(),
  /** Standby partners of this cell; absent: as they were. */
  partners: partnerListSchema.optional(),
  /** To an annex: what it is one of, and the failover that takes its keys, if one does. */
  annex: z
    .object({
      origin: cellIdSchema,
      /** What the origin's agent shows when it asks for a promise. */
      token: z.string().max(200),
      /** The origin's agents, to be asked whether they serve when its heartbeats fail to arrive. */
      endpoints: z
        .array(z.url({ protocol: /^https?$/ }))
        .max(20)
        .optional(),
      takeover: takeoverOrderSchema.optional(),
    })
    .optional(),
  /** Keys of tenants of tier gold in this cell whose answers wait for a partner; absent: as it was. */
  gold: z
    .object({
      keys: z.array(placementKeySchema).max(100_000),
      onPartnerLoss: z.enum(["refuse", "degrade"]),
    })
    .optional(),
  /** Read-only questions of operators (`cellctl query`); each is asked until it is answered or late. */
  queries: z
    .array(
      z.object({
        id: z.string().max(64),
        sql: z.string().max(100_000),
        rowsMax: z.number().int().min(1).max(100_000),
        timeoutMs: z.number().int().min(1).max(600_000),
      }),
    )
    .max(20)
    .optional(),
});
export type AgentSyncResponse = z.infer<typeof agentSyncResponseSchema>;

/** An agent's answer to one of `queries`: POST /v1/machine/agent/query-answers. */
export const queryAnswerSchema = z.object({
  cell: cellIdSchema,
  id: z.string().max(64),
  answer: z.discriminatedUnion("kind", [
    z.object({
      kind: z.literal("rows"),
      columns: z.array(z.string()).max(1664),
      /** Values as PostgreSQL writes them, null for NULL. */
      rows: z.array(z.array(z.string().nullable())),
      /** More rows than asked for stood there. */
      truncated: z.boolean(),
    }),
    z.object({ kind: z.literal("error"), code: z.string().max(40), message: z.string().max(2000) }),
  ]),
});
export type QueryAnswer = z.infer<typeof queryAnswerSchema>;

/** What the router tells the control plane while it asks for the next change of the table. */
export const routerSyncRequestSchema = z.object({
  router: z.string().max(40),
  /** The fleet whose table this router serves; absent before the first table. Another one is refused. */
  fleet: z.string().max(64).optional(),
  instance: z.string().max(64),
  /** The revision this router serves from: its acknowledgement. */
  revision: revisionSchema,
  epochMax: z.number().int().min(0),
  checksum: z.string().max(16),
  admin: z.string().max(200),
  release: z.string().max(64),
  /** Echoed, so that a route lease can be counted from the router's own send time (corrections A4). */
  nonce: z.string().max(64),
  waitMs: z.number().int().min(0).max(30_000),
  /** Per cell since the last call: what the data plane saw. */
  seen: z
    .array(
      z.object({
        ...{ cell: cellIdSchema, requests: z.number().int(), failures: z.number().int() },
        /** Whose requests went wrong inside it in the last half minute, worst first; absent: nobody's. */
        worst: z
          .array(
            z.object({
              key: placementKeySchema,
              /** Asked, and the exchange was cut off. */
              open: z.number().int().min(0),
              /** Answered with 500 or more. */
              failed: z.number().int().min(0),
            }),
          )
          .max(50)
          .optional(),
        /** Not all are named: others may have gone wrong just as often. */
        worstPartial: z.boolean().optional(),
      }),
    )
    .max(1000),
  /** How requests ended, since start; absent: as it was said last. */
  served: z.array(servedCountSchema).max(servedCountsMax).optional(),
  /** Requests carried to a cell in pass-through or observe that would have been refused, by error code, since start. */
  wouldRefuse: z.record(z.string().max(40), z.number().int().min(0)).optional(),
  /** Answers to `collect` of the control plane that were sent, by failover. */
  collected: z.array(z.string().max(64)).max(100).optional(),
  /** Public keys of this router, newest first; absent: it signs nothing. Agents send none. */
  keys: announcedKeysSchema.optional(),
});
export type RouterSyncRequest = z.infer<typeof routerSyncRequestSchema>;

/** `unchanged`: nothing new within `waitMs`. `snapshot`: fetch GET /v1/machine/routing-table. */
export const routerSyncResponseSchema = z.object({
  nonce: z.string(),
  revision: revisionSchema,
  /** Failed-over cells whose acknowledged writes are wanted: POST /v1/machine/router/acks. */
  collect: z
    .array(z.object({ failover: z.string().max(64), cell: cellIdSchema }))
    .max(100)
    .optional(),
  answer: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("unchanged") }),
    z.object({ kind: z.literal("snapshot") }),
    z.object({
      kind: z.literal("delta"),
      delta: z.object({ body: z.string(), keyId: z.string(), signature: z.string() }),
    }),
  ]),
});
export type RouterSyncResponse = z.infer<typeof routerSyncResponseSchema>;

/** A write that a router has passed on to its client as done. */
export const ackedWriteSchema = z.object({
  key: placementKeySchema,
  tenant: z.string().max(128),
  epoch: epochSchema,
  method: z.string().max(20),
  path: z.string().max(500),
  status: z.number().int(),
  requestId: z.string().max(200),
  /** Of the client's request; resolves a doubt at the adopter. */
  idempotencyKey: z.string().max(200).optional(),
  /** End of the cell's write-ahead log when its answer began (`X/Y`): the commit lies before it. */
  lsn: z.string().max(20).optional(),
  /** In its place where the cell has several stores: of each, by name; the first is called `default`. */
  lsns: z.record(z.string().max(63), z.string().max(20)).optional(),
  /** When the answer was passed on, by this router's clock. */
  atMs: z.number(),
});
export type AckedWrite = z.infer<typeof ackedWriteSchema>;

/** POST /v1/machine/router/acks, in pages; the ring holds what was acknowledged last. */
export const routerAcksSchema = z.object({
  router: z.string().max(40),
  instance: z.string().max(64),
  failover: z.string().max(64),
  cell: cellIdSchema,
  entries: z.array(ackedWriteSchema).max(5000),
  last: z.boolean(),
  /** Everything acknowledged for this cell since here is in the ring, by this router's clock; older was overwritten. */
  completeSinceMs: z.number(),
  nowMs: z.number(),
});
export type RouterAcks = z.infer<typeof routerAcksSchema>;

/** The agent's own door, for people and probes: `GET /cellfleet/status` on its admin port. */
export const agentStatusSchema = z.object({
  cell: cellIdSchema,
  instance: z.string(),
  primary: z.boolean(),
  lease: z.object({ live: z.boolean(), remainingMs: z.number(), grant: z.number() }),
  appliedRevision: revisionSchema,
  keys: z.record(z.string(), z.number()),
  inFlight: z.number(),
  reason: z.string(),
});
export type AgentStatus = z.infer<typeof agentStatusSchema>;
