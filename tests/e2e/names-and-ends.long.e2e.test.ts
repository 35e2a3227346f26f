/**
 * Names of tenants with the control plane dead, questions to all cells, routes that go to every cell, and
 * the end of a tenant: with the shop in three cells, through real routers and agents.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Agent } from "undici";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type Answer, ask, startFleet, type TestFleet, until } from "../fleet.ts";
import { withClient } from "../plain-shop.ts";

const app = resolve(import.meta.dirname, "..", "..", "examples", "shop", "cellfleet.yaml");
const tenants = ["north", "south", "east"];
const homeOf = (tenant: string): string => `cell-0${tenants.indexOf(tenant) + 1}`;
const client = new Agent({ allowH2: false });

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await startFleet({ cells: 3, flags: ["--no-demo"], app });
  for (const tenant of tenants) {
    await fleet.cliJson("tenant", "create", tenant, "--cell", homeOf(tenant), "--wait");
    const made = await fleet.ask(tenant, "POST", "/orders", { item: "tea", quantity: 2 });
    if (made.status !== 201) throw new Error(`${made.status} ${made.text}`);
  }
  await routeByNames();
});
afterAll(async () => {
  await client.destroy();
  await fleet?.stop();
});

/** Beside the header: a custom domain, an API key; and one host whose pages are of all cells. */
async function routeByNames(): Promise<void> {
  const now = await fleet.cliJson("routing", "get");
  const sources = [
    ...(now["tenantSources"] as unknown[]),
    { header: "x-api-key", alias: "api-key" },
    { header: "x-email", alias: "email" },
    { host: "{tenant}", alias: "domain" },
  ];
  const routes = [
    { host: "all.shop.test", service: "web", class: "fan-out" },
    ...(now["serviceRoutes"] as unknown[]),
  ];
  const { file, write } = await scratch("routing.json");
  await write(JSON.stringify({ tenantSources: sources, serviceRoutes: routes }));
  await fleet.cliJson("routing", "set", "--file", file, "--wait");
}

async function scratch(name: string) {
  const file = join(fleet.dataDir, name);
  return { file, write: (text: string) => writeFile(file, text) };
}

const get = async (path: string, headers: Readonly<Record<string, string>>): Promise<Answer> =>
  ask(client, (await fleet.endpoints()).router, "GET", path, undefined, headers);

const rowsIn = async (cell: string, tenant: string): Promise<number> => {
  const url = new URL((await fleet.endpoints()).cells[cell]?.database ?? "");
  url.username = "postgres";
  url.password = (await readFile(join(fleet.dataDir, "cells", cell, "password"), "utf8")).trim();
  const tables = ["orders", "order_lines", "jobs", "ticks", "idempotency", "products"];
  const counts = tables.map((table) => `(select count(*) from ${table} where account_id = $1)`);
  const sql = `select ${counts.join(" + ")} + (select count(*) from accounts where id = $1) as n`;
  return withClient(url.href, async (database) => {
    const { rows } = await database.query<{ n: string }>(sql, [tenant]);
    return Number(rows[0]?.n);
  });
};

