/**
 * Standbys as one store's database keeps them (cell/sql/120-standby.sql): the origin's heartbeat, list of
 * partners and stopped buckets; an annex's promise and takeover order. All of it is durable when a call
 * returns.
 */
import { z } from "zod";
import {
  type Partner,
  type PartnerList,
  partnerSchema,
  type TakeoverOrder,
} from "../../contract/standby-api.ts";
import type { Queryable } from "./queryable.ts";

/** The origin's own row in `cellfleet.heartbeat`. False: the cell may not serve, and nothing was written. */
export async function beat(client: Queryable, cell: string): Promise<boolean> {
  const { rows } = await client.query<{ beaten: boolean }>("select cellfleet.beat($1) as beaten", [
    cell,
  ]);
  return rows[0]?.beaten === true;
}

/** `stale`: a newer list stands, and nothing was changed. */
export async function takePartners(
  client: Queryable,
  list: PartnerList,
): Promise<"set" | "same" | "stale"> {
  const { rows } = await client.query<{ outcome: unknown }>(
    "select cellfleet.take_partners($1, $2, $3) as outcome",
    [list.revision, JSON.stringify(list.partners), list.promiseMs],
  );
  return z.enum(["set", "same", "stale"]).parse(rows[0]?.outcome);
}

/** Undefined: none was ever told. */
export async function readPartners(client: Queryable): Promise<PartnerList | undefined> {
  const { rows } = await client.query<{ revision: number; partners: Partner[]; ms: number }>(
    "select revision::float8 as revision, partners, promise_ms::float8 as ms from cellfleet.partner_list",
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  const partners = z.array(partnerSchema).parse(row.partners);
  return { revision: row.revision, partners, promiseMs: row.ms };
}

/** The control plane said no to a lease; its next grant ends that. */
export async function noteRefused(client: Queryable): Promise<void> {
  await client.query("select cellfleet.note_refused()");
}

export async function stopBuckets(
  client: Queryable,
  partner: { readonly annex: string; readonly lo: number; readonly hi: number },
): Promise<void> {
  await client.query("select cellfleet.stop_buckets($1, $2, $3)", [
    partner.annex,
    partner.lo,
    partner.hi,
  ]);
}

/** By this grant of the control plane, unless a later one stands: then false. */
export async function resumeBuckets(client: Queryable, grant: number): Promise<boolean> {
  const { rows } = await client.query<{ resumed: boolean }>(
    "select cellfleet.resume_buckets($1) as resumed",
    [grant],
  );
  return rows[0]?.resumed === true;
}

/** Before anything is applied there. False: it is the annex of another cell. */
export async function becomeAnnex(
  client: Queryable,
  origin: string,
  tokenDigest = "",
): Promise<boolean> {
  const { rows } = await client.query<{ mine: boolean }>(
    "select cellfleet.become_annex($1, $2) as mine",
    [origin, tokenDigest],
  );
  return rows[0]?.mine === true;
}

export type PromiseAsked = {
  readonly origin: string;
  readonly forMs: number;
  /** Of the origin's database; absent: it was looked at in another store. */
  readonly identity?:
    | {
        readonly systemIdentifier: string;
        readonly timeline: number;
        /** `pg_postmaster_start_time()`, ISO 8601. */
        readonly boot: string;
        /** The origin's agent. */
        readonly instance: string;
        readonly grant: number;
        readonly lsn: string;
      }
    | undefined;
  /** The agent that spoke for the former life of the origin's database was heard a moment ago. */
  readonly contested: boolean;
};
const promiseOutcomes = [
  "promised",
  "not_my_origin",
  "takeover",
  "other_database",
  "time_travel",
  "contested",
] as const;
export type PromiseOutcome = {
  readonly outcome: (typeof promiseOutcomes)[number];
  /** Of the promise, to end it by. */
  readonly number: number;
};

/** By an annex, of its origin's keys. Never again once a takeover is recorded. */
export async function makePromise(
  client: Queryable,
  { origin, forMs, identity, contested }: PromiseAsked,
): Promise<PromiseOutcome> {
  const { rows } = await client.query<{ outcome: unknown; number: number }>(
    "select outcome, number::float8 as number from cellfleet.promise($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    [
      ...[origin, forMs, identity?.systemIdentifier ?? null, identity?.timeline ?? null],
      ...[identity?.boot ?? null, identity?.instance ?? null, identity?.grant ?? null],
      ...[identity?.lsn ?? null, contested],
    ],
  );
  return {
    outcome: z.enum(promiseOutcomes).parse(rows[0]?.outcome),
    number: rows[0]?.number ?? 0,
  };
}

/** It is over, or was given back. False: it was renewed, and stands. */
export async function endPromise(client: Queryable, number: number): Promise<boolean> {
  const { rows } = await client.query<{ ended: boolean }>(
    "select cellfleet.end_promise($1) as ended",
    [number],
  );
  return rows[0]?.ended === true;
}

/** `stale`: a later failover or attempt was recorded, and nothing was changed. */
export async function recordTakeover(
  client: Queryable,
  order: TakeoverOrder,
): Promise<"recorded" | "same" | "stale"> {
  const { rows } = await client.query<{ outcome: unknown }>(
    "select cellfleet.record_takeover($1, $2, $3, $4, $5) as outcome",
    [
      ...[order.failover, order.attempt, order.open],
      ...[order.proved === true, order.withdrawn === true],
    ],
  );
  return z.enum(["recorded", "same", "stale"]).parse(rows[0]?.outcome);
}
