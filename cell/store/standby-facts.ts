/** What a cell's database says of itself as the origin of standbys, and as an annex: part of `readFacts`. */
import { z } from "zod";
import { strategies } from "../../contract/routing-table.ts";
import { originSeenSchema } from "../../contract/standby-api.ts";

/** Buckets of an annex whose promise is over: both belong to it. */
const stoppedSchema = z.object({ annex: z.string(), lo: z.number(), hi: z.number() });

const annexFactsSchema = z.object({
  origin: z.string(),
  /** SHA-256, hex, of what the origin's agent shows; empty: not told yet. */
  tokenDigest: z.string(),
  /** 0: nothing is promised to the origin. */
  promisedMs: z.number(),
  /** Of the last promise; grows with each. */
  promiseNumber: z.number(),
  /** The takeover that is recorded; null: none. */
  failover: z.string().nullable(),
  attempt: z.number(),
  open: z.boolean(),
  withdrawn: z.boolean(),
  /** The agent of the origin that asked last, and the start of its database; null: nobody has. */
  presenter: z.string(),
  boot: z.string().nullable(),
  /** Grows with each heartbeat of the origin; null: none has arrived. */
  beat: z.number().nullable(),
  /** The latest of the origin's database that is known here. */
  seen: originSeenSchema,
});
export type AnnexFacts = z.infer<typeof annexFactsSchema>;

export const standbyFactsSchema = z.object({
  /** Null: no list of partners was ever told. */
  listRevision: z.number().nullable(),
  /** The highest grant of the control plane's; the agent's own ones come on top. */
  controlGrant: z.number(),
  /** The control plane's last word on a lease was no. */
  refused: z.boolean(),
  /** Since its start this database has had a lease. */
  leased: z.boolean(),
  /** Its leases are manual, by the change of that number; and the timeline that the control plane granted to last. */
  manual: z.boolean(),
  modeNumber: z.number(),
  leaseTimeline: z.number().nullable(),
  /** End of the write-ahead log. */
  lsn: z.string(),
  stopped: z.array(stoppedSchema),
  /** By which keys fall into buckets; only while some are stopped. */
  keyspaces: z.array(
    z.object({
      name: z.string(),
      strategy: z.enum(strategies),
      slotCount: z.number().nullable(),
    }),
  ),
  /** Null: no annex. */
  annex: annexFactsSchema.nullable(),
});
export type StandbyFacts = z.infer<typeof standbyFactsSchema>;
