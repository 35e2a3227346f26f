/** The shop's second service, for other programs: products, and what the cron job did. */
import { openDatabase } from "./lib/database.js";
import { invalid } from "./lib/failure.js";
import { serve, wholeNumber } from "./lib/http.js";
import { settings } from "./lib/process.js";

const { databaseUrl, port, place } = settings();
const database = openDatabase(databaseUrl);
const productsMax = 500;

serve({
  port,
  onClose: database.close,
  routes: {
    "GET /livez": () => ({ text: "ok\n" }),
    "GET /healthz": async () => {
      await database.query("select 1");
      return { text: "ok\n" };
    },
    "GET /api/whoami": ({ tenant, headers }) => ({
      json: { cell: place, tenant, epoch: wholeNumber(headers["x-cellfleet-epoch"]) ?? null },
    }),
    "GET /api/products": async ({ tenant }) => {
      const { rows } = await database.query(
        "select id, sku, price, currency from products where account_id = $1 order by sku limit $2",
        [tenant, productsMax],
      );
      const items = rows.map((row) => ({ ...row, id: Number(row.id), price: Number(row.price) }));
      return { json: { items, next: null } };
    },
    "POST /api/products": async ({ tenant, body }) => {
      const { sku, price } = parseProduct(body);
      const id = await database.transaction(async (client) => {
        await client.query("insert into accounts (id) values ($1) on conflict do nothing", [
          tenant,
        ]);
        const { rows } = await client.query(
          `insert into products (account_id, sku, price) values ($1, $2, $3)
           on conflict (account_id, sku) do update set price = excluded.price returning id`,
          [tenant, sku, price],
        );
        return Number(rows[0].id);
      });
      return { status: 201, json: { id, sku, price } };
    },
    "GET /api/ticks": async ({ tenant }) => {
      const { rows } = await database.query(
        "select count(*) as ticks, min(tick) as first, max(tick) as last from ticks where account_id = $1",
        [tenant],
      );
      const [{ ticks, first, last }] = rows;
      return { json: { ticks: Number(ticks), first: Number(first), last: Number(last) } };
    },
  },
});

function parseProduct(text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw invalid("the body is not JSON");
  }
  const { sku, price } = body ?? {};
  if (typeof sku !== "string" || !/^[\w.-]{1,60}$/.test(sku)) {
    throw invalid("sku must be 1 to 60 letters, digits or . _ -");
  }
  if (!Number.isSafeInteger(price) || price < 0) throw invalid("price must be a whole number");
  return { sku, price };
}
