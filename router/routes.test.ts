/** Classes of routes, services of a cell, names of tenants in a file: what reaches which server. */
import { createServer, type RequestListener } from "node:http";
import { describe, expect, test, vi } from "vitest";
import { hashAlias } from "../contract/alias.ts";
import { type CellId, defaultKeyspace, parseTenantId } from "../contract/ids.ts";
import { must } from "../runtime/assert.ts";
import { rawExchange } from "../runtime/http/peers.fixture.ts";
import { closeServer, startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startCell } from "./fleet.fixture.ts";
import {
  admin,
  adminJson,
  ask,
  codeOf,
  createBench,
  metric,
  of,
  until,
} from "./running.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const { closers, startApp, startRemote, startStatic } = createBench();
const echo: RequestListener = (req, res) =>
  void res.end(JSON.stringify({ url: req.url, method: req.method, headers: req.headers }));

/** Cell a owns acme; `web`, `read` and `login` are routes. */
async function startFleet(globalUrl = "http://127.0.0.1:9") {
  const a = await startCell("a", () => ({ acme: "a 1" }), echo);
  const services = { default: { endpoints: [a.url] }, web: { endpoints: [a.url] } };
  const table = tableOf(1, { acme: "a 1" }, {}, "fleet-1", {
    cells: [{ id: "a" as CellId, services }],
    tenantSources: [
      { header: "x-tenant-id" },
      { path: "/t/{tenant}", strip: true },
      { query: "hook", alias: "account" },
    ],
    serviceRoutes: [
      { pathPrefix: "/web", service: "web" },
      { pathPrefix: "/report", service: "default", class: "read" },
      { pathPrefix: "/login", service: "login", class: "global" },
      { pathPrefix: "/gone", service: "nowhere", class: "global" },
    ],
    globalServices: { login: { endpoints: [`${globalUrl}/base`] } },
    aliasing: { salt: "ab".repeat(16), namespaces: [{ name: "account", fold: false }] },
  });
  const plane = await startControlPlane(table);
  closers.push(a.close, plane.close);
  const started = await startRemote(plane.url);
  await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
  return { a, plane, ...started };
}

describe("a cell's gate is told", () => {
  test("which service is meant, unless it is the default one", async () => {
    const { router } = await startFleet();
    const web = JSON.parse((await ask(router.port, "acme", { path: "/web/x" })).text);
    expect(web.headers).toMatchObject({ "x-cellfleet-service": "web" });
    const plain = JSON.parse((await ask(router.port, "acme")).text);
    expect(plain.headers).not.toHaveProperty("x-cellfleet-service");
    expect(plain.headers).not.toHaveProperty("x-cellfleet-class");
  });

  test("that a route only reads, and how far the session has written", async () => {
    const { router } = await startFleet();
    const headers = { "x-cell-position": "a.0/16B3748", "x-cell-epoch": "9" };
    const read = JSON.parse((await ask(router.port, "acme", { path: "/report", headers })).text);
    expect(read.headers).toMatchObject({
      "x-cellfleet-class": "read",
      "x-cell-position": "a.0/16B3748",
    });
    expect(read.headers).not.toHaveProperty("x-cell-epoch");
    const other = JSON.parse((await ask(router.port, "acme", { headers })).text);
    expect(other.headers).not.toHaveProperty("x-cell-position");
  });
});

