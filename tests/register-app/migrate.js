/** Makes the tables, as their owner. Repeatable. */
import { readFileSync } from "node:fs";
import pg from "pg";

const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
await client.query(readFileSync(new URL("schema.sql", import.meta.url), "utf8"));
await client.end();
