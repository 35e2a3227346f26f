/**
 * The outbox table. Every change goes through the guard like any other write, so only a cell that
 * owns the key can claim a message; the claim commits before anything is sent.
 *
 * `attempts` is the claim's number: who settles a message names the attempt it claimed, and a worker
 * that was thought dead changes nothing any more.
 */
import type { Client, Scope } from "./database.ts";
import type { AfterFailure } from "./outbox-rules.ts";
import { claimMs } from "./outbox-rules.ts";

export type Message = {
  readonly id: number;
  readonly tenant: string;
  readonly orderId: number;
  readonly kind: string;
  readonly payload: unknown;
  readonly attempts: number;
};
export type DueTenant = { readonly tenant: string; readonly scope: Scope };

const tenantsPerTurnMax = 100;
const claimsPerTenantMax = 20;
const listMax = 100;

/**
 * Tenants with messages that are due, longest waiting first, each with the key and epoch under
 * which this cell owns it. A tenant that this cell does not own has no visible rows.
 */
export async function findDueTenants(client: Client): Promise<readonly DueTenant[]> {
  const found = await client.query<{ tenant_id: string; key: string; epoch: string }>(
    `select due.tenant_id, owned.key, owned.epoch
     from (select tenant_id, min(next_at) as since from (
             select tenant_id, next_at from outbox
             where state in ('pending', 'claimed') and next_at <= now()
             order by next_at, tenant_id limit 500) as oldest
           group by tenant_id order by since limit $1) as due
     join cellfleet.owned_keys as owned
       on owned.key = cellfleet.placement_key('default', due.tenant_id)
     order by due.since`,
    [tenantsPerTurnMax],
  );
  return found.rows.map((row) => ({
    tenant: row.tenant_id,
    scope: { key: row.key, epoch: Number(row.epoch) },
  }));
}

type MessageRow = {
  readonly id: string;
  readonly tenant_id: string;
  readonly order_id: string;
  readonly kind: string;
  readonly payload: unknown;
  readonly attempts: number;
};

/**
 * Where confirming an order in this database is the whole delivery: in one transaction, without a claim, for
 * nothing happens in between. What is due and not done has no order.
 */
export async function confirmDue(
  client: Client,
  tenants: readonly string[],
): Promise<{ readonly due: number; readonly done: number }> {
  const { rows } = await client.query<{ due: number; done: number }>(
    `with next as materialized (
       select due.tenant, message.id, message.order_id
       from unnest($1::text[]) as due (tenant) cross join lateral (
         select id, order_id from outbox
         where tenant_id = due.tenant and state in ('pending', 'claimed') and next_at <= now()
         order by id limit $2 for update skip locked) as message
     ), confirmed as (
       update orders set status = 'confirmed' from next
       where orders.tenant_id = next.tenant and orders.id = next.order_id
       returning next.id
     ), done as (
       update outbox set state = 'done', attempts = attempts + 1, last_error = null
       from next join confirmed using (id)
       where outbox.tenant_id = next.tenant and outbox.id = next.id
       returning outbox.id
     )
     select (select count(*) from next)::int as due, (select count(*) from done)::int as done`,
    [tenants, claimsPerTenantMax],
  );
  return rows[0] ?? { due: 0, done: 0 };
}

/** Also takes over claims that ran out. Two workers never get the same message. */
export async function claimMessages(client: Client, tenant: string): Promise<readonly Message[]> {
  const claimed = await client.query<MessageRow>(
    `update outbox set state = 'claimed', attempts = attempts + 1,
            next_at = now() + make_interval(secs => $3 / 1000.0)
     where tenant_id = $1 and id in (
       select id from outbox
       where tenant_id = $1 and state in ('pending', 'claimed') and next_at <= now()
       order by id limit $2 for update skip locked)
     returning id, tenant_id, order_id, kind, payload, attempts`,
    [tenant, claimsPerTenantMax, claimMs],
  );
  return claimed.rows.map((row) => ({
    id: Number(row.id),
    tenant: row.tenant_id,
    orderId: Number(row.order_id),
    kind: row.kind,
    payload: row.payload,
    attempts: row.attempts,
  }));
}

/**
 * The effect in this database: the orders are confirmed, and their messages done. Both or neither;
 * repeated, nothing changes. Messages whose order is not there are left, and returned.
 */
export async function settleSent(
  client: Client,
  tenant: string,
  messages: readonly Message[],
): Promise<readonly Message[]> {
  const confirmed = await client.query<{ id: string }>(
    "update orders set status = 'confirmed' where tenant_id = $1 and id = any ($2) returning id",
    [tenant, messages.map((message) => message.orderId)],
  );
  const orders = new Set(confirmed.rows.map((row) => Number(row.id)));
  const done = messages.filter((message) => orders.has(message.orderId));
  await client.query(
    `update outbox set state = 'done', last_error = null
     from unnest($2::bigint[], $3::integer[]) as claim (id, attempts)
     where outbox.tenant_id = $1 and outbox.id = claim.id and outbox.state = 'claimed'
       and outbox.attempts = claim.attempts`,
    [tenant, done.map((message) => message.id), done.map((message) => message.attempts)],
  );
  return messages.filter((message) => !orders.has(message.orderId));
}

export async function settleFailed(
  client: Client,
  message: Message,
  after: AfterFailure,
  reason: string,
): Promise<void> {
  const retryInMs = after.state === "pending" ? after.retryInMs : 0;
  await client.query(
    `update outbox set state = $4, last_error = left($5, 500),
            next_at = now() + make_interval(secs => $6 / 1000.0)
     where tenant_id = $1 and id = $2 and state = 'claimed' and attempts = $3`,
    [message.tenant, message.id, message.attempts, after.state, reason, retryInMs],
  );
}

export type OutboxView = {
  readonly counts: Readonly<Record<string, number>>;
  readonly items: readonly unknown[];
};

/** What is unfinished or dead, oldest first, and how many of each state. */
export async function readOutbox(client: Client, tenant: string): Promise<OutboxView> {
  const counted = await client.query<{ state: string; count: string }>(
    "select state, count(*) from outbox where tenant_id = $1 group by state",
    [tenant],
  );
  const counts: Record<string, number> = { pending: 0, claimed: 0, done: 0, dead: 0 };
  for (const row of counted.rows) counts[row.state] = Number(row.count);
  const found = await client.query<{ id: string; order_id: string }>(
    `(select id, order_id, kind, state, attempts, next_at, last_error, created_at from outbox
      where tenant_id = $1 and state = 'dead' order by id desc limit $2)
     union all
     (select id, order_id, kind, state, attempts, next_at, last_error, created_at from outbox
      where tenant_id = $1 and state in ('pending', 'claimed') order by id limit $2)`,
    [tenant, listMax],
  );
  const items = found.rows.map((row) => ({
    ...row,
    id: Number(row.id),
    order_id: Number(row.order_id),
  }));
  return { counts, items };
}
