/**
 * A cell dies with rows that its partner never saw, its tenants are adopted and written to, it returns, and
 * what only it has is read, compared and written where the tenants live now. Real databases, real streams.
 */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog } from "../../../runtime/log.ts";
import { systemRandom } from "../../../runtime/random.ts";
import {
  allBuckets,
  provider,
  type StandbyCells,
  startStandbyCells,
} from "../../../standby/standby.fixture.ts";
import type { CellStore } from "../../../tests/cell-store.ts";
import { openCell } from "../../control.fixture.ts";
import { wasOwned } from "../../core/failover/salvage-owned.ts";
import { type Database, openDatabase, prepareDatabase } from "../../store/database.ts";
import {
  insertSalvage,
  pageOfRows,
  readSalvage,
  toSalvagedRow,
} from "../../store/failover/salvage.ts";
import { readOwned } from "../../store/failover/salvage-owned.ts";
import { cell, keyspace, op, placement } from "../../store/schema.ts";
import { purge } from "../../store/schema-adoption.ts";
import { move, moveKey } from "../../store/schema-moves.ts";
import { failover, failoverKey, standby } from "../../store/schema-standby.ts";
import { noProvider } from "../provider.ts";
import { failoverId } from "./report.fixture.ts";
import { applySalvaged } from "./salvage-apply.ts";
import { readSalvaged } from "./salvage-read.ts";
import type { SalvageWorld } from "./salvage-world.ts";

let cells: StandbyCells;
let annex: CellStore;
let database: Database;
let world: SalvageWorld;
const never = new AbortController().signal;
const id = "op_1salvage0001";

beforeAll(async () => {
  cells = await startStandbyCells();
  annex = await cells.annex("annex");
  database = openDatabase({
    url: await cells.serverOf(cells.b).createDatabase("control"),
    onConnectionError: () => {},
  });
  await prepareDatabase(database, systemRandom);
  world = {
    ...{
      database,
      clock: systemClock,
      random: systemRandom,
      standby: provider,
      provider: noProvider,
    },
    log: createLog({ clock: systemClock, part: "test", level: "error", write: () => {} }),
    resolve: async (reference) => (reference === "env:annex" ? annex.moverUrl : cells.a.moverUrl),
  };
  await loseACell();
  await recordIt();
}, 60_000);

afterAll(async () => {
  await database?.close();
  await provider.close();
  await cells?.close();
});

const lost = { orders: 0, again: 0 };
/** Moved before it died; from its only copy later on; deleted. */
const tidied = ["moved", "gone-on", "deleted"];
let severed: Awaited<ReturnType<typeof provider.sever>>;

/**
 * Three orders of acme arrive; one more, a change and a deletion do not. Nor do what the cell does when it is back:
 * it tidies away what a move had left, and what was moved into a whole cell, and purges a deleted tenant.
 */
