/**
 * What agents say of standbys and are told of them, as it is stored.
 *
 * What must always be true (corrections A2): a list of partners names every annex that was told of and not
 * taken back, whatever has become of it; what counts as acknowledged was said of this very list; and a
 * cell whose list is newer than any of ours gets one that is newer still before any annex counts.
 */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest } from "../../../contract/cell-protocol.ts";
import type { Partner, TakeoverOrder } from "../../../contract/standby-api.ts";
import type { Reader } from "../database.ts";
import { channels } from "../notify.ts";

/** By the primary agent of a cell that has standbys, or may have. */
export async function recordOrigin(reader: Reader, said: AgentSyncRequest): Promise<void> {
  const revision = said.origin?.listRevision;
  if (revision === undefined || !said.primary || !said.database.reachable) return;
  await reader.execute(sql`
    with surpassed as (
      -- This control plane was set back: what was told under these numbers is not what stands here.
      update cellfleet_control.standby as s set listed_at = ${revision} + 1
        from cellfleet_control.cell as c
       where c.id = ${said.cell} and c.partner_revision < ${revision}
         and s.origin = c.id and s.listed_at is not null and s.unlisted_at is null
    )
    update cellfleet_control.cell set
      partner_revision = case when partner_revision < ${revision} then ${revision} + 1 else partner_revision end,
      partner_acked = case when partner_revision < ${revision} then 0 else ${revision} end
    where id = ${said.cell} and partner_acked <> ${revision}`);
}

/** By the primary agent of an annex. True: something that others wait for. */
export async function recordAnnex(reader: Reader, said: AgentSyncRequest): Promise<boolean> {
  const { annex } = said;
  if (annex === undefined || !said.primary) return false;
  const takeover = annex.takeover?.withdrawn === true ? undefined : annex.takeover;
  const failover = takeover?.failover ?? null;
  const seen = said.database.reachable ? annex.originSeen : undefined;
  // A copy of an annex, or one that was set back, knows less: what was known is known all the same.
  const latest =
    seen === undefined
      ? sql``
      : sql`, seen_system = ${seen.systemIdentifier}, seen_boot = ${seen.boot}::text,
          seen_timeline = greatest(s.seen_timeline, ${seen.timeline}),
          seen_grant = greatest(s.seen_grant, ${seen.grant}),
          seen_lsn = greatest(s.seen_lsn::pg_lsn, ${seen.lsn}::pg_lsn)::text, seen_at = clock_timestamp()`;
  // What is counted down is no news; that it has come to its end is.
  const { rows } = await reader.execute<{ news: boolean }>(sql`
    with before as (
      select annex, sees, takeover_failover, takeover_attempt, takeover_open, promise_remaining_ms
        from cellfleet_control.standby where annex = ${said.cell} and origin = ${annex.origin} for update
    )
    update cellfleet_control.standby as s set
      sees = ${annex.sees}, heartbeat_age_ms = ${annex.heartbeatAgeMs}, reported_at = clock_timestamp(),
      promise_remaining_ms = ${annex.promiseRemainingMs}, takeover_failover = ${failover},
      takeover_attempt = ${takeover?.attempt ?? 0}, takeover_open = ${takeover?.open ?? false}${latest}
    from before as b where s.annex = b.annex
    returning (b.sees, b.takeover_failover, b.takeover_attempt, b.takeover_open, b.promise_remaining_ms > 0)
      is distinct from (s.sees, s.takeover_failover, s.takeover_attempt, s.takeover_open,
                        s.promise_remaining_ms > 0) as news`);
  const isNews = rows[0]?.news === true;
  // Loops that judge or take over look at once.
  if (isNews) await reader.execute(sql`select pg_notify(${channels.op}, '')`);
  return isNews;
}

export type PartnerRow = Pick<Partner, "annex" | "host" | "lo" | "hi"> & {
  readonly endpoint: string | null;
};
export type OriginSide = {
  readonly revision: number;
  readonly partners: readonly PartnerRow[];
};
export type AnnexSide = {
  readonly origin: string;
  readonly endpoints: readonly string[];
  readonly order: TakeoverOrder | undefined;
  /** It was asked for its word about the origin since it gave the last. */
  readonly isAsked: boolean;
};
export type StandbySide = {
  /** Undefined: an annex; what it serves has no standby of its own until it has gone to a whole cell. */
  readonly origin: OriginSide | undefined;
  readonly annex: AnnexSide | undefined;
};

type Row = {
  readonly revision: number;
  readonly origin: string | null;
  readonly partners: readonly PartnerRow[];
  readonly endpoints: readonly string[] | null;
  readonly orderFailover: string | null;
  readonly orderAttempt: number | null;
  readonly orderOpen: boolean | null;
  readonly orderProved: boolean | null;
  readonly takeoverFailover: string | null;
  readonly takeoverAttempt: number | null;
  readonly takeoverOpen: boolean | null;
  readonly isAsked: boolean | null;
};

/** In one statement: the list and its number are of one moment. */
export async function readStandbySide(
  reader: Reader,
  cell: string,
): Promise<StandbySide | undefined> {
  const { rows } = await reader.execute<Row>(sql`
    select c.partner_revision::float8 as revision, s.origin,
      (select coalesce(jsonb_agg(jsonb_build_object(
          'annex', p.annex, 'host', p.host, 'lo', p.bucket_lo, 'hi', p.bucket_hi,
          'endpoint', (select a.endpoint from cellfleet_control.agent as a where a.cell = p.annex
                        order by a.is_primary desc, a.seen_at desc limit 1))
          order by p.bucket_lo, p.annex), '[]')
         from cellfleet_control.standby as p
        where p.origin = c.id and p.listed_at is not null and p.unlisted_at is null) as partners,
      (select jsonb_agg(a.endpoint order by a.seen_at desc) from cellfleet_control.agent as a
        where a.cell = s.origin) as endpoints,
      s.order_failover as "orderFailover", s.order_attempt as "orderAttempt", s.order_open as "orderOpen",
      s.order_proved as "orderProved", s.takeover_failover as "takeoverFailover",
      s.takeover_attempt as "takeoverAttempt", s.takeover_open as "takeoverOpen",
      s.asked_at > coalesce(s.seen_at, '-infinity') as "isAsked"
    from cellfleet_control.cell as c
    left join cellfleet_control.standby as s on s.annex = c.id
    where c.id = ${cell}`);
  const [row] = rows;
  if (row === undefined) return undefined;
  const { origin, revision, partners } = row;
  if (origin === null) return { origin: { revision, partners }, annex: undefined };
  return {
    origin: partners.length === 0 && revision === 0 ? { revision, partners } : undefined,
    annex: {
      ...{ origin, endpoints: (row.endpoints ?? []).slice(0, endpointsMax), order: orderOf(row) },
      isAsked: row.isAsked === true,
    },
  };
}

const endpointsMax = 20;

/** Where nothing is ordered, what was recorded before has been given up, and is taken back. */
function orderOf(row: Row): TakeoverOrder | undefined {
  const { orderFailover, takeoverFailover } = row;
  if (orderFailover !== null) {
    return {
      failover: orderFailover,
      attempt: row.orderAttempt ?? 0,
      open: row.orderOpen === true,
      ...(row.orderProved === true ? { proved: true } : {}),
    };
  }
  // What was open once cannot be taken back: keys may be active there.
  if (takeoverFailover === null || row.takeoverOpen === true) return undefined;
  const attempt = (row.takeoverAttempt ?? 0) + 1;
  return { failover: takeoverFailover, attempt, open: false, withdrawn: true };
}
