/**
 * Keys of a dead cell change hands, a wave at a time. A wave is one transaction: compare-and-set of owner
 * and epoch per key, what the old owner's database is to be told, the room, and what became of the key.
 *
 * What must always be true: a key is given away once per epoch, by the executor whose attempt is the
 * last; the old owner is named as the loser at the epoch it had.
 */
import { asc, sql } from "drizzle-orm";
import type { FailoverRun } from "../../core/failover/phases.ts";
import type { Placed } from "../../core/failover/waves.ts";
import type { KeyspaceView, Tier } from "../../core/fleet.ts";
import type { Database, Reader, Tx } from "../database.ts";
import { changeRouting } from "../routing-change.ts";
import { keyspace } from "../schema.ts";
import { requireTurn } from "./enter.ts";

/** Who acts: the leader's term, and the failover as its executor saw it. */
export type Turn = {
  readonly term: number;
  readonly run: Pick<FailoverRun, "id" | "cell" | "attempt" | "step">;
};

export type RemainingKey = {
  readonly key: string;
  readonly epoch: number;
  readonly tier: Tier;
  readonly canary: boolean;
  readonly bytes: number;
};

/**
 * What the cell still owns and a failover may take: not what is being deleted, nor what a recovery froze.
 * What an earlier failover found no copy of is looked at again.
 */
const mayBeTaken = (cell: string) => sql`p.cell = ${cell} and not p.deleted
  and (p.state in ('active', 'pending', 'hold', 'suspended')
       or (p.state = 'unavailable'
           and p.op in (select op from cellfleet_control.failover where cell = ${cell})))`;

/** `but`: this failover has decided about them already. */
export async function readRemaining(
  reader: Reader,
  run: { readonly id: string; readonly cell: string },
): Promise<RemainingKey[]> {
  const { rows } = await reader.execute<Omit<RemainingKey, "tier"> & { tier: number | null }>(sql`
    select p.key, p.epoch::float8 as epoch, t.tier, coalesce(t.canary, false) as canary,
           coalesce(t.bytes, 0)::float8 as bytes
      from cellfleet_control.placement as p
      left join lateral (
        select min(case tier when 'gold' then 0 when 'standard' then 1 else 2 end) as tier,
               bool_or(labels ->> 'cellfleet.canary' = 'true') as canary,
               sum(greatest(size_bytes, measured_bytes)) as bytes
          from cellfleet_control.tenant where placement_key = p.key
      ) as t on true
     where ${mayBeTaken(run.cell)} and not exists (
       select from cellfleet_control.failover_key as k
        where k.failover = ${run.id} and k.key = p.key and k.fate = 'unavailable')
     order by p.key`);
  return rows.map((row) => ({ ...row, tier: tiersByRank[row.tier ?? 1] ?? "standard" }));
}

const tiersByRank: readonly Tier[] = ["gold", "standard", "free"];

export async function readKeyspaceViews(reader: Reader): Promise<Map<string, KeyspaceView>> {
  const rows = await reader.select().from(keyspace).orderBy(asc(keyspace.name));
  return new Map(
    rows.map(({ name, strategy, slotCount, guardMode }) => [
      name,
      { name, strategy, slotCount, guardMode },
    ]),
  );
}

export type Adopted = {
  readonly keys: number;
  readonly revision: number;
  /** Those that their annexes are to serve, at their new epochs. */
  readonly given: readonly GivenKey[];
};
export type GivenKey = { readonly key: string; readonly annex: string; readonly epoch: number };

