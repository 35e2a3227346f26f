/**
 * Standbys as people see them, and what their parts say to each other.
 *
 * A cell's keys are split by bucket (`bucketOf` in placement-key.ts) over its partners; each partner
 * keeps the rows of its buckets in an annex (annex.ts). What must always be true: a partner is adopted
 * from only if the origin has durably acknowledged a list that names it (corrections A2).
 */
import { z } from "zod";
import { cellIdSchema } from "./ids.ts";
import { bucketCount } from "./placement-key.ts";

/**
 * `planned`: recorded. `building`: annex and stream are being made. `syncing`: rows are copied.
 * `announcing`: in sync; the origin is told of it. `ready`: the origin has acknowledged it: it may be
 * adopted from. `broken`: the stream does not go on by itself; not adopted from until mended.
 * `leaving`: the origin is told to forget it; never adopted from again. `dropping`: stream and annex are
 * removed. `adopting`, `adopted`: a failover took its keys. `gone`: history.
 */
export const standbyStates = [
  "planned",
  "building",
  "syncing",
  "announcing",
  "ready",
  "broken",
  "leaving",
  "dropping",
  "adopting",
  "adopted",
  "gone",
] as const;
export type StandbyState = (typeof standbyStates)[number];

export const standbyProviders = ["logical", "physical"] as const;
export type StandbyProviderName = (typeof standbyProviders)[number];

const bucket = z
  .number()
  .int()
  .min(0)
  .max(bucketCount - 1);
const lag = z.number().min(0).nullable();

/** Whether the application runs at a ready standby, or is started when a failover needs it. */
export const standbyApplications = ["warm", "cold"] as const;
export type StandbyApplications = (typeof standbyApplications)[number];

export const standbySchema = z.object({
  /** The annex. */
  id: cellIdSchema,
  origin: cellIdSchema,
  /** The partner that keeps it. */
  host: cellIdSchema,
  provider: z.enum(standbyProviders),
  /** Both belong to it. */
  buckets: z.object({ lo: bucket, hi: bucket }),
  state: z.enum(standbyStates),
  /** One sentence: why the state is what it is. */
  reason: z.string(),
  /** Bytes of the origin's write-ahead log not applied here yet; null: not known now. */
  lagBytes: lag,
  /** Age of the last heartbeat row of the origin that was applied here, by this side's clock; null: none yet. */
  lagSeconds: lag,
  /** Keys that it serves (after an adoption). */
  keys: z.number().int().min(0),
  /** The application runs at it already: a takeover waits for no process to start. */
  warm: z.boolean().default(false),
});
export type Standby = z.infer<typeof standbySchema>;

/** What an origin's agent is told of its partners. */
export const partnerSchema = z.object({
  annex: cellIdSchema,
  host: cellIdSchema,
  /** Of the annex's agent: promises are asked for there. */
  endpoint: z.url({ protocol: /^https?$/ }),
  lo: bucket,
  hi: bucket,
  /** Shows the annex's agent who asks; derived, never stored by the control plane. */
  token: z.string().max(200),
});
export type Partner = z.infer<typeof partnerSchema>;

export const partnerListSchema = z.object({
  /** Grows with each change; an older list is refused. */
  revision: z.number().int().min(0),
  partners: z.array(partnerSchema).max(16),
  /** After contact with the control plane was lost: how long a promise lasts, in milliseconds. */
  promiseMs: z.number().int().min(1000),
});
export type PartnerList = z.infer<typeof partnerListSchema>;

/** A failover orders an annex: promise nothing more, tell what is still promised, cut the stream. */
export const takeoverOrderSchema = z.object({
  failover: z.string().max(64),
  attempt: z.number().int().min(0),
  /** The control plane has severed the stream, and all promises are over: keys may become active. */
  open: z.boolean(),
  /** With `open`: no process of the origin is left, so that no promise to it binds any more. */
  proved: z.boolean().optional(),
  /** The failover was given up before it was open: promises may be made again. */
  withdrawn: z.boolean().optional(),
});
export type TakeoverOrder = z.infer<typeof takeoverOrderSchema>;

