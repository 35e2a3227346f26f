/** Fills the shop: `node seed.js 400` makes 400 accounts, each with products and orders. */
import pg from "pg";
import { settings } from "./lib/process.js";

const { databaseUrl } = settings();
const accounts = Number(process.argv[2] ?? 20);
const prefix = process.argv[3] ?? "account-";
const orders = Number(process.argv[4] ?? 5);

const client = new pg.Client(databaseUrl);
await client.connect();
await client.query("begin");
const name = "$2 || lpad(n::text, 4, '0')";
await client.query(
  `insert into accounts (id, name)
   select ${name}, 'Account ' || n from generate_series(1, $1::integer) n on conflict do nothing`,
  [accounts, prefix],
);
await client.query(
  `insert into products (account_id, sku, price)
   select ${name}, 'sku-' || p, p * 100 from generate_series(1, $1::integer) n, generate_series(1, 3) p
   on conflict do nothing`,
  [accounts, prefix],
);
await client.query(
  `with made as (
     insert into orders (account_id, status, confirmed)
     select ${name}, 'confirmed', 1 from generate_series(1, $1::integer) n, generate_series(1, $3::integer)
     returning id, account_id)
   insert into order_lines (account_id, order_id, item, quantity)
   select account_id, id, 'tea of ' || account_id, 1 + id % 9 from made`,
  [accounts, prefix, orders],
);
await client.query("commit");
await client.end();
process.stdout.write(`${accounts} accounts, each with ${orders} orders\n`);
