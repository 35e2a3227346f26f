/** What annexes that take keys over look like now; what changes afterwards is a sign (core/failover/poison.ts). */
import { sql } from "drizzle-orm";
import type { AdopterLook } from "../../core/failover/phases.ts";
import type { Reader } from "../database.ts";
import { readRouterSights } from "./witnesses.ts";

/** With fewer requests a share says nothing. */
const requestsMin = 10;
/** A report is of the last second or so. */
const freshMs = 2500;

export async function readAdopterLooks(
  reader: Reader,
  annexes: readonly string[],
): Promise<AdopterLook[]> {
  if (annexes.length === 0) return [];
  const { rows } = await reader.execute<Omit<AdopterLook, "errorShare">>(sql`
    select c.id as annex, coalesce(a.instance, '') as instance, c.boot,
           coalesce(a.app_reachable, false) as "appReachable",
           coalesce(a.database_reachable, false) as "databaseReachable",
           coalesce(extract(epoch from clock_timestamp() - a.seen_at) * 1000, 1e9)::float8 as "silentMs",
           coalesce(h.boot, '') as "hostBoot", coalesce(h.health, 'unknown') as "hostHealth"
      from cellfleet_control.cell as c
      left join cellfleet_control.cell as h on h.id = c.annex_host
      left join lateral (
        select * from cellfleet_control.agent where cell = c.id and is_primary
         order by seen_at desc limit 1) as a on true
     where c.id = any(${sql.param([...annexes])}::text[]) order by c.id`);
  const sights = await readRouterSights(reader);
  return rows.map((row) => {
    const fresh = (sights.get(row.annex) ?? []).filter(({ ageMs }) => ageMs <= freshMs);
    const requests = fresh.reduce((sum, one) => sum + one.requests, 0);
    const failures = fresh.reduce((sum, one) => sum + one.failures, 0);
    return { ...row, errorShare: requests < requestsMin ? null : failures / requests };
  });
}

/** Cells of a provider; the others are run by hand. */
export async function readProviders(
  reader: Reader,
  ids: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const { rows } = await reader.execute<{ id: string; provider: string }>(sql`
    select id, provider from cellfleet_control.cell where id = any(${sql.param([...ids])}::text[])`);
  return new Map(rows.map(({ id, provider }) => [id, provider]));
}