describe("a route of class global", () => {
  test("goes to the registered service, without a tenant, whatever the client names", async () => {
    const url = await startApp(echo);
    const { router, a, lines } = await startFleet(url);
    const answer = await ask(router.port, "no tenant at all!", {
      path: "/login?x=1",
      method: "POST",
      body: "secret",
      headers: { "x-cellfleet-tenant": "acme", "x-forwarded-for": "6.6.6.6" },
    });
    expect(answer.status).toBe(200);
    const seen = JSON.parse(answer.text);
    expect(seen).toMatchObject({ url: "/base/login?x=1", method: "POST" });
    expect(seen.headers["x-forwarded-for"]).toBe("127.0.0.1");
    expect(Object.keys(seen.headers).filter((name) => /^x-(cell|tenant)/.test(name))).toEqual([]);
    expect(answer.headers).not.toHaveProperty("x-cell");
    expect(a.seen).toEqual([]);
    await until(() =>
      expect(of(lines, "request.done")).toMatchObject([{ cell: null, service: "login" }]),
    );
    const series = 'cellfleet_router_requests_total{cell="_global",method="POST",code_class="2xx"}';
    expect(await metric(router, series)).toBe(1);
  });

  test("that nobody registered is a 503, and one that is dead says which", async () => {
    const { router } = await startFleet();
    expect(codeOf(await ask(router.port, undefined, { path: "/gone" }))).toBe(
      "503 SERVICE_UNKNOWN",
    );
    const dead = await ask(router.port, undefined, { path: "/login" });
    expect(codeOf(dead)).toBe("503 CELL_UNREACHABLE");
    expect(dead.text).toMatch(/Service login cannot be reached/);
  });

  test("is not reached through a tenant's prefix: that request stays with the tenant", async () => {
    const { router, a } = await startFleet(await startApp(echo));
    expect((await ask(router.port, undefined, { path: "/t/acme/login" })).status).toBe(200);
    expect(a.seen).toEqual(["GET /login acme 1 "]);
  });

  test("tunnels go there too", async () => {
    const { router } = await startFleet(await startApp(echo));
    const { text } = await rawExchange(
      router.port,
      "GET /login/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    expect(text).toMatch(/200 [\s\S]*\/base\/login\/live/);
  });
});

describe("a name of a tenant", () => {
  const named = (name: string) => ({
    alias: "account",
    keyspace: defaultKeyspace,
    names: [
      [hashAlias("ab".repeat(16), "account", name), must(parseTenantId("acme"), "id")],
    ] satisfies [string, unknown][],
  });

  test("that comes with a delta routes, also when the control plane is gone; one that goes does not", async () => {
    const { router, plane } = await startFleet();
    const hook = (name: string) => ask(router.port, undefined, { path: `/in?hook=${name}` });
    expect(codeOf(await hook("4711"))).toBe("404 TENANT_UNKNOWN");
    plane.changeNames({ aliasUpserts: [named("4711"), named("4712")] });
    await until(async () => expect((await hook("4711")).status).toBe(200));
    plane.changeNames({ aliasDeletes: [named("4712")] });
    await until(async () => expect(codeOf(await hook("4712"))).toBe("404 TENANT_UNKNOWN"));
    await plane.close();
    expect((await hook("4711")).status).toBe(200);
    expect(await adminJson(router, "/explain?alias=account:4711")).toMatchObject({
      tenant: "acme",
      cell: "a",
      stage: "enforce",
    });
    expect((await admin(router, "/explain?alias=account:0")).text).toMatch(/TENANT_UNKNOWN/);
    const shown = await adminJson(router, "/table");
    expect(shown).toMatchObject({ aliases: 1, aliasing: { namespaces: [{ name: "account" }] } });
    expect(JSON.stringify(shown)).not.toMatch(/abab/);
  });
});

describe("in static mode", () => {
  const table = async () => ({
    tenantKey: [
      { header: "x-tenant-id" },
      { host: "{tenant}", alias: "domain" },
      { query: "mail", alias: "email" },
    ],
    cells: { a: { endpoints: [await startApp(echo)] } },
    tenants: { acme: "a", globex: "a" },
    aliases: {
      domain: { "Shop.Acme.Test": "acme" },
      email: { "ann@example.com": ["acme", "globex"] },
    },
  });

  test("names stand in the file", async () => {
    const { router } = await startStatic(await table());
    const shop = await ask(router.port, undefined, { headers: { host: "shop.acme.test" } });
    expect(JSON.parse(shop.text).headers["x-tenant-id"]).toBe("acme");
    const path = "/?mail=ann@example.com";
    const several = await ask(router.port, undefined, { path });
    expect(codeOf(several)).toBe("400 TENANT_AMBIGUOUS");
    expect(several.text).not.toMatch(/acme|globex/);
    expect((await ask(router.port, "globex", { path })).status).toBe(200);
    expect(codeOf(await ask(router.port, "globex", { headers: { host: "shop.acme.test" } }))).toBe(
      "400 TENANT_CONFLICT",
    );
    const told = await admin(router, "/explain?alias=email:ann@example.com");
    expect(told.text).toMatch(/TENANT_AMBIGUOUS[\s\S]*default\/acme/);
  });

  test("global services and classes of routes stand in the file", async () => {
    const login = await startApp((_req, res) => void res.end("login page"));
    const { router } = await startStatic({
      ...(await table()),
      serviceRoutes: [{ pathPrefix: "/login", service: "login", class: "global" }],
      globalServices: { login: { endpoints: [login] } },
    });
    expect((await ask(router.port, undefined, { path: "/login" })).text).toBe("login page");
  });

  test("a namespace that a source asks for and the file does not have is refused", async () => {
    const { aliases: _, ...rest } = await table();
    await expect(startStatic(rest)).rejects.toThrow(/no namespace domain/);
    const odd = { ...(await table()), aliases: { domain: {}, email: { " ": "acme" } } };
    await expect(startStatic(odd)).rejects.toThrow(/is no name/);
  });
});

test("a global service's pool stays while the table names it, and then goes", async () => {
  const server = createServer(echo);
  // Longer than this test may take on a busy machine: a connection must not close by itself.
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => closeServer(server));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  const { router, plane } = await startFleet(`http://127.0.0.1:${port}`);
  expect((await ask(router.port, undefined, { path: "/login" })).status).toBe(200);
  const connections = () =>
    new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count)));
  const accepted = vi.fn();
  server.on("connection", accepted);
  plane.changeNames({ tenantSources: [{ header: "x-tenant-id" }] });
  await until(async () => expect(await adminJson(router, "/table")).toMatchObject({ revision: 2 }));
  expect((await ask(router.port, undefined, { path: "/login" })).status).toBe(200);
  expect(accepted).not.toHaveBeenCalled();
  expect(await connections()).toBe(1);
  plane.changeNames({ globalServices: {} });
  await until(async () => expect(await connections()).toBe(0));
  expect(codeOf(await ask(router.port, undefined, { path: "/login" }))).toBe("503 SERVICE_UNKNOWN");
});
