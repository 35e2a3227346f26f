/**
 * Work that no request waits for, in three cells at once: a cron job that runs every 100 ms in each of
 * them acts once per tenant and tick, also while the rows of a tenant stand in two cells, as they do
 * during a move and its soak.
 */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { withClient } from "../plain-shop.ts";

const app = resolve(import.meta.dirname, "..", "..", "examples", "shop", "cellfleet.yaml");
const tenants = Array.from({ length: 12 }, (_, index) => `ticker-${index + 1}`);
const homeOf = (tenant: string): string => `cell-0${(Number(tenant.split("-")[1]) % 3) + 1}`;

type Tick = { readonly account_id: string; readonly tick: string; readonly done_by: string };

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await startFleet({ cells: 3, flags: ["--no-demo"], app });
});
afterAll(() => fleet?.stop());

/** As the superuser of a cell's database, from whom no policy hides a row. */
async function inCell<Row extends object>(cell: string, sql: string): Promise<Row[]> {
  const url = new URL((await fleet.endpoints()).cells[cell]?.database ?? "");
  url.username = "postgres";
  url.password = (await readFile(join(fleet.dataDir, "cells", cell, "password"), "utf8")).trim();
  return withClient(url.href, async (client) => (await client.query<Row & Tick>(sql)).rows);
}

const allTicks = async (): Promise<Tick[]> => {
  const cells = ["cell-01", "cell-02", "cell-03"];
  const found = await Promise.all(
    cells.map((cell) => inCell<Tick>(cell, "select account_id, tick, done_by from ticks")),
  );
  return found.flat();
};

test("a cron job in each of three cells acts once per tenant and tick", async () => {
  for (const tenant of tenants) {
    await fleet.cliJson("tenant", "create", tenant, "--cell", homeOf(tenant), "--wait");
    const order = { item: "tea", quantity: 1 };
    expect((await fleet.ask(tenant, "POST", "/orders", order)).status).toBe(201);
  }
  // Rows of every tenant stand in every cell, as if all of them were being moved at this moment.
  for (const cell of ["cell-01", "cell-02", "cell-03"]) {
    const rows = tenants.map((tenant) => `('${tenant}', 'moving')`).join();
    await inCell(
      cell,
      `begin; set local session_replication_role = replica;
       insert into accounts (id, name) values ${rows} on conflict do nothing; commit`,
    );
  }
  const begun = await allTicks();
  const ticksOf = (ticks: readonly Tick[], tenant: string) =>
    ticks.filter(({ account_id }) => account_id === tenant);
  await until("30 more ticks for every tenant", async () => {
    const now = await allTicks();
    return tenants.every((one) => ticksOf(now, one).length >= ticksOf(begun, one).length + 30);
  });

  const ticks = await allTicks();
  const acts = new Map<string, string[]>();
  for (const { account_id, tick, done_by } of ticks) {
    const act = `${account_id} ${tick}`;
    acts.set(act, [...(acts.get(act) ?? []), done_by]);
  }
  expect([...acts].filter(([, places]) => places.length > 1)).toEqual([]);
  expect(ticks.filter(({ account_id, done_by }) => done_by !== homeOf(account_id))).toEqual([]);
  for (const tenant of tenants) expect(gaps(ticksOf(ticks, tenant))).toEqual([]);
});

/** Ticks left out between a tenant's first and last. */
function gaps(ticks: readonly Tick[]): number[] {
  const numbers = ticks.map(({ tick }) => Number(tick)).sort((a, b) => a - b);
  const there = new Set(numbers);
  const missing: number[] = [];
  for (let tick = numbers[0] ?? 0; tick <= (numbers.at(-1) ?? -1); tick += 1) {
    if (!there.has(tick)) missing.push(tick);
  }
  return missing;
}
