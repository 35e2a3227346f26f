/**
 * `cellctl dev --app examples/shop`: somebody's application in three cells, in place of the sample. Its
 * services, its cron job and its queue each know their own cell's tenants, and nobody else's.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { withClient } from "../plain-shop.ts";

const tenants = Array.from({ length: 24 }, (_, index) => `shop-${String(index).padStart(2, "0")}`);
const cells = ["cell-01", "cell-02", "cell-03"];
let fleet: TestFleet;

beforeAll(async () => {
  fleet = await startFleet({ flags: ["--app", "examples/shop"] });
  const file = join(fleet.dataDir, "tenants.ndjson");
  await writeFile(file, tenants.map((id) => `${JSON.stringify({ id })}\n`).join(""));
  await fleet.cliJson("tenant", "import", file);
});
afterAll(() => fleet?.stop());

const cellOf = async (tenant: string): Promise<string> =>
  String((await fleet.cliJson("tenant", "locate", tenant))["cell"]);

async function inCell<T>(
  cell: string,
  who: "owner" | "app",
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const file = join(fleet.dataDir, "cells", cell, "secrets", `${who}-database-url`);
  return withClient((await readFile(file, "utf8")).trim(), work);
}

/** Past the guard, as only the server's superuser can: what a move leaves behind for a while. */
async function leaveCopy(cell: string, account: string): Promise<void> {
  const folder = join(fleet.dataDir, "cells", cell);
  const password = (await readFile(join(folder, "password"), "utf8")).trim();
  const { port } = JSON.parse(await readFile(join(folder, "postgres.json"), "utf8")) as {
    port: number;
  };
  await withClient(`postgres://postgres:${password}@127.0.0.1:${port}/app_main`, async (client) => {
    await client.query("set session_replication_role = replica");
    await client.query("insert into accounts (id) values ($1)", [account]);
    await client.query("insert into orders (id, account_id) values (900000000, $1)", [account]);
    await client.query(
      "insert into jobs (id, account_id, kind, order_id) values (900000000, $1, 'confirm-order', 900000000)",
      [account],
    );
  });
}

async function doneOf(tenant: string): Promise<number> {
  const { json } = await fleet.ask(tenant, "GET", "/outbox");
  return (json["counts"] as { done: number }).done;
}

