/** The shop's web service: orders. `DATABASE_URL=… PORT=3000 node web.js` is all it needs. */
import { openDatabase } from "./lib/database.js";
import { Failure, invalid } from "./lib/failure.js";
import { serve, wholeNumber } from "./lib/http.js";
import { readOutbox } from "./lib/jobs.js";
import {
  createOrder,
  findOrder,
  listOrders,
  parseIdempotencyKey,
  parseOrder,
} from "./lib/orders.js";
import { settings } from "./lib/process.js";

const { databaseUrl, port, place } = settings();
const database = openDatabase(databaseUrl);
const limitMax = 200;

serve({
  port,
  onClose: database.close,
  routes: {
    "GET /livez": () => ({ text: "ok\n" }),
    "GET /healthz": async () => {
      await database.query("select 1");
      return { text: "ok\n" };
    },
    "GET /": () => ({ json: { shop: "open", place } }),
    "GET /whoami": ({ tenant, headers }) => ({
      json: { cell: place, tenant, epoch: wholeNumber(headers["x-cellfleet-epoch"]) ?? null },
    }),
    "POST /orders": async ({ tenant, headers, body }) => {
      const key = parseIdempotencyKey(headers["idempotency-key"]);
      const order = parseOrder(body);
      const made = await database.transaction((client) => createOrder(client, tenant, order, key));
      return {
        status: made.status,
        json: made.body,
        headers: made.replayed ? { "idempotent-replayed": "true" } : {},
      };
    },
    "GET /orders": async ({ tenant, query }) => {
      const page = parsePage(query);
      const { items, lastId } = await listOrders(database, tenant, page);
      return { json: { items, next: nextPath(lastId, query.get("limit")) } };
    },
    "GET /orders/:id": async ({ tenant, params }) => {
      const id = wholeNumber(params.id);
      const order = id === undefined ? undefined : await findOrder(database, tenant, id);
      if (order === undefined) throw new Failure(404, "NOT_FOUND", "there is no such order");
      return { json: order };
    },
    "GET /outbox": async ({ tenant }) => ({ json: await readOutbox(database, tenant) }),
  },
});

function parsePage(query) {
  const limit = wholeNumber(query.get("limit") ?? "50");
  if (limit === undefined || limit < 1 || limit > limitMax) {
    throw invalid(`limit must be from 1 to ${limitMax}`);
  }
  const cursor = query.get("cursor");
  if (cursor === null) return { limit };
  const before = wholeNumber(Buffer.from(cursor, "base64url").toString("latin1"));
  if (before === undefined) throw invalid("cursor was not made by this application");
  return { limit, before };
}

function nextPath(lastId, limit) {
  if (lastId === undefined) return null;
  const cursor = Buffer.from(String(lastId), "latin1").toString("base64url");
  return `/orders?cursor=${cursor}${limit === null ? "" : `&limit=${Number(limit)}`}`;
}
