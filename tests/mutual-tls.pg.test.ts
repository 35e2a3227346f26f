/**
 * Router and agent, each of whom shows the other a certificate: from a client's TLS to the application
 * behind the gate, and nobody else comes through it.
 */
import { writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { openBench } from "../cell/agent/agent.fixture.ts";
import { ask, codeOf, createBench, until } from "../router/running.fixture.ts";
import { createAuthority } from "../runtime/tls/certificates.fixture.ts";
import { startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });
const routers = createBench();
/** Who vouches for agents, for routers, and for what clients see. */
const [agents, machines, edge] = [createAuthority("1"), createAuthority("2"), createAuthority("3")];
const cell = "cell-tls";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const put = async (name: string, text: string) => {
  const file = join(routers.dir(), name);
  await writeFile(file, text);
  return file;
};

async function startAgent() {
  const bench = await openBench(server, cell);
  routers.closers.push(bench.close);
  const own = agents.issue(["agent.test"]);
  const agent = await bench.start({
    tls: {
      cert: await put("agent.crt", own.cert),
      key: await put("agent.key", own.key),
      ca: await put("machines.pem", machines.cert),
    },
  });
  expect(agent.endpoint).toMatch(/^https:/);
  await bench.applied(bench.control.own("default/tenant/acme", "active"));
  return { agent, bench };
}

async function startRouter(endpoint: string) {
  const plane = await startControlPlane(tableOf(1, { acme: `${cell} 1` }, { [cell]: [endpoint] }));
  routers.closers.push(plane.close);
  const own = machines.issue(["router-1"]);
  const shown = edge.issue(["localhost"]);
  await put("edge.crt", shown.cert);
  await put("edge.key", shown.key);
  const list = '[{"name":"edge","cert":"edge.crt","key":"edge.key"}]';
  const { router } = await routers.startRemote(plane.url, {
    ...{ tls: "127.0.0.1:0", tlsCerts: await put("edge.json", list) },
    cellCa: await put("agents.pem", agents.cert),
    cellCert: await put("router.crt", own.cert),
    cellKey: await put("router.key", own.key),
    cellTlsName: "agent.test",
  });
  await until(async () => expect(codeOf(await ask(router.port, "acme"))).toBe("201 undefined"));
  return router;
}

const askTls = (port: number | undefined) =>
  new Promise<number>((resolve, reject) => {
    const out = request({
      ...{ host: "localhost", port, ca: edge.cert, agent: false, path: "/orders" },
      headers: { "x-tenant-id": "acme" },
    });
    out.once("error", reject);
    out.once("response", (res) => {
      res.resume();
      resolve(res.statusCode ?? 0);
    });
    out.end();
  });

/** What the gate says to whoever speaks HTTP over this; nothing if the connection ends before. */
const knock = (port: number, options: ConnectionOptions) =>
  new Promise<string>((resolve) => {
    let text = "";
    const socket = connectTls({ host: "127.0.0.1", port, ...options }, () =>
      socket.write("GET / HTTP/1.1\r\nHost: agent.test\r\nConnection: close\r\n\r\n"),
    );
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.once("close", () => resolve(text));
  });

test("from end to end, and no other way in", async () => {
  const { agent, bench } = await startAgent();
  const router = await startRouter(agent.endpoint);
  expect(await askTls(router.tlsPort)).toBe(201);
  expect(bench.app.seen.length).toBeGreaterThan(0);

  const port = Number(new URL(agent.endpoint).port);
  const trust = { ca: agents.cert, servername: "agent.test" };
  expect(await knock(port, { ...trust, ...machines.issue(["x"]) })).toMatch(/^HTTP\/1.1 403/);
  expect(await knock(port, { ...trust, ...agents.issue(["x"]) })).toBe("");
  expect(await knock(port, trust)).toBe("");
  const plain = connect(port, "127.0.0.1");
  let text = "";
  plain.on("data", (chunk) => {
    text += chunk.toString("latin1");
  });
  plain.on("error", () => {});
  plain.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await new Promise((resolve) => plain.once("close", resolve));
  expect(text).not.toMatch(/HTTP/);

  // A certificate that is replaced counts from the next connection on.
  const renewed = agents.issue(["elsewhere.test"]);
  await put("agent.crt", renewed.cert);
  await put("agent.key", renewed.key);
  await until(() => expect(knock(port, { ...trust, ...machines.issue(["x"]) })).resolves.toBe(""));
});
