/**
 * Many names in one transaction, which holds the fleet's lock: checked against each other and against
 * what is there, then committed by the database itself. All of them or none.
 */
import { sql } from "drizzle-orm";
import type { Tx } from "./database.ts";

export type ImportedName = {
  /** From 1, in the order in which they came. */
  readonly line: number;
  readonly namespace: string;
  readonly hash: string;
  readonly tenant: string;
  readonly keyspace?: string | undefined;
};
export type BadName = { readonly line: number; readonly error: string };

/** Into a table of this transaction, each with what is known of its tenant and its kind. */
export async function stageNames(tx: Tx, names: readonly ImportedName[]): Promise<void> {
  await tx.execute(sql`
    create temporary table import_claim (
      line integer not null, namespace text not null, hash text not null, tenant text not null,
      asked text, keyspace text, is_spent boolean not null, exclusive boolean not null,
      routed boolean not null
    ) on commit drop`);
  await tx.execute(sql`
    insert into import_claim
    select i.line, i.namespace, i.hash, i.tenant, i.keyspace, t.keyspace,
           exists (select 1 from cellfleet_control.tombstone as g where g.tenant = i.tenant),
           n.cardinality = 'one', n.routed
      from jsonb_to_recordset(${JSON.stringify(names)}::jsonb)
           as i(line integer, namespace text, hash text, tenant text, keyspace text)
      join cellfleet_control.claim_namespace as n on n.name = i.namespace
      left join cellfleet_control.tenant as t on t.id = i.tenant`);
  await tx.execute(sql`analyze import_claim`);
}

export async function badNames(
  tx: Tx,
  limit: number,
): Promise<{ readonly shown: BadName[]; readonly total: number }> {
  const { rows } = await tx.execute<BadName & { total: number }>(sql`
    with bad as (
      select line, 'the tenant ' || tenant || ' was deleted, or is being deleted' as error
        from import_claim where is_spent
      union all
      select line, 'there is no tenant ' || tenant
        from import_claim where keyspace is null and not is_spent
      union all
      select line, 'the tenant ' || tenant || ' is in the keyspace ' || keyspace
        from import_claim where asked <> keyspace
      union all
      select i.line, 'the name stands there for ' || o.tenant || ' too'
        from import_claim as i
        join lateral (select tenant from import_claim as o where o.namespace = i.namespace
                         and o.hash = i.hash and o.tenant <> i.tenant limit 1) as o on true
       where i.exclusive
      union all
      select i.line, 'the name is ' || c.state || ' for the tenant ' || c.tenant
        from import_claim as i
        join cellfleet_control.claim as c on c.namespace = i.namespace and c.hash = i.hash
         and (c.tenant <> i.tenant or c.keyspace <> i.keyspace)
         and (c.state = 'committed' or (c.state = 'reserved' and c.expires_at > clock_timestamp()))
       where i.exclusive
    ), first as (select line, min(error) as error from bad group by line)
    select line, error, (count(*) over ())::int as total from first order by line limit ${limit}`);
  return {
    shown: rows.map(({ line, error }) => ({ line, error })),
    total: rows[0]?.total ?? 0,
  };
}

/** Names that are not their tenants' yet, and how many of them routers must hear of. */
export async function countFresh(
  tx: Tx,
): Promise<{ readonly fresh: number; readonly known: number; readonly routed: number }> {
  const { rows } = await tx.execute<{ fresh: number; known: number; routed: number }>(sql`
    select (count(*) filter (where c.hash is null))::int as fresh,
           (count(*) filter (where c.hash is not null))::int as known,
           (count(*) filter (where c.hash is null and i.routed))::int as routed
      from (select distinct namespace, hash, tenant, keyspace, routed from import_claim) as i
      left join cellfleet_control.claim as c on c.namespace = i.namespace and c.hash = i.hash
       and c.tenant = i.tenant and c.keyspace = i.keyspace and c.state = 'committed'`);
  return rows[0] ?? { fresh: 0, known: 0, routed: 0 };
}

export async function commitNames(tx: Tx, revision: number | null): Promise<void> {
  await tx.execute(sql`
    update cellfleet_control.claim as c
       set state = 'released', reservation = null, expires_at = null
      from import_claim as i
     where c.namespace = i.namespace and c.hash = i.hash and c.state = 'reserved'
       and c.expires_at <= clock_timestamp()`);
  await tx.execute(sql`
    insert into cellfleet_control.claim as c
      (namespace, hash, keyspace, tenant, state, exclusive, revision)
    select distinct namespace, hash, keyspace, tenant, 'committed', exclusive,
           case when routed then ${revision}::bigint end
      from import_claim
    on conflict (namespace, hash, keyspace, tenant) do update
       set state = 'committed', expires_at = null, revision = excluded.revision
     where c.state <> 'committed'`);
}
