/**
 * Brings the shop's database to the newest schema: runs what is new in migrations/, in order, each
 * file in a transaction, one runner at a time. Run it as the tables' owner.
 */
import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { settings } from "./lib/process.js";

const { databaseUrl } = settings();
const folder = new URL("migrations/", import.meta.url);
const client = new pg.Client(databaseUrl);
await client.connect();
await client.query(
  `create table if not exists schema_migrations (
     name text primary key, done_at timestamptz not null default now())`,
);
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".sql"))
  .toSorted();
for (const name of files) {
  await client.query("begin");
  await client.query("lock table schema_migrations in exclusive mode");
  const known = await client.query("select from schema_migrations where name = $1", [name]);
  if (known.rowCount === 0) {
    await client.query(readFileSync(new URL(name, folder), "utf8")).catch((error) => {
      process.stderr.write(`${name}: ${error.message}\n`);
      process.exit(1);
    });
    await client.query("insert into schema_migrations (name) values ($1)", [name]);
    process.stdout.write(`${name}\n`);
  }
  await client.query("commit");
}
await client.end();
