/** Cutting a stream, what a returned origin still sends, and what it held that never arrived. */
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { eventually, keepWriting, never } from "../moving/streams.fixture.ts";
import type { CellStore } from "../tests/cell-store.ts";
import type { SalvagedChange, SeveredAt, StandbyPair } from "./ports.ts";
import { allBuckets, provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

let number = 0;
async function inStep(buckets = allBuckets): Promise<{ annex: CellStore; pair: StandbyPair }> {
  number += 1;
  const annex = await cells.annex(`sb-cut-${number}`);
  const pair = cells.pair(annex, buckets);
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  await cells.arrived(annex);
  return { annex, pair };
}

async function salvage(pair: StandbyPair, severed: SeveredAt): Promise<SalvagedChange[]> {
  const changes: SalvagedChange[] = [];
  await provider.salvage(pair, severed, (change) => void changes.push(change), never);
  return changes;
}

/** The worker stands still at the next row of orders, and goes on by itself when this is released. */
async function holdStill(annex: CellStore): Promise<() => Promise<unknown>> {
  const client = await annex.connect("postgres");
  await client.query("begin");
  await client.query("lock table orders in share mode");
  return () => client.query("rollback");
}

const ids = async (store: CellStore, tenant: string): Promise<string[]> => {
  const { rows } = await store.admin.query<{ id: string }>(
    "select id::text from orders where tenant_id = $1 order by orders.id",
    [tenant],
  );
  return rows.map(({ id }) => id);
};

test("cut in the middle of the load, every row is in the annex or among the salvaged, and none is in both", async () => {
  await cells.tenant("busy");
  const { annex, pair } = await inStep();
  const writers = await Promise.all(
    [1, 2, 3].map(async () => keepWriting(cells, await cells.a.connect(), "busy")),
  );
  const written = () => writers.reduce((sum, writer) => sum + writer.written(), 0);
  await eventually("some load", async () => written() > 30);
  const severed = await provider.sever(pair);
  const atCut = written();
  await eventually("more load", async () => written() > atCut + 30);
  await Promise.all(writers.map((writer) => writer.stop()));
  const changes = await salvage(pair, severed);
  const salvaged = changes.flatMap(({ table, kind, key }) =>
    table === "public.orders" && kind === "insert" ? [String(key["id"])] : [],
  );
  const there = await ids(annex, "busy");
  expect(there.length).toBeGreaterThan(10);
  expect(salvaged.length).toBeGreaterThan(29);
  const inOrder = (all: readonly string[]) =>
    all.toSorted((one, other) => Number(one) - Number(other));
  expect(inOrder([...there, ...salvaged])).toEqual(await ids(cells.a, "busy"));
  await provider.drop(pair, "there");
});

test("a large value that did not change is left out of what is salvaged; nothing is told of another partner's tenants", async () => {
  const [mine, other] = ["large-1", "large-2", "large-3", "large-4"].toSorted(
    (one, two) => cells.bucket(one) - cells.bucket(two),
  );
  for (const tenant of [mine, other]) await cells.tenant(String(tenant), 1);
  const { annex, pair } = await inStep({ lo: 0, hi: cells.bucket(String(mine)) });
  const body = "(select string_agg(md5(g::text), '') from generate_series(1, 2000) g)";
  await cells.a.app.query(`update notes set body = ${body} where tenant_id in ($1, $2)`, [
    mine,
    other,
  ]);
  await cells.arrived(annex);
  const severed = await provider.sever(pair);
  await cells.a.app.query("update notes set tags = '{new}' where tenant_id in ($1, $2)", [
    mine,
    other,
  ]);
  const changes = await salvage(pair, severed);
  expect(changes).toMatchObject([
    {
      table: "public.notes",
      kind: "update",
      tenant: mine,
      row: { tags: "{new}", tenant_id: mine },
    },
  ]);
  expect(Object.keys(changes[0]?.row ?? {})).not.toContain("body");
  await provider.drop(pair, "there");
});

test("what was never asked to be cut is not salvaged by guess", async () => {
  const { pair } = await inStep();
  const work = salvage(pair, { stores: [], heartbeatAgeMs: null });
  await expect(work).rejects.toMatchObject({ code: "SALVAGE_UNFIT" });
  const beyond = { stores: [{ name: "main", remoteLsn: "FFFF/0" }], heartbeatAgeMs: null };
  await expect(salvage(pair, beyond)).rejects.toMatchObject({
    code: "SALVAGE_UNFIT",
    message: expect.stringContaining("older copy"),
  });
  await provider.drop(pair, "there");
});

test("sequences that are not leased begin behind all ids, and leased ones stay", async () => {
  const { annex, pair } = await inStep();
  await provider.sever(pair);
  const leased = "select last_value from orders_id_seq";
  const before = (await annex.admin.query(leased)).rows;
  await annex.admin.query("update currencies set no = 700 where code = 'EUR'");
  // Tables of others, where the mover may not look: a migration tool's, a queue's.
  await annex.admin.query("create schema aside; create table aside.jobs (id serial primary key)");
  await annex.admin.query("insert into aside.jobs default values");
  await provider.activate(pair);
  await provider.activate(pair);
  const { rows } = await annex.app.query(
    "insert into currencies (code, name) values ('NOK', 'after') returning no",
  );
  expect(rows).toEqual([{ no: 10_701 }]);
  // An executor that comes late sets nothing back that was drawn from meanwhile.
  await annex.admin.query("select setval(pg_get_serial_sequence('currencies', 'no'), 30000)");
  await provider.activate(pair);
  const next = "select nextval(pg_get_serial_sequence('currencies', 'no'))::int as no";
  expect((await annex.admin.query(next)).rows).toEqual([{ no: 30_001 }]);
  expect((await annex.admin.query(leased)).rows).toEqual(before);
  await provider.drop(pair, "there");
});

test("an executor that comes late sets no sequence back, wherever it stood still", async () => {
  const { annex, pair } = await inStep();
  await provider.sever(pair);
  await annex.admin.query("update currencies set no = 700 where code = 'EUR'");
  const draw = async (): Promise<number> => {
    const next = "select nextval(pg_get_serial_sequence('currencies', 'no'))::int as no";
    return (await annex.admin.query<{ no: number }>(next)).rows[0]?.no ?? 0;
  };
  const [stands, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const query = pg.Client.prototype.query as (...args: unknown[]) => unknown;
  const spy = vi.spyOn(pg.Client.prototype, "query");
  let isHeld = false;
  spy.mockImplementation(function holdFirst(this: pg.Client, ...args: unknown[]) {
    if (isHeld || !String(args[0]).startsWith("select setval(")) return query.apply(this, args);
    isHeld = true;
    stands.resolve();
    return goOn.promise.then(() => query.apply(this, args));
  } as never);
  const late = provider.activate(pair);
  await stands.promise;
  // Another one does the same, and tenants of the annex draw.
  await provider.activate(pair);
  const drawn = await draw();
  goOn.resolve();
  await late;
  spy.mockRestore();
  expect(await draw()).toBeGreaterThan(drawn);
  await provider.drop(pair, "there");
});

test("what a zombie commits after the cut never arrives, and the rows that never arrived are told, twice the same", async () => {
  await cells.tenant("zombie");
  const { annex, pair } = await inStep();
  await cells.write(cells.a.app, "zombie", 41);
  await cells.arrived(annex);
  const applied = await cells.rowsOf(annex, "zombie");
  const release = await holdStill(annex);
  await cells.a.app.query(
    "insert into orders (tenant_id, item, quantity) values ('zombie', 'lost', 42)",
  );
  await cells.a.app.query(
    "update orders set item = 'changed' where tenant_id = 'zombie' and quantity = 41",
  );
  await cells.a.app.query("delete from notes where tenant_id = 'zombie'");
  await cells.a.admin.query("update currencies set name = 'euro' where code = 'EUR'");
  const severed = await provider.sever(pair);
  await release();
  expect(await provider.sever(pair)).toEqual(severed); // Again, after a crash.
  expect(severed.stores).toEqual([
    { name: "main", remoteLsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) },
  ]);
  expect(severed.heartbeatAgeMs).not.toBeNull();
  await cells.write(cells.a.app, "zombie", 43);
  expect(await provider.status(pair)).toMatchObject({ phase: "severed" });

  // A keeper that was left behind joins nothing.
  await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  await expect(provider.refresh(pair)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  await cells.serverOf(cells.a).restart("kill"); // The slot's place on disk is an older one.

  const changes = await salvage(pair, severed);
  const told = changes.map(({ table, kind, tenant, row }) => [
    ...[table, kind, tenant],
    row?.["item"] ?? row?.["name"] ?? row?.["quantity"] ?? "",
  ]);
  expect(told.filter(([table]) => table !== "public.lines" && table !== "public.events")).toEqual([
    ["public.orders", "insert", "zombie", "lost"],
    ["public.orders", "update", "zombie", "changed"],
    ...Array.from({ length: 4 }, () => ["public.notes", "delete", "zombie", ""]),
    ["public.currencies", "update", "", "euro"],
    ["public.orders", "insert", "zombie", "tea"],
    ["public.notes", "insert", "zombie", ""],
  ]);
  expect(changes.find(({ table }) => table === "public.currencies")).toMatchObject({
    key: { code: "EUR" },
    store: "main",
    lsn: expect.stringMatching(/\//),
    committedAt: expect.stringMatching(/^20\d\d-/),
  });
  expect(await salvage(pair, severed)).toEqual(changes);
  expect(await cells.rowsOf(annex, "zombie")).toEqual(applied);
  await provider.drop(pair, "there");
});
