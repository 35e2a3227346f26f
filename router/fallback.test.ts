/** Fallback answers of routes, through a real router, while the cell behind it goes away and comes back. */

import { writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { expect, test, vi } from "vitest";
import { closeServer, listenOn } from "../table/table.fixture.ts";
import { ask, codeOf, createBench, metric, until } from "./running.fixture.ts";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const { closers, startStatic } = createBench();

/** A cell that can die and come back on the same port. */
async function startMortal(serve: RequestListener) {
  let server: Server | undefined = createServer(serve);
  const port = await listenOn(server, 0);
  const die = async () => {
    const dying = server;
    server = undefined;
    if (dying !== undefined) await closeServer(dying);
  };
  closers.push(die);
  return { url: `http://127.0.0.1:${port}`, die };
}

const table = (
  url: string,
  fallback: object,
  tenants: Record<string, string> = { acme: "a", globex: "a" },
) => ({
  tenantKey: [{ header: "x-tenant-id" }],
  cells: { a: { endpoints: [url] }, b: { endpoints: ["http://127.0.0.1:9"] } },
  tenants,
  serviceRoutes: [{ pathPrefix: "/menu", service: "default", fallback }],
});

const menu: RequestListener = (req, res) => {
  const control = new URL(req.url ?? "/", "http://cell").searchParams.get("control");
  if (control !== null) res.setHeader("cache-control", control);
  res.setHeader("vary", "accept-language");
  res.setHeader("etag", '"7"');
  res.end(`menu of ${req.headers["x-tenant-id"]} in ${req.headers["accept-language"]}`);
};

test("a dead cell's last good answer is given to the same tenant, marked stale, and to nobody else", async () => {
  const cell = await startMortal(menu);
  const { router } = await startStatic(table(cell.url, { staleSeconds: 600 }));
  const headers = { "accept-language": "de" };
  const get = (tenant: string, more: object = {}) =>
    ask(router.port, tenant, { path: "/menu", headers: { ...headers, ...more } });
  expect((await get("acme")).headers).not.toHaveProperty("warning");
  await cell.die();
  const stale = await get("acme");
  expect(stale).toMatchObject({ status: 200, text: "menu of acme in de" });
  expect(stale.headers).toMatchObject({
    warning: '110 cellfleet "Response is Stale"',
    age: expect.stringMatching(/^\d+$/),
    etag: '"7"',
    "x-cellfleet-error": "CELL_UNREACHABLE",
    "x-cell": "a",
  });
  expect(codeOf(await get("globex"))).toBe("503 CELL_UNREACHABLE");
  expect(codeOf(await get("acme", { "accept-language": "fr" }))).toBe("503 CELL_UNREACHABLE");
  expect(codeOf(await get("acme", { range: "bytes=0-3" }))).toBe("503 CELL_UNREACHABLE");
  expect(codeOf(await get("acme", { "cache-control": "no-cache" }))).toBe("503 CELL_UNREACHABLE");
  expect(codeOf(await ask(router.port, "acme", { path: "/menu?other", headers }))).toMatch("503");
  expect(codeOf(await ask(router.port, "acme", { path: "/menu", method: "POST" }))).toMatch("503");
  expect(await metric(router, 'cellfleet_router_fallbacks_total{kind="stale"}')).toBe(1);
});

test("answers that are one user's own, or must not be stored, are not kept", async () => {
  const cell = await startMortal(menu);
  const { router } = await startStatic(table(cell.url, { staleSeconds: 600 }));
  const asked: Array<[string, Record<string, string>]> = [
    ["/menu?control=no-store", {}],
    ["/menu?control=private", {}],
    ["/menu?control=max-age%3D5,must-revalidate", {}],
    ["/menu?user", { cookie: "session=1" }],
    ["/menu?user", { authorization: "Bearer x" }],
    ["/menu?user", { "x-api-key": "k" }],
  ];
  const get = (path: string, headers: Record<string, string>) =>
    ask(router.port, "acme", { path, headers });
  for (const [path, headers] of asked) expect((await get(path, headers)).status).toBe(200);
  expect((await get("/menu?control=public", { cookie: "session=1" })).status).toBe(200);
  await cell.die();
  for (const [path, headers] of asked) {
    expect(codeOf(await get(path, headers))).toBe("503 CELL_UNREACHABLE");
  }
  expect((await get("/menu?control=public", { cookie: "session=2" })).status).toBe(200);
});

test("without a kept answer the fixed one is given, with its own status; HEAD gets its head", async () => {
  const fixed = { status: 203, contentType: "application/json", body: '{"menu":[]}' };
  const { router } = await startStatic(
    table("http://127.0.0.1:9", { staleSeconds: 60, static: fixed }),
  );
  const answer = await ask(router.port, "acme", { path: "/menu" });
  expect(answer).toMatchObject({ status: 203, text: '{"menu":[]}' });
  expect(answer.headers["content-type"]).toBe("application/json");
  const head = await ask(router.port, "acme", { path: "/menu", method: "HEAD" });
  expect(head).toMatchObject({ status: 203, text: "" });
  expect(head.headers["content-length"]).toBe("11");
  expect(codeOf(await ask(router.port, "nobody", { path: "/menu" }))).toMatch("TENANT_UNKNOWN");
});

test("a tenant that moved meets no answer of the cell that it left", async () => {
  const cell = await startMortal(menu);
  const { router, file } = await startStatic(table(cell.url, { staleSeconds: 600 }));
  expect((await ask(router.port, "acme", { path: "/menu" })).status).toBe(200);
  await writeFile(file, JSON.stringify(table(cell.url, { staleSeconds: 600 }, { acme: "b" })));
  await router.reload();
  expect(codeOf(await ask(router.port, "acme", { path: "/menu" }))).toBe("503 CELL_UNREACHABLE");
  await writeFile(file, JSON.stringify(table(cell.url, { staleSeconds: 600 })));
  await router.reload();
  await cell.die();
  // It came back to the same cell and epoch: what was kept before is gone all the same.
  await until(async () =>
    expect(codeOf(await ask(router.port, "acme", { path: "/menu" }))).toBe("503 CELL_UNREACHABLE"),
  );
});
