/** Routes without a tenant (any-cell, public) and feature flags, through a real router to real servers. */
import type { RequestListener } from "node:http";
import { describe, expect, test, vi } from "vitest";
import type { CellId } from "../contract/ids.ts";
import { startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startCell } from "./fleet.fixture.ts";
import { admin, ask, codeOf, createBench, until } from "./running.fixture.ts";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const { closers, startApp, startRemote, startStatic } = createBench();
const echo =
  (name: string): RequestListener =>
  (req, res) =>
    void res.end(JSON.stringify({ name, url: req.url, headers: req.headers }));

const routes = [
  { pathPrefix: "/assets", service: "default", class: "any-cell" as const },
  { pathPrefix: "/status", service: "default", class: "public" as const, cell: "b" as CellId },
];
const policy = {
  rings: { canary: ["b" as CellId] },
  flags: {
    editor: { tenants: ["acme"] },
    search: { rings: ["canary"] },
    banner: { everywhere: true },
  },
};

/** Cell a owns acme, cell b globex; requests that name no tenant are admitted by those of `open`. */
async function startFleet(open: readonly string[] = ["a", "b"]) {
  const cellWide = (id: string) => (open.includes(id) ? { "": `${id} ` } : {});
  const a = await startCell("a", () => ({ acme: "a 1", ...cellWide("a") }), echo("a"));
  const b = await startCell("b", () => ({ globex: "b 1", ...cellWide("b") }), echo("b"));
  const cells = [a, b].map(({ url }, index) => ({
    id: (index === 0 ? "a" : "b") as CellId,
    services: { default: { endpoints: [url] } },
  }));
  const table = tableOf(1, { acme: "a 1", globex: "b 1" }, {}, "fleet-1", {
    ...{ cells, policy },
    tenantSources: [{ header: "x-tenant-id" }],
    serviceRoutes: routes,
  });
  const plane = await startControlPlane(table);
  closers.push(a.close, b.close, plane.close);
  const { router } = await startRemote(plane.url);
  await until(async () => expect((await admin(router, "/readyz")).status).toBe(200));
  return router;
}

test("a route of class any-cell is answered by each cell in turn, one of class public by its own", async () => {
  const router = await startFleet();
  const seen = new Set<string>();
  await until(async () => {
    const answer = await ask(router.port, undefined, { path: "/assets/x.css" });
    expect(answer.status).toBe(200);
    const said = JSON.parse(answer.text);
    seen.add(said.name);
    expect(said.headers).toMatchObject({ "x-cellfleet-class": "any-cell" });
    expect(said.headers).not.toHaveProperty("x-cellfleet-tenant");
    expect(seen).toEqual(new Set(["a", "b"]));
  });
  for (const _ of [1, 2, 3]) {
    const answer = await ask(router.port, undefined, { path: "/status" });
    expect(JSON.parse(answer.text)).toMatchObject({ name: "b" });
    expect(answer.headers["x-cell"]).toBe("b");
  }
});

test("no dot segment leads out of a route that asks for no tenant", async () => {
  const router = await startFleet();
  for (const path of [
    "../orders",
    "..%2forders",
    "%2e%2E/orders",
    "./x",
    "..",
    "..;/orders",
    "..\\x",
  ]) {
    const answer = await ask(router.port, undefined, { path: `/assets/${path}` });
    expect([path, codeOf(answer)]).toEqual([path, "400 REQUEST_INVALID"]);
  }
  for (const path of ["a..b", "x?../y", "...", "v1.2/app.js"]) {
    const answer = await ask(router.port, undefined, { path: `/assets/${path}` });
    expect([path, answer.status]).toEqual([path, 200]);
  }
  expect((await ask(router.port, "acme", { path: "/orders/../x" })).status).toBe(200);
});

test("a cell that may not serve now is passed over by any-cell; a public route to it says so", async () => {
  const router = await startFleet(["a"]);
  for (const _ of [1, 2, 3, 4, 5, 6, 7, 8]) {
    const answer = await ask(router.port, undefined, { path: "/assets/x" });
    expect(JSON.parse(answer.text)).toMatchObject({ name: "a" });
  }
  expect(codeOf(await ask(router.port, undefined, { path: "/status" }))).toBe(
    "503 PLACEMENT_UNAVAILABLE",
  );
});

test("flags that are on reach the application in one header, and a client cannot name its own", async () => {
  const router = await startFleet();
  const flags = async (tenant: string) => {
    const headers = { "x-cellfleet-flags": "admin" };
    const answer = await ask(router.port, tenant, { headers });
    return JSON.parse(answer.text).headers["x-cellfleet-flags"];
  };
  expect(await flags("acme")).toBe("banner,editor");
  expect(await flags("globex")).toBe("banner,search");
});

describe("in a static table", () => {
  test("a dead cell is passed over by any-cell; flags are told there too", async () => {
    const url = await startApp(echo("a"));
    const { router } = await startStatic({
      cells: { a: { endpoints: [url] }, b: { endpoints: ["http://127.0.0.1:9"] } },
      tenants: { acme: "a" },
      serviceRoutes: [{ pathPrefix: "/assets", service: "default", class: "any-cell" }],
      policy: { flags: { editor: { tenants: ["acme"] } } },
    });
    for (const _ of [1, 2, 3, 4, 5, 6, 7, 8]) {
      expect((await ask(router.port, undefined, { path: "/assets/x" })).status).toBe(200);
    }
    const told = JSON.parse((await ask(router.port, "acme")).text).headers;
    expect(told["x-cellfleet-flags"]).toBe("editor");
  });

  test("a table without a cell is a slip, and refused", async () => {
    await expect(startStatic({ cells: {} })).rejects.toThrow(/at least one cell/);
  });

  test("a public route that names no cell, or one that is not there, is refused", async () => {
    const url = await startApp(echo("a"));
    const table = (route: object) => ({
      cells: { a: { endpoints: [url] } },
      serviceRoutes: [{ service: "default", ...route }],
    });
    await expect(startStatic(table({ class: "public" }))).rejects.toThrow(/names its cell/);
    await expect(startStatic(table({ cell: "a" }))).rejects.toThrow(/names its cell/);
    await expect(startStatic(table({ class: "public", cell: "z" }))).rejects.toThrow(
      /there is no cell z/,
    );
  });
});
