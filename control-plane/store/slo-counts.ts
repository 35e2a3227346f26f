/**
 * Requests as they are counted for objectives: in minutes, old ones in hours, those that are too old not at all.
 *
 * What must always be true: what a process says twice counts once, and what was lost on the way is made good by
 * what it says next. A router says all that it has counted since it began; an agent repeats its batch until it
 * is answered, and numbers it. Both go by the minute in which they arrive, of the database's clock.
 */
import { sql } from "drizzle-orm";
import type { RouterSyncRequest } from "../../contract/cell-protocol.ts";
import type { OutcomeBatch } from "../../contract/served-counts.ts";
import { windowDaysMax } from "../../contract/slo-api.ts";
import type { Counted, FirstCount, WindowCount } from "../core/slo/judge-slo.ts";
import { dayMs, hourMs, minutesKeptMs, windowFromMs } from "../core/slo/windows.ts";
import type { Reader, Tx } from "./database.ts";

/** A process that has nothing new to say is noted as alive this often. */
const aliveMs = hourMs;
/** Longer than any process is silent that goes on afterwards; who comes back later is counted anew. */
const sourceKeptMs = 31 * dayMs;

const past = (ms: number) => sql`clock_timestamp() - ${ms}::float8 * interval '1 millisecond'`;
const add = sql`on conflict (cell, service, tier, grain, at) do update set
  requests = c.requests + excluded.requests, failures = c.failures + excluded.failures`;

/** One statement. Cells that are not, or not any more, are left out. */
export async function recordServed(
  reader: Reader,
  said: Pick<RouterSyncRequest, "router" | "instance" | "served">,
): Promise<void> {
  const { router, instance, served = [] } = said;
  if (served.length === 0) return;
  const total = served.reduce((sum, { requests }) => sum + requests, 0);
  await reader.execute(sql`
    with kept as (
      insert into cellfleet_control.slo_source as k (source, total, counts, at)
      values (${`router ${router}/${instance}`}, ${total}, ${JSON.stringify(served)}::jsonb, clock_timestamp())
      on conflict (source) do update set
        before = k.counts, counts = excluded.counts, total = excluded.total, at = excluded.at
      where excluded.total > k.total or (excluded.total = k.total and k.at < ${past(aliveMs)})
      returning counts, before
    ), said as (
      select o.cell, o.service, sum(o.requests) as requests, sum(o.failures) as failures
        from kept, jsonb_to_recordset(kept.counts)
          as o(cell text, service text, requests float8, failures float8) group by 1, 2
    ), known as (
      select o.cell, o.service, sum(o.requests) as requests, sum(o.failures) as failures
        from kept, jsonb_to_recordset(kept.before)
          as o(cell text, service text, requests float8, failures float8) group by 1, 2
    )
    insert into cellfleet_control.slo_count as c (cell, service, tier, grain, at, requests, failures)
    select s.cell, s.service, '', 'minute', date_trunc('minute', clock_timestamp()),
           s.requests - coalesce(k.requests, 0),
           greatest(0, s.failures - coalesce(k.failures, 0))
      from said as s
      join cellfleet_control.cell as whole on whole.id = s.cell and whole.state <> 'retired'
      left join known as k on k.cell = s.cell and k.service = s.service
     where s.requests > coalesce(k.requests, 0)
     order by s.cell, s.service
    ${add}`);
}

/** One statement. An annex counts for its host; tenants that are not known count for nobody. */
export async function recordOutcomes(
  reader: Reader,
  said: {
    readonly cell: string;
    readonly instance: string;
    readonly outcomes?: OutcomeBatch | undefined;
  },
): Promise<void> {
  const { cell, instance, outcomes } = said;
  if (outcomes === undefined || outcomes.tenants.length === 0) return;
  await reader.execute(sql`
    with kept as (
      insert into cellfleet_control.slo_source as k (source, total, at)
      values (${`agent ${cell}/${instance}`}, ${outcomes.number}, clock_timestamp())
      on conflict (source) do update set total = excluded.total, at = excluded.at
      where excluded.total > k.total
      returning 1
    ), said as (
      select * from jsonb_to_recordset(${JSON.stringify(outcomes.tenants)}::jsonb)
        as o(keyspace text, tenant text, service text, requests float8, failures float8)
    )
    insert into cellfleet_control.slo_count as c (cell, service, tier, grain, at, requests, failures)
    select coalesce(own.annex_host, own.id), s.service, t.tier, 'minute',
           date_trunc('minute', clock_timestamp()), sum(s.requests), sum(s.failures)
      from kept
      join cellfleet_control.cell as own on own.id = ${cell}
      cross join said as s
      join cellfleet_control.tenant as t on t.id = s.tenant and t.keyspace = s.keyspace
     group by 1, 2, 3, 5
     order by 1, 2, 3
    ${add}`);
}

/** Minutes of yesterday become hours; what no window reaches any more goes. */
export async function tidyCounts(tx: Tx): Promise<void> {
  await tx.execute(sql`
    with old as (
      delete from cellfleet_control.slo_count
       where grain = 'minute' and at < date_trunc('hour', ${past(minutesKeptMs)})
      returning *
    )
    insert into cellfleet_control.slo_count as c (cell, service, tier, grain, at, requests, failures)
    select cell, service, tier, 'hour', date_trunc('hour', at), sum(requests), sum(failures)
      from old group by 1, 2, 3, 5 order by 1, 2, 3, 5
    ${add}`);
  await tx.execute(sql`
    delete from cellfleet_control.slo_count
     where grain = 'hour' and at < ${past((windowDaysMax + 1) * dayMs)}`);
  await tx.execute(sql`
    delete from cellfleet_control.slo_source where at < ${past(sourceKeptMs)}`);
}

/**
 * `after-failover`: without what a cell counted until its last takeover was over. What it failed by dying is
 * over with it, and must keep nobody from bringing the fleet back into balance.
 */
export type CountedSince = "ever" | "after-failover";

const countsSince = (since: CountedSince) =>
  since === "ever"
    ? sql`cellfleet_control.slo_count`
    : sql`(select c.* from cellfleet_control.slo_count as c
             left join (select f.cell, max(o.updated_at) as at
                          from cellfleet_control.failover as f
                          join cellfleet_control.op as o on o.id = f.op and o.state = 'done'
                         where f.mode = 'unplanned' group by 1) as gone on gone.cell = c.cell
            where gone.at is null or c.at > gone.at)`;

/** What was counted in each window, and since when anything was. */
export async function readCounted(
  reader: Reader,
  nowMs: number,
  windows: readonly number[],
  since: CountedSince = "ever",
): Promise<Counted> {
  const wanted = windows.map((windowMs) => ({ windowMs, fromMs: windowFromMs(nowMs, windowMs) }));
  const { rows } = await reader.execute<WindowCount>(sql`
    select c.cell, c.service, c.tier, w."windowMs", sum(c.requests)::float8 as requests,
           sum(c.failures)::float8 as failures
      from jsonb_to_recordset(${JSON.stringify(wanted)}::jsonb) as w("windowMs" float8, "fromMs" float8)
      join ${countsSince(since)} as c
        on c.at >= to_timestamp(w."fromMs" / 1000) and c.at <= to_timestamp(${nowMs}::float8 / 1000)
     group by 1, 2, 3, 4`);
  const { rows: firsts } = await reader.execute<FirstCount>(sql`
    select cell, service, tier, (extract(epoch from min(at)) * 1000)::float8 as "firstMs"
      from ${countsSince(since)} as c group by 1, 2, 3`);
  return { nowMs, windows: rows, firsts };
}
