/** What a move must not leave in a cell's database, and where rows of a tenant stand. */
import type pg from "pg";

/** One line per thing that is there and should not be; empty: clean. */
export async function leftoversIn(client: pg.Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ what: string }>(`
    select 'slot ' || slot_name as what from pg_replication_slots where slot_name ~ '^(mv|rv)_'
    union all select 'publication ' || pubname from pg_publication where pubname ~ '^(mv|rv)_'
    union all select 'subscription ' || subname from pg_subscription where subname ~ '^(mv|rv)_'
    union all select 'gate ' || key from cellfleet.closed_gate
    union all select 'importing ' || key from cellfleet.ownership where state = 'importing'
    union all select 'fenced ' || key from cellfleet.ownership where state = 'fenced'`);
  return rows.map(({ what }) => what);
}

/** Rows of a tenant in the sample application's tables, seen or not. */
export async function rowsOf(client: pg.Client, tenant: string): Promise<number> {
  const { rows } = await client.query<{ n: number }>(
    `select ((select count(*) from orders where tenant_id = $1)
           + (select count(*) from idempotency where tenant_id = $1)
           + (select count(*) from outbox where tenant_id = $1))::integer as n`,
    [tenant],
  );
  return rows[0]?.n ?? 0;
}
