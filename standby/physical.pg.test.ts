/** A physical standby between real servers: made, followed, cut under load, settled, salvaged, dropped. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { replayedIn, type SlotRow, slotsQuery } from "../cell/agent/acks/gold-slots.ts";
import { parseLsn } from "../cell/agent/position.ts";
import { serverSlot } from "../contract/annex.ts";
import { cellIdSchema } from "../contract/ids.ts";
import { eventually, keepWriting, never } from "../moving/streams.fixture.ts";
import { storeRoles } from "../tests/cell-store.ts";
import { streamName } from "./names.ts";
import { lastSwitch } from "./physical/server.ts";
import { newPhysicalCopy, type PhysicalCopy } from "./physical.fixture.ts";
import type { SalvagedChange, SeveredAt } from "./ports.ts";
import { type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
const copies: PhysicalCopy[] = [];
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  for (const copy of copies) await copy.close();
  await cells.close();
});

async function follow(name: string): Promise<PhysicalCopy> {
  const copy = await newPhysicalCopy(cells, name);
  copies.push(copy);
  await ensure(copy);
  await inStep(copy);
  return copy;
}

/** As its keeper does: where a new server can be reached is known only when it is made. */
async function ensure({ pair, provider }: PhysicalCopy): Promise<void> {
  await provider.ensure(pair, never);
  await provider.ensure(pair, never);
}

const inStep = ({ pair, provider }: PhysicalCopy) =>
  eventually(`${pair.annex} is in step`, async () => {
    const { phase, reason } = await provider.status(pair);
    if (phase === "stopped") throw new Error(reason);
    return phase === "streaming";
  });

async function trailOf(annex: string): Promise<unknown[]> {
  const { rows } = await cells.a.admin.query(
    "select confirmed_flush_lsn from pg_replication_slots where slot_name = $1",
    [streamName(cellIdSchema.parse(annex), "main")],
  );
  return rows;
}

async function salvage({ pair, provider }: PhysicalCopy, severed: SeveredAt) {
  const changes: SalvagedChange[] = [];
  await provider.salvage(pair, severed, (change) => void changes.push(change), never);
  return changes;
}

/** As the annex's agent is told: keys may become active there. */
const open = ({ desk }: PhysicalCopy) =>
  desk.agent.query(
    `select cellfleet.become_annex('cell-a', 'x'), cellfleet.record_takeover('fo_1', 1, true, false, false)`,
  );

test("the whole server is copied and followed, with what is defined meanwhile, and how far it is can be told", async () => {
  await cells.tenant("acme");
  await cells.beat();
  const copy = await follow("sb-cell-a-cell-b");
  const { pair, provider } = copy;
  await cells.a.owner("create table later (tenant_id text, note text)");
  await cells.write(cells.a.app, "acme");
  await cells.beat();
  await copy.arrived();
  const there = await copy.connect();
  const { rows } = await there.query(
    "select (select count(*)::int from orders where tenant_id = 'acme') as orders, (select count(*)::int from later) as later",
  );
  expect(rows).toEqual([{ orders: 4, later: 0 }]);
  const status = await provider.status(pair);
  expect(status).toMatchObject({ phase: "streaming", reason: "", uncovered: [] });
  expect(status.lagBytes).toBeLessThan(100_000);
  expect(status.heartbeatAgeMs).toBeLessThan(10_000);
  // What a write of tier gold waits for.
  const { rows: mark } = await cells.a.admin.query<{ lsn: string }>(
    "select pg_logical_emit_message(true, 'cellfleet', '')::text as lsn",
  );
  await eventually("the standby has it", async () => {
    const { rows: slots } = await cells.a.agent.query<SlotRow>(slotsQuery);
    return replayedIn(slots, pair.annex, parseLsn(mark[0]?.lsn ?? "") ?? 0n) === "yes";
  });
  // What stands is left as it is.
  await provider.ensure(pair, never);
  expect(copy.copies()).toBe(1);

  // Its log is gone: a copy made anew, with all that came meanwhile.
  await copy.halt("immediate");
  await cells.a.admin.query("select pg_drop_replication_slot($1)", [serverSlot(pair.annex)]);
  await cells.write(cells.a.app, "acme");
  await copy.start();
  expect(await provider.status(pair)).toMatchObject({
    phase: "stopped",
    reason: `slot ${serverSlot(pair.annex)} is gone from cell cell-a`,
  });
  await ensure(copy);
  await inStep(copy);
  expect(copy.copies()).toBe(2);
  await copy.arrived();
  const again = await copy.connect();
  const { rowCount } = await again.query("select from orders where tenant_id = 'acme'");
  expect(rowCount).toBe(5);

  await provider.drop(pair, "there");
  const { rows: slots } = await cells.a.admin.query("select slot_name from pg_replication_slots");
  expect(slots).toEqual([]);
  expect((await cells.a.admin.query("select from pg_publication")).rowCount).toBe(0);
});

