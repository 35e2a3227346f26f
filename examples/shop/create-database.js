/**
 * The shop's database as a careful company has it, made once by an administrator (ADMIN_URL): the role
 * `shop_owner` owns the tables and migrates, the role `shop` is what the shop logs in as.
 *
 * Prints the addresses as lines for a shell; also those of two roles that Cellfleet will want later.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";

const { ADMIN_URL } = process.env;
if (!ADMIN_URL) {
  process.stderr.write("ADMIN_URL must be set: postgres://ADMIN:PASSWORD@HOST:5432/postgres\n");
  process.exit(78);
}
const passwords = {
  shop_owner: randomBytes(18).toString("hex"),
  shop: randomBytes(18).toString("hex"),
  cellfleet_agent: randomBytes(18).toString("hex"),
  cellfleet_reader: randomBytes(18).toString("hex"),
};

async function inDatabase(url, statements) {
  const client = new pg.Client(url);
  await client.connect();
  for (const text of statements) await client.query(text);
  await client.end();
}

const urlOf = (user) => {
  const url = new URL(ADMIN_URL);
  Object.assign(url, { username: user, password: passwords[user], pathname: "/shop" });
  return url.href;
};

await inDatabase(ADMIN_URL, [
  `create role shop_owner login createrole password '${passwords.shop_owner}'`,
  `create role shop login password '${passwords.shop}'`,
  "create database shop owner shop_owner",
]);
await inDatabase(urlOf("shop_owner"), [
  "alter default privileges grant select, insert, update, delete on tables to shop",
  "alter default privileges grant usage, select on sequences to shop",
]);
process.stdout.write(
  [
    `export OWNER_URL='${urlOf("shop_owner")}'`,
    `export APP_URL='${urlOf("shop")}'`,
    `export AGENT_URL='${urlOf("cellfleet_agent")}' AGENT_PASSWORD=${passwords.cellfleet_agent}`,
    `export READER_URL='${urlOf("cellfleet_reader")}' READER_PASSWORD=${passwords.cellfleet_reader}`,
    "",
  ].join("\n"),
);