async function loseACell(): Promise<void> {
  const pair = cells.pair(annex, allBuckets);
  await cells.tenant("acme", 3);
  await cells.tenant("globex", 1);
  for (const tenant of tidied) await cells.tenant(tenant, 1);
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  await cells.arrived(annex);
  severed = await provider.sever(pair);
  await cells.write(cells.a.app, "acme", 77);
  const one = await cells.a.app.query(
    "insert into orders (tenant_id, item, quantity) values ('acme', 'sugar', 5) returning id",
  );
  lost.orders = Number(one.rows[0]?.id);
  await cells.a.app.query(
    "update orders set item = 'milk' where tenant_id = 'acme' and quantity = 77",
  );
  await cells.a.app.query("update notes set body = 'longer' where tenant_id = 'globex'");
  // Sent again by its client, the second row of the transaction stands at its new home.
  const again = await cells.a.app.query(
    `with o as (insert into orders (tenant_id, item, quantity) values ('globex', 'twice', 1) returning id)
     insert into orders (tenant_id, item, quantity) select 'globex', 'key', id from o returning id`,
  );
  lost.again = Number(again.rows[0]?.id);
  // Came and went: nobody misses it.
  await cells.a.app.query(
    "insert into orders (tenant_id, item, quantity) values ('acme', 'brief', 9)",
  );
  await cells.a.app.query("delete from orders where tenant_id = 'acme' and quantity = 9");
  await cells.a.app.query("delete from lines where tenant_id = 'globex' and no = 1");
  for (const tenant of tidied) {
    await cells.own(cells.a, `default/tenant/${tenant}`, "moved");
    await annex.own(`default/tenant/${tenant}`, "active", 2);
    const tables = ["lines", "orders", "notes", "events"];
    const deletes = tables.map((table) => `delete from ${table} where tenant_id = '${tenant}'`);
    // Past the guard, as whoever tidies.
    await cells.a.admin.query(
      `begin; set local session_replication_role = replica; ${deletes.join("; ")}; commit`,
    );
  }
  // The adopter serves: it has given the number of one lost order to another, and changed its own.
  await cells.own(cells.a, "default/tenant/acme", "fenced");
  for (const tenant of ["acme", "globex"]) await annex.own(`default/tenant/${tenant}`, "active", 2);
  await annex.grantLease();
  await annex.app.query(
    "insert into orders (tenant_id, id, item, quantity) values ('acme', $1, 'tea', 1)",
    [lost.orders],
  );
  await annex.app.query(
    "insert into orders (tenant_id, id, item, quantity) values ('globex', $1, 'key', 1)",
    [lost.again],
  );
}

async function recordIt(): Promise<void> {
  const names = [cells.a.name, "cell-b", annex.name];
  for (const name of names) await openCell(database, name);
  for (const name of names) {
    const stores = {
      main: { keyColumn: "tenant_id", mover: `env:${name === annex.name ? "annex" : "a"}` },
    };
    await database.read.update(cell).set({ stores }).where(eq(cell.id, name));
  }
  await database.read.insert(failover).values({
    ...{
      op: failoverId,
      cell: cells.a.name,
      region: "local",
      mode: "unplanned",
      startedBy: "test",
    },
    ...{ plan: {}, revokedAt: new Date(), fencedAt: new Date() },
    evidence: { annexes: { [annex.name]: { status: "severed", reason: "", severed } } },
  });
  await database.read.insert(standby).values({
    ...{ annex: annex.name, origin: cells.a.name, host: "cell-b", provider: "logical" },
    ...{ bucketLo: 0, bucketHi: 255, state: "adopted", takeoverFailover: failoverId },
  });
  await database.read
    .insert(keyspace)
    .values({ name: "default", strategy: "directory", guardMode: "row" })
    .onConflictDoNothing();
  await database.read.insert(placement).values(
    ["acme", "globex", ...tidied].map((tenant) => ({
      ...{ key: `default/tenant/${tenant}`, keyspace: "default", kind: "tenant" as const },
      ...{ value: tenant, cell: annex.name, epoch: 2, state: "active" as const },
      ...{ revision: 1, op: failoverId },
    })),
  );
  const fates = [
    ...["acme", "globex", "deleted"].map((tenant) => [tenant, "adopted"] as const),
    ["gone-on", "unavailable"] as const,
  ];
  await database.read.insert(failoverKey).values(
    fates.map(([tenant, fate]) => ({
      ...{ failover: failoverId, key: `default/tenant/${tenant}`, fate, epoch: 1, wave: 0 },
      target: fate === "adopted" ? annex.name : null,
    })),
  );
  await database.read
    .insert(purge)
    .values({ op: "op_2purge", cell: cells.a.name, key: "default/tenant/deleted" });
}

async function salvaged(): Promise<string[]> {
  const rows = await pageOfRows(database.read, id, { after: 0, limit: 1000 });
  return rows
    .map(toSalvagedRow)
    .map(({ tenant, table, kind, verdict, decision }) =>
      [tenant, table, kind, verdict, decision].join(" "),
    )
    .toSorted((a, b) => Number(a > b) - Number(a < b));
}

const linesOfGlobex = async () => {
  const sql = "select from lines where tenant_id = 'globex'";
  return (await annex.admin.query(sql)).rowCount;
};

const read = () => readSalvaged(world, { id, failover: failoverId }, never);

