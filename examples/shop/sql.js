/** One statement on DATABASE_URL, for machines without psql: `node sql.js "select 1"`. */
import pg from "pg";
import { settings } from "./lib/process.js";

const client = new pg.Client(settings().databaseUrl);
await client.connect();
try {
  const { rows } = await client.query(process.argv[2] ?? "select 1");
  for (const row of rows) process.stdout.write(`${Object.values(row).join(" | ")}\n`);
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
await client.end();