describe("names", () => {
  test("resolve at the router, and say so when they are ambiguous", async ({ expect }) => {
    for (const [tenant, name] of [
      ["north", "api-key:k-3141"],
      ["south", "domain:shop.south.test"],
      ["north", "email:ann@example.test"],
      ["south", "email:ann@example.test"],
      ["east", "email:eve@example.test"],
    ] as const) {
      await fleet.cliJson("tenant", "alias", "add", tenant, name, "--wait");
    }
    expect((await get("/whoami", { "x-api-key": "k-3141" })).json).toMatchObject({
      tenant: "north",
      cell: "cell-01",
    });
    expect((await get("/whoami", { host: "SHOP.south.test:8080" })).json).toMatchObject({
      tenant: "south",
    });
    expect((await get("/whoami", { "x-email": "Eve@Example.test" })).json).toMatchObject({
      tenant: "east",
    });
    const both = await get("/whoami", { "x-email": "ann@example.test" });
    expect(both.headers["x-cellfleet-error"]).toBe("TENANT_AMBIGUOUS");
    expect(both.text).not.toContain("north");
    const chosen = await get("/whoami", { "x-email": "ann@example.test", "x-tenant-id": "south" });
    expect(chosen.json).toMatchObject({ tenant: "south" });
    const foreign = await get("/whoami", { "x-api-key": "k-3141", "x-tenant-id": "south" });
    expect(foreign.headers["x-cellfleet-error"]).toBe("TENANT_CONFLICT");
  });

  test("resolve with the control plane dead, also after the router was started again", async ({
    expect,
  }) => {
    await fleet.cli("dev", "kill", "control-plane");
    const byKey = async () => (await get("/whoami", { "x-api-key": "k-3141" })).json;
    expect(await byKey()).toMatchObject({ tenant: "north" });
    await fleet.cli("dev", "kill", "router-01");
    await fleet.cli("dev", "start", "router-01");
    await until("the router serves from its disk", () =>
      byKey().then(
        ({ tenant }) => tenant === "north",
        () => false,
      ),
    );
    await fleet.cli("dev", "start", "control-plane");
    await until("the control plane answers", async () => (await fleet.cli("status")).code === 0);
  });
});

describe("all cells at once", () => {
  test("a question shows each tenant once, and can change nothing", async ({ expect }) => {
    const asked = await fleet.cliJson(
      ...["query", "--all-cells", "select account_id, count(*) as n from orders group by 1"],
    );
    const seen = JSON.stringify(asked);
    for (const tenant of tenants) expect(seen.split(`"${tenant}"`).length - 1).toBe(1);
    const writing = await fleet.cli("query", "--all-cells", "delete from orders");
    expect(writing.code).not.toBe(0);
    for (const tenant of tenants) {
      expect((await fleet.ask(tenant, "GET", "/orders")).text).toContain("tea");
    }
  });

  test("a fan-out has a part of every cell, and names a cell that is missing", async ({
    expect,
  }) => {
    const whole = await get("/", { host: "all.shop.test" });
    expect(whole.status).toBe(200);
    expect(whole.json).toMatchObject({ complete: true, missing: [] });
    const parts = new Set(Object.keys(whole.json["cells"] as object));
    expect(parts).toEqual(new Set(["cell-01", "cell-02", "cell-03"]));
    await fleet.cliJson("cell", "kill", "cell-03", "--yes");
    const partial = await get("/", { host: "all.shop.test" });
    expect(partial.status).toBe(207);
    expect(partial.headers["x-cell-missing"]).toBe("cell-03");
    expect(partial.json).toMatchObject({ complete: false, missing: [{ cell: "cell-03" }] });
    await fleet.cliJson("cell", "start", "cell-03", "--wait");
  });
});

describe("the end of a tenant", () => {
  test("suspended, it is refused and keeps its data; resumed, it goes on", async ({ expect }) => {
    await fleet.cliJson("tenant", "suspend", "east", "--yes");
    const refused = await fleet.ask("east", "GET", "/orders");
    expect(refused.headers["x-cellfleet-error"]).toBe("TENANT_SUSPENDED");
    expect(await rowsIn("cell-03", "east")).toBeGreaterThan(0);
    await fleet.cliJson("tenant", "resume", "east");
    expect((await fleet.ask("east", "GET", "/orders")).text).toContain("tea");
  });

  test("deleted, it leaves no row, no name and no id, and a receipt", async ({ expect }) => {
    await fleet.cliJson("tenant", "delete", "east", "--yes");
    for (const cell of ["cell-01", "cell-02", "cell-03"]) {
      expect(await rowsIn(cell, "east")).toBe(0);
    }
    expect((await fleet.ask("east", "GET", "/orders")).status).toBe(404);
    const byName = await get("/whoami", { "x-email": "eve@example.test" });
    expect(byName.headers["x-cellfleet-error"]).toBe("TENANT_UNKNOWN");
    const receipt = await fleet.cliJson("tenant", "receipt", "east");
    expect(receipt).toMatchObject({ tenant: "east", complete: true, claims: 1 });
    const again = await fleet.cli("tenant", "create", "east");
    expect(again.code).toBe(6);
    expect(again.stderr).toContain("deleted");
  });
});