const found = [
  "acme public.events insert free",
  "acme public.events insert free",
  "acme public.lines insert free",
  "acme public.lines insert free",
  "acme public.notes insert free",
  "acme public.orders insert conflict",
  "acme public.orders insert free",
  "globex public.lines delete conflict",
  "globex public.notes update conflict",
  "globex public.orders insert conflict",
  "globex public.orders insert free",
];

test("exactly the rows that never arrived are read, and read again they are the same", async () => {
  await cells.serverOf(cells.a).restart("kill");
  await read();
  expect(await salvaged()).toEqual(found.map((line) => `${line} open`));
  // The slot was not consumed: whoever begins anew is told the same.
  await read();
  expect(await salvaged()).toEqual(found.map((line) => `${line} open`));
});

test("the row of a conflict is shown as both have it", async () => {
  const rows = await pageOfRows(database.read, id, { after: 0, limit: 100, tenant: "acme" });
  const conflict = rows.map(toSalvagedRow).find(({ verdict }) => verdict === "conflict");
  expect([conflict?.row?.["item"], conflict?.theirs?.["item"]]).toEqual(["sugar", "tea"]);
});

test("a home that is fenced takes nothing: its own guard refuses, and everything stays open", async () => {
  await annex.own("default/tenant/acme", "fenced", 2);
  const { applied, left } = await applySalvaged(world, id, { tenant: "acme", force: true }, never);
  expect([applied, left]).toEqual([0, 7]);
  const rows = await pageOfRows(database.read, id, { after: 0, limit: 1, tenant: "acme" });
  expect(rows[0]?.note).toContain("CF001");
  await annex.own("default/tenant/acme", "active", 2);
});

test("applied is what is free, once, and conflicts stay as they are", async () => {
  const options = { tenant: undefined, force: false };
  expect(await applySalvaged(world, id, options, never)).toEqual({ applied: 6, left: 5 });
  const { rows } = await annex.admin.query(
    "select count(*) filter (where item = 'milk')::int as milk, count(*) filter (where item = 'sugar')::int as sugar from orders",
  );
  expect(rows).toEqual([{ milk: 1, sugar: 0 }]);
  // After a crash that forgot what was done: found to be there, nothing is doubled.
  const before = await cells.rowsOf(annex, "acme");
  await read();
  const again = await applySalvaged(world, id, options, never);
  expect(again.left).toBe(5);
  expect(await cells.rowsOf(annex, "acme")).toEqual(before);
});

test("a transaction that was sent again is held back whole, with the reason", async () => {
  const open = await pageOfRows(database.read, id, {
    ...{ after: 0, limit: 9, tenant: "globex", onlyOpen: true },
  });
  expect(open.find(({ verdict }) => verdict === "free")?.note).toContain("might stand twice");
  const twice = "select from orders where tenant_id = 'globex' and item = 'twice'";
  expect((await annex.admin.query(twice)).rowCount).toBe(0);
});

test("with force a conflict is settled in favour of the lost row, and nothing is removed", async () => {
  const forced = await applySalvaged(world, id, { tenant: undefined, force: true }, never);
  expect(forced).toEqual({ applied: 4, left: 1 });
  expect(await linesOfGlobex()).toBe(2);
  const open = await pageOfRows(database.read, id, { after: 0, limit: 9, onlyOpen: true });
  expect(open.map(({ first, note }) => `${first}: ${note}`)).toEqual([
    "delete: the home has the row: no deletion is applied, delete it there if it should go",
  ]);
  const { rows } = await annex.admin.query(
    "select (select item from orders where tenant_id = 'acme' and id = $1) as item, (select body from notes where tenant_id = 'globex') as body",
    [lost.orders],
  );
  expect(rows).toEqual([{ item: "sugar", body: "longer" }]);
});

