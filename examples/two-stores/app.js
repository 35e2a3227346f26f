/**
 * Orders in one database, their invoices in another; each statement commits by itself. Nothing here
 * knows of cells.
 *
 * `POST /orders {"ref","item"}` writes both, and may be repeated: a `ref` is one order and one invoice.
 * `POST /invoices {"ref"}` writes the second database alone. `GET /orders` reads both.
 */
import { createServer } from "node:http";
import pg from "pg";

const bodyBytesMax = 64 * 1024;
const orders = openPool("ORDERS_DATABASE_URL");
const billing = openPool("BILLING_DATABASE_URL");

function openPool(variable) {
  const pool = new pg.Pool({
    connectionString: process.env[variable],
    max: 4,
    connectionTimeoutMillis: 5000,
    query_timeout: 15_000,
  });
  const trouble = (error) => process.stderr.write(`${variable}: ${error.message}\n`);
  pool.on("error", trouble);
  // A checked-out connection that breaks emits on the client itself; unheard it ends the process.
  pool.on("connect", (client) => client.on("error", trouble));
  return pool;
}

const server = createServer((req, res) => {
  answer(req).then(
    ({ status, body }) => send(res, status, body),
    (error) => {
      // What PostgreSQL refused did not happen, and may be sent again; of a lost answer nobody knows.
      const status = error.status ?? 503;
      const code = "severity" in error ? error.code : undefined;
      send(res, status, { error: { code, message: error.message } });
    },
  );
});

async function answer(req) {
  const tenant = req.headers["x-tenant-id"] ?? "";
  const route = `${req.method} ${req.url?.split("?")[0]}`;
  switch (route) {
    case "GET /healthz":
      return { status: 200, body: { ok: true } };
    case "GET /orders":
      return { status: 200, body: await listOrders(tenant) };
    case "POST /orders":
      return { status: 201, body: await takeOrder(tenant, await readJson(req)) };
    case "POST /invoices":
      return { status: 201, body: await writeInvoice(tenant, await readJson(req), 0) };
    default:
      return { status: 404, body: { error: { message: "nothing is here" } } };
  }
}

async function listOrders(tenant) {
  const [taken, written] = await Promise.all([
    orders.query("select id::float8, ref, item from orders where tenant_id = $1 order by id", [
      tenant,
    ]),
    billing.query("select ref, order_id::float8 from invoices where tenant_id = $1 order by ref", [
      tenant,
    ]),
  ]);
  return { orders: taken.rows, invoices: written.rows };
}

async function takeOrder(tenant, { ref, item = "tea" }) {
  const { rows } = await orders.query(
    `insert into orders (tenant_id, ref, item) values ($1, $2, $3)
     on conflict (tenant_id, ref) do update set item = excluded.item returning id::float8`,
    [tenant, String(ref), String(item)],
  );
  const { id } = rows[0];
  const invoice = await writeInvoice(tenant, { ref }, id);
  return { id, ref, invoice };
}

async function writeInvoice(tenant, { ref }, orderId) {
  await billing.query(
    `insert into invoices (tenant_id, ref, order_id) values ($1, $2, $3)
     on conflict (tenant_id, ref) do update set order_id = excluded.order_id`,
    [tenant, String(ref), orderId],
  );
  return ref;
}

async function readJson(req) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of req) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) throw refusal(413, "the body is too large");
    chunks.push(chunk);
  }
  try {
    const body = JSON.parse(Buffer.concat(chunks).toString("utf8"));
    if (typeof body?.ref === "string") return body;
  } catch {
    // Said below.
  }
  throw refusal(400, 'send {"ref": "…"}');
}

const refusal = (status, message) => Object.assign(new Error(message), { status });

function send(res, status, body) {
  res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

server.listen(Number(process.env.PORT), "127.0.0.1");
process.once("SIGTERM", () => {
  server.close(() => void Promise.all([orders.end(), billing.end()]));
  server.closeIdleConnections();
});