test("cut in the middle of the load, every row is in the standby or among the salvaged, and none is in both", async () => {
  await cells.tenant("busy");
  // What the origin follows is copied, too; the slot at the other end is the origin's.
  await cells.a.admin.query(
    "create subscription theirs connection 'host=127.0.0.1 port=1' publication p with (connect = false, slot_name = 'theirs')",
  );
  await cells.a.admin.query("alter subscription theirs enable");
  const copy = await follow("sb-cell-a-cell-b-2");
  const { pair, provider } = copy;
  const writers = await Promise.all(
    [1, 2, 3].map(async () => keepWriting(cells, await cells.a.connect(), "busy")),
  );
  const written = () => writers.reduce((sum, writer) => sum + writer.written(), 0);
  await eventually("some load", async () => written() > 30);
  // The trail follows what is applied, never what is not: it is from here that the tail is told.
  const [before] = await trailOf(pair.annex);
  await cells.a.admin.query("select pg_logical_emit_message(true, 'test', repeat('x', 600000))");
  await copy.arrived();
  await provider.status(pair);
  expect(await trailOf(pair.annex)).not.toEqual([before]);
  const severed = await provider.sever(pair);
  const atCut = written();
  await eventually("a tail that must not arrive", async () => written() > atCut + 30);
  await Promise.all(writers.map((writer) => writer.stop()));
  expect(await provider.sever(pair)).toEqual(severed);
  expect(await provider.status(pair)).toMatchObject({ phase: "severed" });
  await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });

  const changes = await salvage(copy, severed);
  const salvaged = changes.flatMap(({ table, kind, key }) =>
    table === "public.orders" && kind === "insert" ? [Number(key["id"])] : [],
  );
  expect(salvaged.length).toBeGreaterThan(29);
  const idsOf = async (client: { query: PhysicalCopy["desk"]["admin"]["query"] }) => {
    const { rows } = await client.query<{ id: string }>(
      "select id::text from orders where tenant_id = 'busy' order by orders.id",
    );
    return rows.map(({ id }) => Number(id));
  };
  const there = await idsOf(await copy.connect());
  expect(there.length).toBeGreaterThan(10);
  expect([...there, ...salvaged].toSorted((a, b) => a - b)).toEqual(await idsOf(cells.a.admin));

  // Promoted, it has no way back, and follows nobody in its origin's name.
  const promoted = await copy.connect();
  const { rows: ways } = await promoted.query(
    `select current_setting('primary_conninfo') as way,
            (select count(*)::int from pg_stat_activity where backend_type like 'logical replication%') as workers`,
  );
  expect(ways).toEqual([{ way: "", workers: 0 }]);

  // As long as nothing is open it stays its origin's image, and fenced.
  await expect(provider.activate(pair)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  await open(copy);
  await provider.activate(pair);
  await provider.activate(pair);
  expect(await provider.sever(pair)).toEqual(severed);
  const agent = await copy.connect(storeRoles.agentRole);
  const { rows: facts } = await agent.query(
    "select cell, lease_live, in_recovery, standby->'annex'->>'open' as open from cellfleet.facts()",
  );
  expect(facts).toEqual([
    { cell: pair.annex, lease_live: false, in_recovery: false, open: "true" },
  ]);
  const own = await copy.connect();
  expect((await own.query("select from cellfleet.ownership")).rowCount).toBe(0);
  const ranges = "select sequence, lo, hi from cellfleet.id_range order by 1, 2";
  expect((await own.query(ranges)).rows).toEqual((await copy.desk.admin.query(ranges)).rows);
  const { rows: workers } = await own.query(
    "select current_setting('max_logical_replication_workers') as workers",
  );
  expect(workers).toEqual([{ workers: "40" }]);
  expect((await own.query("select from pg_subscription")).rowCount).toBe(0);
  // Nobody's write passes before the annex's own agent has its lease and the key.
  const app = await copy.connect(storeRoles.appRole);
  await expect(cells.write(app, "busy")).rejects.toMatchObject({ code: "CF001" });
});

