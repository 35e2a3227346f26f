/**
 * Orders in the database. An order, its line, its idempotency record and its job are one
 * transaction: either all exist or none.
 *
 * Two requests with the same Idempotency-Key meet at that record's primary key: the second waits
 * for the first's transaction and then finds the answer to repeat, so there is never a second order.
 */
import { createHash } from "node:crypto";
import { Failure, invalid } from "./failure.js";

const itemCharactersMax = 200;
const quantityMax = 1_000_000;
/** Control characters and lone surrogates: PostgreSQL refuses NUL, and people cannot see the rest. */
const unfit = /\p{Cc}|\p{Cs}/u;

export function parseOrder(text) {
  const body = parseJson(text);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid("the body must be a JSON object");
  }
  const { item, quantity } = body;
  if (typeof item !== "string") throw invalid("item must be a string");
  const characters = [...item].length;
  if (characters < 1 || characters > itemCharactersMax || unfit.test(item)) {
    throw invalid(`item must have 1 to ${itemCharactersMax} characters, none of them control`);
  }
  if (!Number.isInteger(quantity) || quantity < 1 || quantity > quantityMax) {
    throw invalid(`quantity must be a whole number from 1 to ${quantityMax}`);
  }
  return { item, quantity };
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid("the body is not JSON");
  }
}

export function parseIdempotencyKey(raw) {
  if (raw === undefined || /^[\x21-\x7e]{1,255}$/.test(raw)) return raw;
  throw invalid("Idempotency-Key must be 1 to 255 printable ASCII characters without spaces");
}

export async function createOrder(client, tenant, order, key) {
  const earlier = key === undefined ? undefined : await claimKey(client, tenant, key, order);
  if (earlier !== undefined) return { ...earlier, replayed: true };
  await client.query("insert into accounts (id) values ($1) on conflict do nothing", [tenant]);
  const { rows } = await client.query(
    "insert into orders (account_id) values ($1) returning id, status, created_at",
    [tenant],
  );
  const [{ id, status, created_at }] = rows;
  await client.query(
    "insert into order_lines (account_id, order_id, item, quantity) values ($1, $2, $3, $4)",
    [tenant, id, order.item, order.quantity],
  );
  await client.query(
    "insert into jobs (account_id, kind, order_id) values ($1, 'confirm-order', $2)",
    [tenant, id],
  );
  const body = JSON.stringify({ id: Number(id), ...order, status, created_at });
  if (key !== undefined) {
    await client.query(
      "update idempotency set status = 201, body = $3 where account_id = $1 and key = $2",
      [tenant, key, body],
    );
  }
  return { status: 201, body, replayed: false };
}

/** Undefined: the key is ours now, in this transaction. Otherwise the answer of its first use. */
async function claimKey(client, tenant, key, order) {
  const hash = createHash("sha256").update(JSON.stringify(order)).digest("hex");
  const claimed = await client.query(
    `insert into idempotency (account_id, key, request_hash) values ($1, $2, $3)
     on conflict (account_id, key) do nothing`,
    [tenant, key, hash],
  );
  if (claimed.rowCount === 1) return undefined;
  const { rows } = await client.query(
    "select request_hash, status, body from idempotency where account_id = $1 and key = $2",
    [tenant, key],
  );
  const [record] = rows;
  if (record === undefined || record.status === null) {
    throw new Failure(409, "IDEMPOTENCY_IN_FLIGHT", "this Idempotency-Key is being used", {
      retryAfter: 1,
    });
  }
  if (record.request_hash !== hash) {
    throw new Failure(
      422,
      "IDEMPOTENCY_MISMATCH",
      "this Idempotency-Key was used for another order",
      {
        nextSteps: ["use a new Idempotency-Key"],
      },
    );
  }
  return { status: record.status, body: record.body };
}

const select = `select o.id, l.item, l.quantity, o.status, o.created_at
  from orders o join order_lines l on l.order_id = o.id and l.account_id = o.account_id
 where o.account_id = $1`;

/** Newest first; one row more than asked for tells whether there is a next page. */
export async function listOrders(database, tenant, { limit, before }) {
  const { rows } = await database.query(`${select} and o.id < $2 order by o.id desc limit $3`, [
    tenant,
    before ?? Number.MAX_SAFE_INTEGER,
    limit + 1,
  ]);
  const items = rows.slice(0, limit).map(toOrder);
  return { items, lastId: rows.length > limit ? items.at(-1)?.id : undefined };
}

export async function findOrder(database, tenant, id) {
  const { rows } = await database.query(`${select} and o.id = $2`, [tenant, id]);
  return rows.map(toOrder)[0];
}

const toOrder = (row) => ({ ...row, id: Number(row.id) });