describe("the shop in three cells", () => {
  test("serves each tenant in both services from the cell that the CLI names", async ({
    expect,
  }) => {
    const used = new Set<unknown>();
    for (const tenant of tenants) {
      const web = await fleet.ask(tenant, "GET", "/whoami");
      const api = await fleet.ask(tenant, "GET", "/api/whoami");
      expect(web.json).toMatchObject({ tenant, epoch: 1 });
      expect(api.json).toEqual(web.json);
      expect(web.headers["x-cell"]).toBe(web.json["cell"]);
      used.add(web.json["cell"]);
    }
    expect(used).toEqual(new Set(cells));
    for (const tenant of tenants.slice(0, 3)) {
      const { json } = await fleet.ask(tenant, "GET", "/whoami");
      expect(json["cell"]).toBe(await cellOf(tenant));
    }
    const unknown = await fleet.ask("nobody", "GET", "/orders");
    expect([unknown.status, unknown.headers["x-cellfleet-error"]]).toEqual([404, "TENANT_UNKNOWN"]);
  });

  test("never shows an order to another tenant, never gives an id twice", async ({ expect }) => {
    const ids = new Set<number>();
    for (const tenant of tenants) {
      const body = { item: `of ${tenant}`, quantity: 2 };
      const key = { "idempotency-key": "first" };
      const made = await fleet.ask(tenant, "POST", "/orders", body, key);
      const again = await fleet.ask(tenant, "POST", "/orders", body, key);
      expect([made.status, again.status, again.json["id"]]).toEqual([201, 201, made.json["id"]]);
      expect(ids.has(Number(made.json["id"]))).toBe(false);
      ids.add(Number(made.json["id"]));
    }
    for (const tenant of tenants) {
      const { json } = await fleet.ask(tenant, "GET", "/orders");
      const items = json["items"] as Array<{ id: number; item: string }>;
      expect(items.map(({ item }) => item)).toEqual([`of ${tenant}`]);
      const foreign = [...ids].find((id) => id !== items[0]?.id);
      expect((await fleet.ask(tenant, "GET", `/orders/${foreign}`)).status).toBe(404);
    }
  });

  test("writes for a tenant of another cell are refused by the database, in row mode", async ({
    expect,
  }) => {
    const tenant = "shop-03";
    const home = await cellOf(tenant);
    const other = cells.find((cell) => cell !== home) ?? "";
    const insert = "insert into orders (account_id) values ('shop-03')";
    await inCell(home, "app", (client) => client.query(insert)); // Calls nothing of ours.
    await expect(inCell(other, "app", (client) => client.query(insert))).rejects.toMatchObject({
      code: "CF001",
    });
    await expect(inCell(home, "app", (client) => client.query("truncate jobs"))).rejects.toThrow(
      pg.DatabaseError,
    );
  });

  test("the guard mode stays while tenants live in it", async ({ expect }) => {
    const change = await fleet.cli("keyspace", "set", "default", "--guard-mode", "strict");
    expect([change.code, change.stderr]).toEqual([
      6,
      expect.stringContaining("guard mode row stays"),
    ]);
    expect(await fleet.cliJson("keyspace", "get", "default")).toMatchObject({ guardMode: "row" });
  });

  test("cron and queue act once per tenant and tick, also where another cell has a stale copy", async ({
    expect,
  }) => {
    const tenant = "shop-05";
    const home = await cellOf(tenant);
    const other = cells.find((cell) => cell !== home) ?? "";
    await leaveCopy(other, tenant);
    const ticksOf = (cell: string) =>
      inCell(cell, "owner", async (client) => {
        const { rows } = await client.query<{ account_id: string; tick: string; done_by: string }>(
          "select account_id, tick, done_by from ticks where tick >= $1",
          [since],
        );
        return rows.map((row) => ({ ...row, cell }));
      });
    const since = Math.floor(Date.now() / 100) + 10;
    const enough = since + 40;
    await until("40 ticks are over", () => Date.now() / 100 > enough + 10);
    const all = (await Promise.all(cells.map(ticksOf))).flat();
    const ran = all.filter(({ tick }) => Number(tick) < enough);
    const names = ran.map(({ account_id, tick }) => `${account_id} ${tick}`);
    expect(new Set(names).size).toBe(names.length);
    // Each of them ran, in its own cell and in no other.
    expect(new Set(ran.map(({ account_id }) => account_id))).toEqual(new Set(tenants));
    const homes = new Map<string, Set<string>>();
    for (const { account_id, cell } of ran) {
      homes.set(account_id, (homes.get(account_id) ?? new Set()).add(cell));
    }
    expect([...homes.values()].every((places) => places.size === 1)).toBe(true);
    expect(homes.get(tenant)).toEqual(new Set([home]));
    // The copy's job is not even seen: claimed with others, the guard would refuse them all.
    const neighbour = tenants.find((one) => homes.get(one)?.has(other)) ?? "";
    const before = await doneOf(neighbour);
    await fleet.ask(neighbour, "POST", "/orders", { item: "beside the copy", quantity: 1 });
    await until("its order is confirmed", async () => (await doneOf(neighbour)) > before);
    const copied = await inCell(other, "owner", (client) =>
      client.query("select state, attempts from jobs where id = 900000000"),
    );
    expect(copied.rows).toEqual([{ state: "pending", attempts: 0 }]);
  });

  test("confirms every order once, with the queue's workers of all cells", async ({ expect }) => {
    for (const tenant of tenants) {
      await until(`the orders of ${tenant} are confirmed`, async () => {
        const { json } = await fleet.ask(tenant, "GET", "/outbox");
        const counts = json["counts"] as { pending: number; claimed: number; done: number };
        return counts.done > 0 && counts.pending + counts.claimed === 0;
      });
    }
    for (const cell of cells) {
      const { rows } = await inCell(cell, "owner", (client) =>
        client.query("select max(confirmed) as most from orders"),
      );
      expect(rows).toEqual([{ most: 1 }]);
    }
  });

  test("a new cell runs the shop too; a dead one costs the others nothing", async ({ expect }) => {
    await fleet.cliJson("cell", "create", "cell-04");
    await fleet.cliJson("tenant", "create", "wayne", "--cell", "cell-04");
    const { json } = await fleet.ask("wayne", "POST", "/orders", { item: "rope", quantity: 1 });
    expect(json).toMatchObject({ item: "rope" });
    await fleet.cliJson("cell", "kill", "cell-04", "--yes");
    await until("it is unreachable", async () => {
      const answer = await fleet.ask("wayne", "GET", "/orders");
      return answer.status === 503;
    });
    for (const tenant of tenants) {
      expect((await fleet.ask(tenant, "GET", "/orders")).status).toBe(200);
    }
    await fleet.cliJson("cell", "start", "cell-04");
    await until("it is back, with its data", async () => {
      const answer = await fleet.ask("wayne", "GET", "/orders");
      return answer.status === 200 && JSON.stringify(answer.json).includes("rope");
    });
  });

  test("comes back after kill -9 of everything, without being told which application", async ({
    expect,
  }) => {
    const before = await fleet.ask("shop-07", "GET", "/orders");
    await fleet.killEverything();
    await rm(join(fleet.dataDir, "endpoints.json"));
    await fleet.start();
    const after = await fleet.ask("shop-07", "GET", "/orders");
    expect(after.json).toEqual(before.json);
    expect((await fleet.ask("shop-07", "GET", "/api/whoami")).status).toBe(200);
  });
});
