/** A fleet of three cells as a user meets it: 60 tenants, each served by its own cell, seen by nobody else. */
import pg from "pg";
import { afterAll, beforeAll, describe, test } from "vitest";
import { testApplication } from "../application.ts";
import { startFleet, type TestFleet } from "../fleet.ts";

const tenants = Array.from({ length: 60 }, (_, index) => `tour-${String(index).padStart(2, "0")}`);

let fleet: TestFleet;

beforeAll(async () => {
  fleet = await startFleet();
  const file = tenants.map((id) => `${JSON.stringify({ id })}\n`).join("");
  const { writeFile } = await import("node:fs/promises");
  await writeFile(`${fleet.dataDir}/tenants.ndjson`, file);
  await fleet.cliJson("tenant", "import", `${fleet.dataDir}/tenants.ndjson`);
});
afterAll(() => fleet?.stop());

type Located = { cell: string; epoch: number };

async function locate(tenant: string): Promise<Located> {
  return (await fleet.cliJson("tenant", "locate", tenant)) as unknown as Located;
}

describe("a fleet of three cells", () => {
  test("spreads the tenants and serves each from the cell that the CLI names", async ({
    expect,
  }) => {
    const perCell = new Map<string, number>();
    for (const tenant of tenants) {
      const answer = await fleet.ask(tenant, "GET", "/whoami");
      expect(answer.status).toBe(200);
      expect(answer.json).toMatchObject({ tenant });
      expect(answer.headers["x-cell"]).toBe(answer.json["cell"]);
      perCell.set(String(answer.json["cell"]), (perCell.get(String(answer.json["cell"])) ?? 0) + 1);
    }
    expect(Object.keys(Object.fromEntries(perCell)).toSorted((a, b) => a.localeCompare(b))).toEqual(
      ["cell-01", "cell-02", "cell-03"],
    );
    expect(Math.min(...perCell.values())).toBeGreaterThan(10);
    for (const tenant of tenants.slice(0, 6)) {
      const who = await fleet.ask(tenant, "GET", "/whoami");
      const { cell, epoch } = await locate(tenant);
      expect(who.json).toEqual({ cell, tenant, epoch });
    }
  });

  test("never shows an order of one tenant to another", async ({ expect }) => {
    const ids = new Set<number>();
    for (const tenant of tenants) {
      const made = await fleet.ask(tenant, "POST", "/orders", {
        item: `of ${tenant}`,
        quantity: 2,
      });
      expect(made.status).toBe(201);
      const id = Number(made.json["id"]);
      expect(ids.has(id)).toBe(false); // Ids come from leased ranges: no two cells hand out the same.
      ids.add(id);
    }
    for (const tenant of tenants) {
      const listed = await fleet.ask(tenant, "GET", "/orders");
      const items = listed.json["items"] as Array<{ id: number; item: string }>;
      expect(items.map((order) => order.item)).toEqual([`of ${tenant}`]);
      const foreign = [...ids].find((id) => id !== items[0]?.id);
      const peek = await fleet.ask(tenant, "GET", `/orders/${foreign}`);
      expect(peek.status).toBe(404);
    }
  });

  test("pages through a list by cursor and honours an idempotency key", async ({ expect }) => {
    const tenant = "tour-07";
    const key = { "idempotency-key": "the-same" };
    const first = await fleet.ask(tenant, "POST", "/orders", { item: "once", quantity: 1 }, key);
    const again = await fleet.ask(tenant, "POST", "/orders", { item: "once", quantity: 1 }, key);
    expect([first.status, again.status]).toEqual([201, 201]);
    expect(again.json["id"]).toBe(first.json["id"]);
    const page = await fleet.ask(tenant, "GET", "/orders?limit=1");
    expect(page.json["items"]).toHaveLength(1);
    const next = await fleet.ask(tenant, "GET", String(page.json["next"]));
    expect(next.json["items"]).toHaveLength(1);
    expect(next.json["next"]).toBeNull();
  });

  test("refuses what it cannot route, and says why", async ({ expect }) => {
    const unknown = await fleet.ask("nobody", "GET", "/orders");
    expect([unknown.status, unknown.headers["x-cellfleet-error"]]).toEqual([404, "TENANT_UNKNOWN"]);
    expect(unknown.json).toMatchObject({ error: { code: "TENANT_UNKNOWN" } });

    const conflict = await fleet.ask("tour-01", "GET", "/orders", undefined, {
      host: "tour-02.localhost",
    });
    expect([conflict.status, conflict.headers["x-cellfleet-error"]]).toEqual([
      400,
      "TENANT_CONFLICT",
    ]);

    const byHost = await fleet.ask("tour-01", "GET", "/whoami", undefined, {
      host: "tour-01.localhost",
    });
    expect(byHost.json).toMatchObject({ tenant: "tour-01" });

    const forged = await fleet.ask("tour-01", "GET", "/whoami", undefined, {
      "x-cellfleet-tenant": "tour-02",
      "x-cellfleet-epoch": "99",
    });
    expect(forged.json).toMatchObject({ tenant: "tour-01", epoch: 1 });
  });

  test("explains to an operator a request that a user saw refused, by its id", async ({
    expect,
  }) => {
    const refused = await fleet.ask("nobody", "GET", "/orders?secret=1");
    const id = String(refused.headers["x-request-id"]);
    const told = await fleet.cliJson("explain", "request", id);
    expect(told["items"]).toEqual([
      expect.objectContaining({
        id,
        tenant: "nobody",
        code: "TENANT_UNKNOWN",
        decision: "refused",
      }),
    ]);
    expect(JSON.stringify(told)).not.toContain("secret");
    const lost = await fleet.cli("explain", "request", "never-was");
    expect([lost.code, lost.stdout]).toEqual([5, ""]);
    expect(lost.stderr).toContain("knows failures since");
  });

  test("shows its traffic live: cells, tenants and routers", async ({ expect }) => {
    let isOver = false;
    const looking = fleet.cliJson("top", "--interval", "1s", "-n", "100").finally(() => {
      isOver = true;
    });
    while (!isOver) await fleet.ask("tour-04", "GET", "/whoami");
    const shown = await looking;
    const { cell } = await locate("tour-04");
    const cells = shown["cells"] as Array<{ id: string; requestsPerSecond: number; p99Ms: number }>;
    const busiest = cells.find(({ id }) => id === cell);
    expect(busiest?.requestsPerSecond).toBeGreaterThan(0);
    expect(busiest?.p99Ms).toBeGreaterThan(0);
    const tenants = shown["tenants"] as Array<{ id: string }>;
    expect(tenants.length).toBeGreaterThan(1);
    const routers = shown["routers"] as Array<{ connected: boolean; revision: number }>;
    expect(routers[0]).toMatchObject({ connected: true });
  });

  test("fences in the database: what goes round the gate is refused by PostgreSQL", async ({
    expect,
  }) => {
    const { cell } = await locate("tour-03");
    const other = Object.entries((await fleet.endpoints()).cells).find(([id]) => id !== cell);
    const client = new pg.Client({ connectionString: other?.[1].database ?? "" });
    await client.connect();
    try {
      const { insert } = testApplication;
      const key = "default/tenant/tour-03";
      await expect(client.query("select cellfleet.enter($1, 1)", [key])).rejects.toMatchObject({
        code: "CF001",
      });
      // A session that forges what enter() would have said gets no further.
      await client.query("begin");
      await client.query(
        "select set_config('cellfleet.entered', extract(epoch from transaction_timestamp())::text || '  ' || $1 || '=1 ', true)",
        [key],
      );
      await expect(client.query(insert, ["tour-03"])).rejects.toMatchObject({ code: "CF001" });
      await client.query("rollback");
      await expect(client.query("truncate orders")).rejects.toMatchObject({
        code: expect.stringMatching(/^(CF005|42501)$/),
      });
    } finally {
      await client.end();
    }
  });

  test("explains where a tenant would go", async ({ expect }) => {
    const explained = await fleet.cliJson("explain", "placement", "tour-05");
    expect(explained["current"]).toMatchObject({ cell: (await locate("tour-05")).cell });
    expect(explained["candidates"]).toHaveLength(3);
  });
});
