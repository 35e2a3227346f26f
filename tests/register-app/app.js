/**
 * Registers that change by compare and set, and a list of orders, per tenant. Plain Node and PostgreSQL;
 * nothing here knows of cells.
 *
 * `PUT /registers/:name {"expected","value"}` and `GET /registers/:name` answer `{"found"}`: what stood
 * there before. `POST /orders {"item"}` with an Idempotency-Key, `GET /orders?limit=`.
 */
import { createServer } from "node:http";
import pg from "pg";

const pageSizeMax = 1000;
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 8,
  connectionTimeoutMillis: 5000,
  query_timeout: 15_000,
});
const trouble = (error) => process.stderr.write(`${error.message}\n`);
pool.on("error", trouble);
pool.on("connect", (client) => client.on("error", trouble));

async function look(tenant, name) {
  const { rows } = await pool.query(
    "select value from registers where tenant_id = $1 and name = $2",
    [tenant, name],
  );
  return { status: 200, body: { found: rows[0]?.value ?? null } };
}

/** Each question asks under the lock that it then writes with, so no other value comes between. */
async function swap(tenant, name, { expected, value }) {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query(
      "insert into registers (tenant_id, name) values ($1, $2) on conflict do nothing",
      [tenant, name],
    );
    const { rows } = await client.query(
      "select value from registers where tenant_id = $1 and name = $2 for update",
      [tenant, name],
    );
    const found = rows[0]?.value ?? null;
    if (found === expected) {
      await client.query("update registers set value = $3 where tenant_id = $1 and name = $2", [
        tenant,
        name,
        value,
      ]);
    }
    await client.query("commit");
    return { status: 200, body: { found } };
  } catch (error) {
    await client.query("rollback").catch(trouble);
    throw error;
  } finally {
    client.release();
  }
}

async function order(tenant, key, { item }) {
  const { rows } = await pool.query(
    `insert into orders (tenant_id, key, item) values ($1, $2, $3)
     on conflict (tenant_id, key) do update set item = orders.item returning id::float8, item`,
    [tenant, key, item],
  );
  return { status: 201, body: rows[0] };
}

/** In one statement, so of one moment. */
async function page(tenant, query) {
  const limit = Math.min(Number(query.get("limit") ?? 50), pageSizeMax);
  const { rows } = await pool.query(
    `select id::float8, item from orders where tenant_id = $1 and ($2::bigint is null or id < $2)
      order by id desc limit $3`,
    [tenant, query.get("before"), limit + 1],
  );
  const items = rows.slice(0, limit);
  const next = rows.length > limit ? `/orders?limit=${limit}&before=${items.at(-1).id}` : null;
  return { status: 200, body: { items, next } };
}

async function answer(req) {
  const { pathname, searchParams } = new URL(req.url, "http://app");
  const tenant = req.headers["x-tenant-id"] ?? "";
  const [, room, name = ""] = pathname.split("/");
  switch (`${req.method} ${room}`) {
    case "GET healthz":
      return { status: 200, body: { ok: true } };
    case "GET registers":
      return look(tenant, name);
    case "PUT registers":
      return swap(tenant, name, await readJson(req));
    case "GET orders":
      return page(tenant, searchParams);
    case "POST orders":
      return order(tenant, req.headers["idempotency-key"], await readJson(req));
    default:
      return { status: 404, body: { error: { message: "nothing is here" } } };
  }
}

async function readJson(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}

const server = createServer((req, res) => {
  const send = (status, body) =>
    res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  answer(req).then(
    ({ status, body }) => send(status, body),
    // What PostgreSQL refused did not happen; of a lost answer nobody knows.
    ({ code, severity, message }) =>
      send(503, { error: { code: severity === undefined ? undefined : code, message } }),
  );
});

server.listen(Number(process.env.PORT), "127.0.0.1");
process.once("SIGTERM", () => {
  server.close(() => void pool.end());
  server.closeIdleConnections();
});
