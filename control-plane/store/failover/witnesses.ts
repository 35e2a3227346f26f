/**
 * What witnesses have said, as it is stored: routers by what came of their requests, partners by their
 * annexes' agents, and what the leader made of all of it, for whoever asks another control plane.
 */
import { eq, sql } from "drizzle-orm";
import { z } from "zod";
import type { RouterSyncRequest } from "../../../contract/cell-protocol.ts";
import { type FailoverPolicy, witnessSchema } from "../../../contract/failover-api.ts";
import { type Verdict, verdictStates } from "../../core/failover/detect.ts";
import type { AnnexMarks } from "../../core/failover/suspects.ts";
import type { PartnerSight, RouterSight } from "../../core/failover/witness.ts";
import type { Reader, Tx } from "../database.ts";
import { failoverDesk } from "../schema-failover.ts";
import { standby } from "../schema-standby.ts";

/** Reports that are older say nothing any more. */
const reportsKeptMs = 6000;
const reportsKeptMax = 20;

/** Only what says something: a router without requests is no witness. */
export async function recordSeen(reader: Reader, said: RouterSyncRequest): Promise<void> {
  const seen = said.seen.filter(({ requests }) => requests > 0);
  if (seen.length === 0) return;
  await reader.execute(sql`
    with fresh as (
      select jsonb_build_object('atMs', (extract(epoch from clock_timestamp()) * 1000)::float8,
                                'seen', ${JSON.stringify(seen)}::jsonb) as report
    )
    insert into cellfleet_control.router_sight as r (router, reports, seen_at)
    select ${said.router}, jsonb_build_array(report), clock_timestamp() from fresh
    on conflict (router) do update set seen_at = clock_timestamp(), reports = (
      select coalesce(jsonb_agg(one order by (one ->> 'atMs')::float8), '[]') from (
        select one from jsonb_array_elements(r.reports || excluded.reports) as kept(one)
         where (one ->> 'atMs')::float8 > (extract(epoch from clock_timestamp()) * 1000)::float8 - ${reportsKeptMs}::float8
         order by (one ->> 'atMs')::float8 desc limit ${reportsKeptMax}) as last)`);
}

/** The newest report of each router about each cell, by cell. */
export async function readRouterSights(
  reader: Reader,
): Promise<ReadonlyMap<string, readonly RouterSight[]>> {
  const { rows } = await reader.execute<RouterSight & { cell: string }>(sql`
    select distinct on (r.router, one ->> 'cell') r.router, one ->> 'cell' as cell,
           ((extract(epoch from clock_timestamp()) * 1000) - (report ->> 'atMs')::float8)::float8 as "ageMs",
           (one ->> 'requests')::float8 as requests, (one ->> 'failures')::float8 as failures
      from cellfleet_control.router_sight as r,
           jsonb_array_elements(r.reports) as reports(report),
           jsonb_array_elements(report -> 'seen') as seen(one)
     where r.seen_at > clock_timestamp() - ${reportsKeptMs}::float8 * interval '1 millisecond'
     order by r.router, one ->> 'cell', (report ->> 'atMs')::float8 desc`);
  return Map.groupBy(rows, ({ cell }) => cell);
}

/**
 * Whose requests went wrong in these cells in the last while, as each router told last: it tells of all of the
 * last half minute each time. Nothing of a cell that no router told anything of.
 */
export async function readKeyMarks(
  reader: Reader,
  cells: readonly string[],
): Promise<ReadonlyMap<string, AnnexMarks>> {
  const { rows } = await reader.execute<AnnexMarks & { readonly cell: string }>(sql`
    with last as (
      select distinct on (r.router, one ->> 'cell') one ->> 'cell' as cell, one -> 'worst' as worst,
             coalesce((one ->> 'worstPartial')::boolean, false) as partial
        from cellfleet_control.router_sight as r,
             jsonb_array_elements(r.reports) as reports(report),
             jsonb_array_elements(report -> 'seen') as seen(one)
       where r.seen_at > clock_timestamp() - ${reportsKeptMs}::float8 * interval '1 millisecond'
         and one ->> 'cell' = any(${sql.param([...cells])}::text[])
       order by r.router, one ->> 'cell', (report ->> 'atMs')::float8 desc
    ), told as (
      select cell, bool_or(partial) as partial from last where worst is not null group by cell
    ), marked as (
      select cell, bad ->> 'key' as key, sum((bad ->> 'open')::float8) as open,
             sum((bad ->> 'failed')::float8) as failed
        from last, jsonb_array_elements(coalesce(worst, '[]')) as worsts(bad)
       group by cell, bad ->> 'key'
    )
    select cell, partial, coalesce((
             select jsonb_agg(jsonb_build_object('key', m.key, 'open', m.open, 'failed', m.failed))
               from marked as m where m.cell = told.cell), '[]') as marks
      from told`);
  return new Map(rows.map(({ cell, ...marks }) => [cell, marks]));
}

