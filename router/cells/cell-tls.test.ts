/** Towards cells over TLS: who is not whom it should be gets no request, and who asks shows who it is. */
import { writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { expect, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { createAuthority } from "../../runtime/tls/certificates.fixture.ts";
import { ask, codeOf, createBench, metric, of, until } from "../running.fixture.ts";

vi.setConfig({ testTimeout: 30_000 });
const bench = createBench();
const authority = createAuthority();
const stranger = createAuthority("Somebody else");

type Seen = { readonly servername: unknown; readonly client: unknown };

/** An application behind TLS; what it saw of each connection's handshake. */
async function startSecureApp(names: readonly string[], clientCa?: string) {
  const seen: Seen[] = [];
  let sockets = 0;
  const server = createServer(
    {
      ...authority.issue(names),
      ...(clientCa === undefined ? {} : { ca: clientCa, requestCert: true }),
    },
    (req, res) => {
      const socket = req.socket as TLSSocket;
      seen.push({ servername: socket.servername, client: socket.getPeerCertificate().subject?.CN });
      res.end("ok");
    },
  );
  server.on("secureConnection", () => {
    sockets += 1;
  });
  server.on("tlsClientError", () => {});
  new WebSocketServer({ server }).on("connection", (socket, req) => {
    socket.on("message", (text) => socket.send(`${req.headers.host} ${text}`));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  bench.closers.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return { url: `https://localhost:${port}`, port, seen, sockets: () => sockets };
}

const tableFor = (url: string) => ({ cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } });
const put = async (name: string, text: string) => {
  const file = join(bench.dir(), name);
  await writeFile(file, text);
  return file;
};

test("a cell is verified by the name in its URL, whatever host the client asked for", async () => {
  const app = await startSecureApp(["localhost"]);
  const cellCa = await put("ca.pem", authority.cert);
  const { router } = await bench.startStatic(tableFor(app.url), { cellCa });
  for (const host of ["acme.test", "globex.test", "acme.test"]) {
    expect(codeOf(await ask(router.port, "acme", { headers: { host } }))).toBe("200 undefined");
  }
  expect(app.seen.map(({ servername }) => servername)).toEqual(Array(3).fill("localhost"));
  // A host that changed would have cost a connection each time.
  expect(app.sockets()).toBe(1);
});

test.each([
  ["of another authority", ["localhost"], stranger],
  ["of another name", ["elsewhere.test"], authority],
])("a certificate %s is a cell that cannot be reached", async (_name, names, trusted) => {
  const app = await startSecureApp(names);
  const cellCa = await put("ca.pem", trusted.cert);
  const { router, lines } = await bench.startStatic(tableFor(app.url), { cellCa });
  for (let nth = 0; nth < 3; nth += 1) {
    const answer = await ask(router.port, "acme", { headers: { host: "localhost" } });
    expect(codeOf(answer)).toBe("503 CELL_UNREACHABLE");
  }
  expect(app.seen).toEqual([]);
  // Once, not once per request.
  expect(of(lines, "tls.failed")).toMatchObject([
    { endpoint: app.url, reason: expect.stringMatching(/cert|altname/i) },
  ]);
  const series = 'cellfleet_router_upstream_errors_total{cell="a",reason="tls"}';
  expect(await metric(router, series)).toBeGreaterThan(0);
});

test("without an authority of its own a router trusts whom the system trusts", async () => {
  const app = await startSecureApp(["localhost"]);
  const { router } = await bench.startStatic(tableFor(app.url));
  expect(codeOf(await ask(router.port, "acme"))).toBe("503 CELL_UNREACHABLE");
});

test("a tunnel is verified in the same way, by the name of the cell", async () => {
  const app = await startSecureApp(["localhost"]);
  const wrong = await startSecureApp(["globex.test"]);
  const own = authority.issue(["localhost"]);
  const [cert, key] = [await put("edge.crt", own.cert), await put("edge.key", own.key)];
  const cells = { a: { endpoints: [app.url] }, b: { endpoints: [wrong.url] } };
  const { router } = await bench.startStatic(
    { cells, tenants: { acme: "a", globex: "b" } },
    {
      ...{ cellCa: await put("ca.pem", authority.cert), tls: "127.0.0.1:0" },
      tlsCerts: await put("list.json", JSON.stringify([{ name: "edge", cert, key }])),
    },
  );
  const open = (tenant: string) => {
    const socket = new WebSocket(`wss://localhost:${router.tlsPort}/`, {
      ca: authority.cert,
      headers: { "x-tenant-id": tenant },
    });
    bench.closers.push(async () => socket.terminate());
    return socket;
  };
  const good = open("acme");
  const said = new Promise((resolve) => good.once("message", (text) => resolve(String(text))));
  good.once("open", () => good.send("hello"));
  expect(await said).toBe(`localhost:${router.tlsPort} hello`);
  const bad = open("globex");
  const refused = new Promise((resolve) => bad.once("error", (error) => resolve(error.message)));
  expect(await refused).toMatch(/503/);
  expect(wrong.sockets()).toBe(0);
});

test("a name may be set for cells that are reached by their address", async () => {
  const app = await startSecureApp(["cells.internal"]);
  const cellCa = await put("ca.pem", authority.cert);
  const flags = { cellCa, cellTlsName: "cells.internal" };
  const url = `https://127.0.0.1:${app.port}`;
  const { router } = await bench.startStatic(tableFor(url), flags);
  expect(codeOf(await ask(router.port, "acme"))).toBe("200 undefined");
  expect(app.seen[0]?.servername).toBe("cells.internal");
});

test("an address is verified as an address, and no host of a client stands in for it", async () => {
  const app = await startSecureApp(["127.0.0.1"]);
  const wrong = await startSecureApp(["acme.test"]);
  const cellCa = await put("ca.pem", authority.cert);
  const cells = {
    a: { endpoints: [`https://127.0.0.1:${app.port}`] },
    b: { endpoints: [`https://127.0.0.1:${wrong.port}`] },
  };
  const table = { cells, tenants: { acme: "a", globex: "b" } };
  const { router } = await bench.startStatic(table, { cellCa });
  const headers = { host: "acme.test" };
  expect(codeOf(await ask(router.port, "acme", { headers }))).toBe("200 undefined");
  expect(codeOf(await ask(router.port, "globex", { headers }))).toBe("503 CELL_UNREACHABLE");
});

test("a cell that asks for a certificate gets the router's, read anew when it is replaced", async () => {
  const app = await startSecureApp(["localhost"], authority.cert);
  const cellCa = await put("ca.pem", authority.cert);
  const first = stranger.issue(["router-0"]);
  const [cellCert, cellKey] = [await put("r.crt", first.cert), await put("r.key", first.key)];
  const flags = { cellCa, cellCert, cellKey };
  const { router, lines } = await bench.startStatic(tableFor(app.url), flags);
  const refused = await ask(router.port, "acme", { method: "POST", body: "x" });
  // With TLS 1.3 a server may refuse us when we believe to be connected, and may just hang up.
  expect(codeOf(refused)).toMatch(/^50[23] CELL_/);
  expect(app.seen).toEqual([]);

  await put("r.crt", "no certificate at all");
  await router.reload();
  expect(of(lines, "tls.refused")).toMatchObject([{ for: "cells" }]);
  const second = authority.issue(["router-1"]);
  await put("r.crt", second.cert);
  await put("r.key", second.key);
  await router.reload();
  await until(async () => expect(codeOf(await ask(router.port, "acme"))).toBe("200 undefined"));
  expect(app.seen[0]?.client).toBe("router-1");
});

test.each([
  [{ cellCert: "x" }, /--cell-cert and --cell-key need each other/],
  [{ cellCa: "/nowhere/ca.pem" }, /\/nowhere\/ca.pem/],
])("settings that cannot be meant are refused: %j", async (flags, text) => {
  await expect(bench.startStatic(tableFor("https://localhost:1"), flags)).rejects.toThrow(text);
});
