/**
 * Orders in the database. An order, its idempotency record and its outbox message are one
 * transaction: either all three exist or none.
 *
 * Two requests with the same Idempotency-Key meet at that record's primary key: the second waits for the
 * first's transaction, is refused, and finds the answer to repeat when it comes again (`isUsedMeanwhile`),
 * so there is never a second order.
 */
import { createHash } from "node:crypto";
import type { Client } from "./database.ts";
import { AppError, sqlState } from "./errors.ts";
import type { NewOrder, Page } from "./validate.ts";

export type Order = {
  readonly id: number;
  readonly item: string;
  readonly quantity: number;
  readonly status: string;
  readonly created_at: string;
};
export type Created = {
  readonly status: number;
  readonly body: string;
  readonly replayed: boolean;
};

/** How long an answer can be asked for again. */
const idempotencyHours = 24;

type OrderRow = Omit<Order, "id"> & { readonly id: string };
/** As they are shown, so that an answer that is repeated is the same text. */
const columns = `id, item, quantity, status,
  to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at`;

export async function createOrder(
  client: Client,
  tenant: string,
  order: NewOrder,
  idempotencyKey: string | undefined,
): Promise<Created> {
  const hash = hashOf(order);
  if (idempotencyKey !== undefined) {
    const earlier = await findAnswer(client, tenant, idempotencyKey, hash);
    if (earlier !== undefined) return earlier;
  }
  // A few expired records leave with each new one, so that their table stays as large as a day.
  const inserted = await client.query<{ body: string }>(
    `with made as (
       insert into orders (tenant_id, item, quantity) values ($1, $2, $3) returning ${columns}
     ), told as (
       insert into outbox (tenant_id, order_id, kind, payload)
       select $1, id, 'order.created', to_jsonb(made) from made
     ), answered as (
       insert into idempotency (tenant_id, key, request_hash, status, body)
       select $1, $4, $5, 201, to_json(made)::text from made where $4::text is not null
     ), expired as (
       delete from idempotency where ctid = any (array(
         select ctid from idempotency
         where tenant_id = $1 and created_at < now() - make_interval(hours => $6)
         order by created_at limit 10 for update skip locked))
     )
     select to_json(made)::text as body from made`,
    [tenant, order.item, order.quantity, idempotencyKey, hash, idempotencyHours],
  );
  const [row] = inserted.rows;
  if (row === undefined) throw new AppError(500, "INTERNAL", "the order was not written");
  return { status: 201, body: row.body, replayed: false };
}

/** Another request with the same Idempotency-Key was first: what it was answered is there now. */
export const isUsedMeanwhile = (error: unknown): boolean =>
  sqlState(error) === uniqueViolation &&
  (error as { readonly constraint?: string }).constraint === "idempotency_pkey";
const uniqueViolation = "23505";

/** The answer of the key's first use. */
async function findAnswer(
  client: Client,
  tenant: string,
  key: string,
  hash: string,
): Promise<Created | undefined> {
  const found = await client.query<{
    request_hash: string;
    status: number | null;
    body: string | null;
  }>("select request_hash, status, body from idempotency where tenant_id = $1 and key = $2", [
    tenant,
    key,
  ]);
  const [record] = found.rows;
  if (record === undefined) return undefined;
  if (record.status === null || record.body === null) {
    throw new AppError(409, "IDEMPOTENCY_IN_FLIGHT", "this Idempotency-Key is being used", {
      retryAfterSeconds: 1,
    });
  }
  if (record.request_hash !== hash) {
    throw new AppError(
      422,
      "IDEMPOTENCY_MISMATCH",
      "this Idempotency-Key was used for a different order",
      { nextSteps: ["use a new Idempotency-Key"] },
    );
  }
  return { status: record.status, body: record.body, replayed: true };
}

const hashOf = (order: NewOrder): string =>
  createHash("sha256")
    .update(JSON.stringify([order.item, order.quantity]))
    .digest("hex");

/** Newest first; one row more than asked for tells whether there is a next page. */
export async function listOrders(
  client: Client,
  tenant: string,
  page: Page,
): Promise<{ readonly items: readonly Order[]; readonly lastId: number | undefined }> {
  const found = await client.query<OrderRow>(
    `select ${columns} from orders where tenant_id = $1 and id < $2 order by id desc limit $3`,
    [tenant, page.before ?? Number.MAX_SAFE_INTEGER, page.limit + 1],
  );
  const items = found.rows.slice(0, page.limit).map(toOrder);
  return { items, lastId: found.rows.length > page.limit ? items.at(-1)?.id : undefined };
}

export async function findOrder(
  client: Client,
  tenant: string,
  id: number,
): Promise<Order | undefined> {
  const found = await client.query<OrderRow>(
    `select ${columns} from orders where tenant_id = $1 and id = $2`,
    [tenant, id],
  );
  return found.rows.map(toOrder)[0];
}

/** Leased id ranges end below 2^53, so an id is always an exact number. */
const toOrder = (row: OrderRow): Order => ({ ...row, id: Number(row.id) });