/** `X/Y`, as PostgreSQL writes a position in its write-ahead log. */
const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);

/** The latest that a partner knows of its origin's database: from promises, heartbeats and what it has applied. */
export const originSeenSchema = z.object({
  /** Of the database that was promised to last; empty: nothing was ever promised. */
  systemIdentifier: z.string().max(32),
  timeline: z.number().int().min(0),
  /** Start of its server, ISO 8601: the partner has vouched for it. Null: it was never asked. */
  boot: z.iso.datetime({ offset: true }).nullable(),
  grant: z.number().int().min(0),
  lsn,
});
export type OriginSeen = z.infer<typeof originSeenSchema>;

/** What an annex's agent says with each call. */
export const annexReportSchema = z.object({
  origin: cellIdSchema,
  /**
   * What it sees of its origin: heartbeat rows that arrive, and the origin's agent that answers. `alive`:
   * either within the last 1.5 s. Told at once when it changes.
   */
  sees: z.enum(["unknown", "alive", "silent"]),
  /** Age of the newest heartbeat applied here; null: none yet. */
  heartbeatAgeMs: z.number().min(0).nullable(),
  /** Of a promise to the origin that still binds, by this agent's monotonic clock; 0: none. */
  promiseRemainingMs: z.number().min(0),
  /** The order that its database has durably recorded. */
  takeover: takeoverOrderSchema.optional(),
  /** Read for this call; absent: its database cannot be reached, or nothing was seen yet. */
  originSeen: originSeenSchema.optional(),
});
export type AnnexReport = z.infer<typeof annexReportSchema>;

/** What an origin's agent says with each call. */
export const originReportSchema = z.object({
  /** The partner list that its database has durably stored; 0: none. */
  listRevision: z.number().int().min(0),
  /** Served without the control plane for so long, when it last was out of reach; 0: not now. */
  failsafeMs: z.number().min(0),
  /** The highest grant that a control plane gave; those above it the cell's agent gave itself. */
  controlGrant: z.number().int().min(0).optional(),
  /** Of its first store, durable there: what partners compare with what they have seen. */
  position: z.object({ grant: z.number().int().min(0), lsn }).optional(),
});
export type OriginReport = z.infer<typeof originReportSchema>;

/**
 * `POST /cellfleet/promise` on an annex's agent, by its origin's agent. The answer says how long from
 * now, by the annex's clock, nobody will activate the origin's keys there.
 */
export const promiseRequestSchema = z.strictObject({
  origin: cellIdSchema,
  annex: cellIdSchema,
  /** 0 releases what was promised. */
  forMs: z
    .number()
    .int()
    .min(0)
    .max(24 * 3_600_000),
  /** Who asks (corrections A14, A19): another database than the one known gets no promise. */
  systemIdentifier: z.string().max(32),
  timeline: z.number().int().min(1),
  /** The highest grant its database knows; a lower one than was presented before gets no promise. */
  grant: z.number().int().min(0),
  /** Write-ahead log position, text; a lower one than was applied here gets no promise. */
  lsn,
  /** When its database was started, ISO 8601, and the agent that asks: of two lives one gets promises. */
  boot: z.iso.datetime({ offset: true }),
  instance: z.string().max(64),
  /** With `forMs: 0`: the number of the promise that is given back; a later one stands. */
  number: z.number().int().min(0).optional(),
});
export type PromiseRequest = z.infer<typeof promiseRequestSchema>;

export const promiseRefusals = [
  /** A failover has begun. */
  "TAKEOVER",
  "TOKEN",
  "TIME_TRAVEL",
  "OTHER_DATABASE",
  "NOT_MY_ORIGIN",
] as const;
export const promiseAnswerSchema = z.union([
  z.object({ promisedMs: z.number().min(0), number: z.number().int().min(0) }),
  z.object({ refused: z.enum(promiseRefusals), text: z.string() }),
]);
export type PromiseAnswer = z.infer<typeof promiseAnswerSchema>;