test("what was never made is absent; a server that is merely down is not", async () => {
  const copy = await newPhysicalCopy(cells, "sb-cell-a-cell-b-5");
  copies.push(copy);
  const { pair, provider } = copy;
  expect(await provider.status(pair)).toMatchObject({ phase: "absent" });
  await provider.ensure(pair, never);
  // It follows, and nobody could tell yet what it may lack.
  expect(await provider.status(pair)).toMatchObject({ phase: "absent" });
  // As of a provider that was killed while it copied: the slot stands, and nothing behind it.
  await copy.halt("immediate");
  expect(await provider.status(pair)).toMatchObject({ phase: "absent" });
  await ensure(copy);
  await copy.halt("immediate");
  await expect(provider.status(pair)).rejects.toMatchObject({ code: "CELL_DATABASE_UNREACHABLE" });
});

test("killed between two steps of the cut, it is cut to the end, and never joined again", async () => {
  await cells.tenant("halfway");
  const copy = await follow("sb-cell-a-cell-b-3");
  const { pair, provider } = copy;
  await copy.arrived();
  const admin = await copy.connect();
  await admin.query("alter system set primary_conninfo = ''");
  await copy.halt("kill");
  await copy.start();
  await cells.write(cells.a.app, "halfway");
  expect(await provider.status(pair)).toMatchObject({
    phase: "stopped",
    reason: `the cut of ${pair.annex} was begun and not ended`,
  });
  await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  // Promoted, and killed before anybody wrote down where.
  await (await copy.connect()).query("select pg_promote()");
  await copy.halt("kill");
  await copy.start();
  const severed = await provider.sever(pair);
  const changes = await salvage(copy, severed);
  expect(changes.filter(({ table }) => table === "public.orders")).toHaveLength(1);
  const { rowCount } = await (await copy.connect()).query(
    "select from orders where tenant_id = 'halfway'",
  );
  expect(rowCount).toBe(3);
});

test("an origin that does not answer is no fault; a trail that begins behind the cut is not read as whole", async () => {
  await cells.tenant("silent");
  const copy = await follow("sb-cell-a-cell-b-4");
  const { pair, provider } = copy;
  await copy.arrived();
  await cells.serverOf(cells.a).halt("immediate");
  expect(await provider.status(pair)).toMatchObject({ phase: "streaming", lagBytes: null });
  const severed = await provider.sever(pair);
  await cells.serverOf(cells.a).restart("fast");
  const [store] = severed.stores;
  const before = { ...severed, stores: [{ name: store?.name ?? "", remoteLsn: "0/1" }] };
  await expect(salvage(copy, before)).rejects.toMatchObject({ code: "SALVAGE_UNFIT" });
});

test("where a server left its origin is the youngest line of its history", () => {
  expect(lastSwitch("1\t0/3000110\tno recovery target specified\n2\tA/5F0\tno reason\n")).toBe(
    "A/5F0",
  );
  expect(lastSwitch("")).toBeUndefined();
});
