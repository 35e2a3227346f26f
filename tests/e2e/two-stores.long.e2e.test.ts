/** An application with two databases per cell, started as its team would: both are guarded, leased and numbered. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";

let fleet: TestFleet;

beforeAll(async () => {
  fleet = await startFleet({ app: "examples/two-stores", cells: 2 });
});
afterAll(() => fleet?.stop());

const homeOf = async (tenant: string): Promise<string> =>
  String((await fleet.ask(tenant, "GET", "/orders")).headers["x-cell"]);

/** By the file that the cell keeps for somebody's login: what is in it is never printed. */
async function inStore<T>(
  cell: string,
  file: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const url = await readFile(join(fleet.dataDir, "cells", cell, "secrets", file), "utf8");
  const client = new pg.Client(url.trim());
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

type Order = { readonly id: number };
const ordersOf = async (tenant: string) =>
  (await fleet.ask(tenant, "GET", "/orders")).json as {
    readonly orders: readonly Order[];
    readonly invoices: readonly unknown[];
  };

describe("a fleet of an application with two databases per cell", () => {
  test("writes and reads both", async () => {
    for (const tenant of ["acme", "globex"]) {
      const taken = await fleet.ask(tenant, "POST", "/orders", { ref: "r1", item: "tea" });
      expect(taken).toMatchObject({ status: 201, json: { ref: "r1", invoice: "r1" } });
      expect(await ordersOf(tenant)).toMatchObject({
        orders: [{ ref: "r1", item: "tea" }],
        invoices: [{ ref: "r1" }],
      });
    }
  });

  test("gives the plain ids of different cells no number twice", async () => {
    const [acme, globex] = await Promise.all([homeOf("acme"), homeOf("globex")]);
    expect(acme).not.toBe(globex);
    const ids = [...(await ordersOf("acme")).orders, ...(await ordersOf("globex")).orders];
    expect(new Set(ids.map(({ id }) => id)).size).toBe(ids.length);
  });

  test("refuses a tenant of another cell in each database", async () => {
    const other = await homeOf("globex");
    const writes: ReadonlyArray<readonly [string, string]> = [
      ["app-database-url", "insert into orders (tenant_id, ref, item) values ('acme', 'x', 'tea')"],
      [
        "app-billing-database-url",
        "insert into invoices (tenant_id, ref, order_id) values ('acme', 'x', 1)",
      ],
    ];
    for (const [file, text] of writes) {
      const write = inStore(other, file, (client) => client.query(text));
      await expect(write, file).rejects.toMatchObject({ code: "CF001" });
    }
  });

  test("tells the control plane how each database is reached to move tenants", async () => {
    const cell = await homeOf("acme");
    const { stores } = (await fleet.cliJson("cell", "get", cell)) as {
      stores: Record<string, { readonly mover?: string }>;
    };
    expect(new Set(Object.keys(stores))).toEqual(new Set(["billing", "default"]));
    for (const { mover = "" } of Object.values(stores)) {
      const file = mover.replace(/^file:.*\//, "");
      const [role] = await inStore(cell, file, async (client) => {
        const { rows } = await client.query(
          "select current_user as name, rolbypassrls as sees, pg_has_role('app_owner', 'SET') as becomes from pg_roles where rolname = current_user",
        );
        return rows;
      });
      expect(role).toEqual({ name: "cellfleet_mover", sees: true, becomes: true });
    }
  });

  test("comes back with both after a crash of a whole cell", async () => {
    const cell = await homeOf("acme");
    expect((await fleet.cli("cell", "kill", cell, "--yes")).code).toBe(0);
    expect((await fleet.cli("cell", "start", cell)).code).toBe(0);
    await until("acme is served", async () => {
      const taken = await fleet.ask("acme", "POST", "/orders", { ref: "r2" });
      return taken.status === 201;
    });
    expect(await ordersOf("acme")).toMatchObject({
      orders: [{ ref: "r1" }, { ref: "r2" }],
      invoices: [{ ref: "r1" }, { ref: "r2" }],
    });
  });
});
