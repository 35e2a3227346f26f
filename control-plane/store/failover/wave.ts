/**
 * What becomes of keys that are not simply adopted: those that nobody has a copy of, and those that may
 * have brought their new cell down. Both are unavailable, by name and with a reason; nobody guesses.
 */
import { eq, sql } from "drizzle-orm";
import type { AdoptedKey } from "../../core/failover/poison.ts";
import type { Suspect } from "../../core/failover/suspects.ts";
import type { Database, Reader, Tx } from "../database.ts";
import { changeRouting } from "../routing-change.ts";
import { failoverKey } from "../schema-standby.ts";
import type { Turn } from "./adopt.ts";
import { requireTurn } from "./enter.ts";

export type UnavailableKey = {
  readonly key: string;
  readonly epoch: number;
  readonly reason: string;
};

/** Still the dead cell's, at the epoch they have: only who has the rows may own them. Throws Abandoned. */
export async function markUnavailable(
  database: Database,
  turn: Turn,
  found: readonly UnavailableKey[],
): Promise<void> {
  const { run } = turn;
  await database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await requireTurn(tx, turn.term, run);
    await tx.execute(sql`
      with wanted as (
        select * from unnest(${sql.param(found.map(({ key }) => key))}::text[],
                             ${sql.param(found.map(({ epoch }) => epoch))}::bigint[],
                             ${sql.param(found.map(({ reason }) => reason))}::text[])
          as w(key, epoch, reason)
      ), marked as (
        update cellfleet_control.placement as p
           set state = 'unavailable', op = ${run.id}, attempt = ${run.attempt}, revision = ${revision}
          from wanted as w
         where p.key = w.key and p.epoch = w.epoch and p.cell = ${run.cell} and not p.deleted
           and p.state <> 'deleting'
        returning p.key, w.epoch, w.reason
      )
      insert into cellfleet_control.failover_key as k (failover, key, fate, target, wave, epoch, reason)
      select ${run.id}, key, 'unavailable', null, 0, epoch, reason from marked
      on conflict (failover, key) do update set fate = 'unavailable', target = null,
        epoch = excluded.epoch, reason = excluded.reason, at = clock_timestamp()`);
  });
}

/** In the transaction that halts: the suspects are served by nobody until a person has looked. */
export async function quarantineKeys(
  tx: Tx,
  run: { readonly id: string; readonly attempt: number },
  suspects: readonly Suspect[],
  why: string,
): Promise<number> {
  const revision = await changeRouting(tx, { config: false });
  const keys = sql.param(suspects.map(({ key }) => key));
  const because = sql.param(suspects.map((one) => one.because));
  const { rowCount } = await tx.execute(sql`
    with suspect as (
      select * from unnest(${keys}::text[], ${because}::text[]) as s(key, because)
    ), stopped as (
      update cellfleet_control.placement as p
         set state = 'unavailable', op = ${run.id}, attempt = ${run.attempt}, revision = ${revision}
        from cellfleet_control.failover_key as k, suspect as s
       where k.failover = ${run.id} and k.key = p.key and k.fate = 'adopted' and p.cell = k.target
         and p.key = s.key and not p.deleted
         and p.state in ('active', 'pending', 'hold')
      returning p.key, s.because
    )
    update cellfleet_control.failover_key as k
       set fate = 'quarantined', at = k.at,
           reason = ${`QUARANTINED: ${why}`}::text
             || case when stopped.because = '' then '' else '; ' || stopped.because end
      from stopped where k.failover = ${run.id} and k.key = stopped.key`);
  return rowCount ?? 0;
}

export async function readAdopted(reader: Reader, failover: string): Promise<AdoptedKey[]> {
  const { rows } = await reader.execute<AdoptedKey>(sql`
    select key, target as annex, wave, extract(epoch from at)::float8 * 1000 as "atMs"
      from cellfleet_control.failover_key
     where failover = ${failover} and fate = 'adopted'`);
  return rows;
}

/** Of the keys that annexes were given, how many their databases have not applied yet, by annex. */
export async function readPendingAt(
  reader: Reader,
  failover: string,
): Promise<ReadonlyMap<string, number>> {
  const { rows } = await reader.execute<{ cell: string; keys: number }>(sql`
    select cell, count(*)::int as keys from cellfleet_control.placement
     where op = ${failover} and state = 'pending' and not deleted group by cell`);
  return new Map(rows.map(({ cell, keys }) => [cell, keys]));
}

/** Waves that were adopted so far, canaries among them. */
export async function wavesDone(reader: Reader, failover: string): Promise<number> {
  const [row] = await reader
    .select({ waves: sql<number>`coalesce(max(${failoverKey.wave}) + 1, 0)::int` })
    .from(failoverKey)
    .where(
      sql`${eq(failoverKey.failover, failover)} and ${failoverKey.fate} in ('adopted', 'quarantined')`,
    );
  return row?.waves ?? 0;
}

/** Why a key is served by nobody, as the last failover of it found; undefined: no failover said so. */
export async function fateOf(
  reader: Reader,
  key: string,
): Promise<
  { readonly failover: string; readonly fate: string; readonly reason: string } | undefined
> {
  const { rows } = await reader.execute<{ failover: string; fate: string; reason: string }>(sql`
    select k.failover, k.fate, k.reason from cellfleet_control.failover_key as k
      join cellfleet_control.placement as p on p.key = k.key and p.op = k.failover
     where k.key = ${key} and k.fate in ('unavailable', 'quarantined') and p.state = 'unavailable'
     order by k.failover desc limit 1`);
  return rows[0];
}