/** Standbys that hold, or held a moment ago, rows of the origin in step. */
const telling = new Set(["syncing", "announcing", "ready", "leaving", "adopting"]);

export async function readPartnerSights(
  reader: Reader,
): Promise<ReadonlyMap<string, readonly PartnerSight[]>> {
  const rows = await reader
    .select({
      ...{ origin: standby.origin, host: standby.host, state: standby.state, sees: standby.sees },
      ageMs: sql<
        number | null
      >`(extract(epoch from clock_timestamp() - ${standby.reportedAt}) * 1000)::float8`,
    })
    .from(standby);
  const heard = rows.filter(({ state }) => telling.has(state));
  return Map.groupBy(heard, ({ origin }) => origin);
}

const verdictsSchema: z.ZodType<Verdict[]> = z.array(
  z.object({
    ...{ cell: z.string(), state: z.enum(verdictStates), text: z.string() },
    ...{ witnesses: z.array(witnessSchema), forMs: z.number() },
    // One of an older release wrote none.
    episode: z
      .object({ forMs: z.number(), goneForMs: z.number().nullable() })
      .nullable()
      .default(null),
  }),
);

/** Of a later term they stay: a leader that was replaced overwrites nothing. */
export async function saveVerdicts(
  tx: Reader,
  term: number,
  verdicts: readonly Verdict[],
): Promise<void> {
  await tx.execute(sql`
    insert into cellfleet_control.failover_desk (one, sights, sights_at, term)
    values (true, ${JSON.stringify(verdicts)}::jsonb, clock_timestamp(), ${term})
    on conflict (one) do update set
      sights = excluded.sights, sights_at = excluded.sights_at, term = excluded.term
    where cellfleet_control.failover_desk.term <= excluded.term`);
}

export type Desk = {
  /** As a person set it; null: as this control plane was started with. */
  readonly policy: FailoverPolicy | null;
  readonly policyBy: string;
  readonly policyReason: string;
  readonly policyAt: Date | null;
  readonly verdicts: readonly Verdict[];
  /** Since they were made; null: never. */
  readonly ageMs: number | null;
};

export async function readDesk(reader: Reader): Promise<Desk> {
  const [row] = await reader
    .select({
      ...{ policy: failoverDesk.policy, policyBy: failoverDesk.policyBy },
      ...{ policyReason: failoverDesk.policyReason, policyAt: failoverDesk.policyAt },
      sights: failoverDesk.sights,
      ageMs: sql<
        number | null
      >`(extract(epoch from clock_timestamp() - ${failoverDesk.sightsAt}) * 1000)::float8`,
    })
    .from(failoverDesk);
  if (row === undefined) {
    const none = { policy: null, policyBy: "", policyReason: "", policyAt: null };
    return { ...none, verdicts: [], ageMs: null };
  }
  const { sights, ...rest } = row;
  return { ...rest, verdicts: verdictsSchema.catch([]).parse(sights) };
}

/** Null: as control planes are started with. */
export async function setPolicy(
  tx: Tx,
  policy: FailoverPolicy | null,
  by: { readonly name: string; readonly reason: string },
): Promise<void> {
  await tx.insert(failoverDesk).values({ one: true }).onConflictDoNothing();
  await tx
    .update(failoverDesk)
    .set({ policy, policyBy: by.name, policyReason: by.reason, policyAt: sql`clock_timestamp()` })
    .where(eq(failoverDesk.one, true));
}
