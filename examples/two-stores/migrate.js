/** Makes the tables of one store, `orders` or `billing`, as their owner. Repeatable. */
import { readFileSync } from "node:fs";
import pg from "pg";

const [store = ""] = process.argv.slice(2);
if (!["orders", "billing"].includes(store)) {
  process.stderr.write("node migrate.js orders|billing\n");
  process.exit(64);
}
const client = new pg.Client(process.env[`${store.toUpperCase()}_DATABASE_URL`]);
await client.connect();
await client.query(readFileSync(new URL(`${store}.sql`, import.meta.url), "utf8"));
await client.end();