test("what is left is told with its reason, as it is now, and for one tenant where one is named", async () => {
  await database.read.insert(op).values({
    ...{ id, kind: "cell.salvage", object: cells.a.name, state: "done", step: "done" },
    ...{ headline: "", plan: {}, input: {}, actor: "test", reason: "" },
  });
  await database.transaction((tx) =>
    insertSalvage(tx, { op: id, cell: cells.a.name, failover: failoverId }),
  );
  const all = await readSalvage(database.read, id);
  expect(
    all.tenants.map(({ tenant, free, conflict, open }) => [tenant, free, conflict, open]),
  ).toEqual([
    ["acme", 0, 0, 0],
    ["globex", 0, 1, 1],
  ]);
  const kind = { tenant: "globex", table: "public.lines", kind: "delete", verdict: "conflict" };
  expect(all.left).toMatchObject([{ ...kind, rows: 1 }]);
  expect(all.left[0]?.note).toContain("no deletion is applied");
  const acme = await readSalvage(database.read, id, "acme");
  expect([acme.tenants.length, acme.left.length, acme.open]).toEqual([1, 0, 0]);
});

test("a key that nobody serves leaves its rows homeless, and they are not applied", async () => {
  await database.read
    .update(placement)
    .set({ state: "unavailable" })
    .where(eq(placement.value, "acme"));
  await read();
  expect(
    (await salvaged()).filter((line) => line.startsWith("acme") && line.includes("homeless")),
  ).toHaveLength(7);
  const { applied } = await applySalvaged(world, id, { tenant: "acme", force: true }, never);
  expect(applied).toBe(0);
});

const key = (tenant: string) => `default/tenant/${tenant}`;
const ownedNow = async () => {
  const about = { cell: cells.a.name, failover: failoverId };
  return new Set((await readOwned(database.read, about)).owned.keys());
};

test("keys that are still the cell's are its own; those that a failover before took are, until it is wiped", async () => {
  await database.read
    .update(placement)
    .set({ cell: cells.a.name, state: "unavailable", epoch: 3 })
    .where(eq(placement.value, "gone-on"));
  const before = "op_0failover001";
  const [one] = await database.read.select().from(failover);
  await database.read.insert(failover).values({ ...must(one, failoverId), op: before });
  const earlier = { failover: before, key: key("earlier"), fate: "adopted" as const };
  await database.read.insert(failoverKey).values({ ...earlier, epoch: 1, wave: 0 });
  const own = ["acme", "deleted", "earlier", "globex", "gone-on"].map(key);
  expect(await ownedNow()).toEqual(new Set(own));
  await database.read.insert(op).values({
    ...{ id: "op_0wipe", kind: "cell.wipe", object: cells.a.name, state: "done", step: "done" },
    ...{ headline: "", plan: {}, input: {}, actor: "test", reason: "" },
  });
  expect(await ownedNow()).toEqual(new Set(own.filter((name) => name !== key("earlier"))));
});

test("a key that was given back counts when the cell had served it, from where the copy there ends", async () => {
  for (const [tenant, steps] of [
    ["served", ["activating", "routing"]],
    ["never", ["activating"]],
  ] as const) {
    const id = `op_0move-${tenant}`;
    await database.read.insert(op).values({
      ...{ id, kind: "tenant.move", object: tenant, state: "failed", step: "failed" },
      ...{ headline: "", plan: {}, input: {}, actor: "test", reason: "" },
      steps: steps.map((step) => ({ step })),
    });
    await database.read.insert(move).values({
      ...{ op: id, keyspace: "default", source: "cell-b", target: cells.a.name },
      ...{ plan: {}, options: {} },
    });
    await database.read.insert(moveKey).values({ op: id, key: key(tenant), epoch: 1, open: false });
    await database.read.insert(failoverKey).values({
      ...{ failover: failoverId, key: key(tenant), fate: "returned", target: "cell-b" },
      ...{ epoch: 2, wave: 0, remoteLsn: "0/200" },
    });
  }
  const owned = await readOwned(database.read, { cell: cells.a.name, failover: failoverId });
  expect(owned.owned.has(key("never"))).toBe(false);
  const at = (lsn: string) =>
    wasOwned(owned, { store: "main", keyspace: "default", tenant: "served", lsn });
  expect([at("0/1F0"), at("0/200"), at("0/300")]).toEqual([false, true, true]);
});