/** At most as many keys as one revision may change (store/ownership-feed.ts). Throws Abandoned. */
export async function adoptWave(
  database: Database,
  turn: Turn,
  wave: { readonly number: number; readonly keys: readonly Placed[] },
): Promise<Adopted> {
  const { run } = turn;
  const keys = sql.param(wave.keys.map(({ key }) => key));
  const epochs = sql.param(wave.keys.map(({ epoch }) => epoch));
  const annexes = sql.param(wave.keys.map(({ annex }) => annex));
  return database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await requireTurn(tx, turn.term, run);
    const { rows } = await tx.execute<GivenKey & { serves: boolean }>(sql`
      with wanted as (
        select * from unnest(${keys}::text[], ${epochs}::bigint[], ${annexes}::text[])
          as w(key, epoch, annex)
      ), taken as (
        update cellfleet_control.placement as p
           set cell = w.annex, epoch = p.epoch + 1,
               state = case when p.state = 'suspended' then 'suspended' else 'pending' end,
               op = ${run.id}, attempt = ${run.attempt}, revision = ${revision}
          from wanted as w
         where p.key = w.key and p.epoch = w.epoch and ${mayBeTaken(run.cell)}
        returning p.key, w.epoch, w.annex, p.state
      ), lost as (
        insert into cellfleet_control.disowned as d (cell, key, state, epoch, op, attempt, revision)
        select ${run.cell}, key, 'moved', epoch, ${run.id}, ${run.attempt}, ${revision} from taken
        on conflict (cell, key) do update set state = 'moved', epoch = excluded.epoch,
          op = excluded.op, attempt = excluded.attempt, revision = excluded.revision
      ), noted as (
        insert into cellfleet_control.failover_key as k (failover, key, fate, target, wave, epoch, reason)
        select ${run.id}, key, 'adopted', annex, ${wave.number}, epoch, '' from taken
        on conflict (failover, key) do update set fate = 'adopted', target = excluded.target,
          wave = excluded.wave, epoch = excluded.epoch, reason = '', at = clock_timestamp()
      )
      select key, annex, (epoch + 1)::float8 as epoch, state = 'pending' as serves from taken`);
    await carryRoom(
      tx,
      run.cell,
      rows.map(({ key }) => key),
    );
    return { keys: rows.length, revision, given: rows.filter(({ serves }) => serves) };
  });
}

/** What their annexes' databases say is theirs is served from now on; whatever changed meanwhile stays as it is. */
export async function activateGiven(
  database: Database,
  { term, run }: Turn,
  given: readonly GivenKey[],
): Promise<void> {
  const keys = sql.param(given.map(({ key }) => key));
  const epochs = sql.param(given.map(({ epoch }) => epoch));
  const annexes = sql.param(given.map(({ annex }) => annex));
  await database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await requireTurn(tx, term, run);
    await tx.execute(sql`
      update cellfleet_control.placement as p set state = 'active', revision = ${revision}
        from unnest(${keys}::text[], ${epochs}::bigint[], ${annexes}::text[]) as g(key, epoch, annex)
       where p.key = g.key and p.epoch = g.epoch and p.cell = g.annex and p.state = 'pending'
         and not p.deleted and p.op = ${run.id} and p.attempt = ${run.attempt}`);
  });
}

/** What the tenants weigh is counted where they are now. A takeover asks for no room: there is no choice. */
async function carryRoom(tx: Tx, from: string, keys: readonly string[]): Promise<void> {
  if (keys.length === 0) return;
  await tx.execute(sql`
    with load as (
      select p.cell, count(*)::bigint as tenants,
             sum(greatest(t.size_bytes, t.measured_bytes))::bigint as bytes,
             sum(greatest(t.size_rps, t.measured_rps)) as rps
        from cellfleet_control.tenant as t
        join cellfleet_control.placement as p on p.key = t.placement_key
       where p.key = any(${sql.param(keys)}::text[]) group by p.cell
    ), change as (
      select cell, tenants, bytes, rps from load
      union all
      select ${from}, -sum(tenants), -sum(bytes), -sum(rps) from load having count(*) > 0
    )
    update cellfleet_control.cell as c set
      used_tenants = greatest(0, c.used_tenants + d.tenants),
      used_bytes = greatest(0, c.used_bytes + d.bytes),
      used_rps = greatest(0, c.used_rps + d.rps)
    from change as d where c.id = d.cell`);
}
