/** Ids of several cells never collide: not in a rush, not after rollbacks, not across a crash. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  isolationLevels,
  openClient,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { addIdRange, readHeldRanges, readLowRanges } from "./id-ranges.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

/** A table of its own, so that no range is there yet. */
async function createStore(name: string): Promise<CellStore> {
  const store = await createCellStore(server, name);
  await store.own("default/tenant/acme", "active");
  await store.grantLease();
  await protect(store, "notes", "id bigserial primary key, tenant_id text not null");
  return store;
}

async function protect(store: CellStore, table: string, columns: string): Promise<void> {
  await store.owner(`create table ${table} (${columns})`);
  await store.owner(`grant select, insert on ${table} to ${storeRoles.appRole}`);
  await store.owner(`select cellfleet.protect_table('public', '${table}', 'tenant_id', 'default')`);
}

const insertNote = "insert into notes (tenant_id) values ('acme') returning id";
const noteIds = async (client: pg.Client): Promise<number[]> => {
  const { rows } = await client.query("select id::int as id from notes order by id");
  return rows.map(({ id }) => Number(id));
};
const notes = (lo: number, hi: number) => ({ sequence: "public.notes_id_seq", lo, hi });

test("without a range there is no id; ranges are asked for ahead of need", async () => {
  const store = await createStore("ahead");
  const { agent, app } = store;
  expect(await readLowRanges(agent)).toEqual([{ sequence: notes(0, 0).sequence, floor: 0 }]);
  expect(await refusalOf(app.query(insertNote))).toBe("CF010");
  expect(await addIdRange(agent, notes(11, 12))).toBe("added");
  expect(await addIdRange(agent, notes(11, 12))).toBe("same");
  expect(await readLowRanges(agent)).toEqual([]);
  await app.query(insertNote);
  // The only range is in use: none is in stock.
  expect(await readLowRanges(agent)).toEqual([{ sequence: notes(0, 0).sequence, floor: 12 }]);
  expect(await addIdRange(agent, notes(13, 14))).toBe("added");
  for (let count = 0; count < 3; count += 1) await app.query(insertNote);
  for (let count = 0; count < 5; count += 1)
    expect(await refusalOf(app.query(insertNote))).toBe("CF010");
  expect(await addIdRange(agent, notes(21, 30))).toBe("added");
  await app.query(insertNote);
  expect(await noteIds(app)).toEqual([11, 12, 13, 14, 21]);
  expect(await readHeldRanges(agent)).toContainEqual({ sequence: notes(0, 0).sequence, max: 30 });
  await store.close();
});

test("a range that does not lie above everything here is refused", async () => {
  const store = await createStore("above");
  await addIdRange(store.agent, notes(100, 200));
  for (const [lo, hi] of [
    [50, 60],
    [200, 300],
    [150, 160],
    [300, 250],
    [300, 2 ** 53],
  ] as const) {
    expect(await addIdRange(store.agent, notes(lo, hi)), `${lo}-${hi}`).toBe("refused");
  }
  expect(await addIdRange(store.agent, { sequence: "public.unknown_seq", lo: 1, hi: 2 })).toBe(
    "refused",
  );
  await protect(store, "tiny", "id smallserial primary key, tenant_id text not null");
  const tiny = { sequence: "public.tiny_id_seq" };
  expect(await addIdRange(store.agent, { ...tiny, lo: 30_000, hi: 40_000 })).toBe("refused");
  expect(await addIdRange(store.agent, { ...tiny, lo: 30_000, hi: 32_767 })).toBe("added");
  await store.close();
});

test("ids that a table had before, and identity columns, are respected", async () => {
  const store = await createStore("adopted");
  await store.owner(
    "create table old (id bigint generated always as identity, tenant_id text not null, primary key (tenant_id, id))",
  );
  await store.owner("insert into old (tenant_id) select 'acme' from generate_series(1, 40)");
  await store.owner("insert into old overriding system value values (70, 'acme')");
  await store.owner(`grant select, insert on old to ${storeRoles.appRole}`);
  await store.owner("select cellfleet.protect_table('public', 'old', 'tenant_id', 'default')");
  expect(await readLowRanges(store.agent)).toContainEqual({
    sequence: "public.old_id_seq",
    floor: 70,
  });
  expect(await addIdRange(store.agent, { sequence: "public.old_id_seq", lo: 60, hi: 90 })).toBe(
    "refused",
  );
  await addIdRange(store.agent, { sequence: "public.old_id_seq", lo: 71, hi: 90 });
  const { rows } = await store.app.query(
    "insert into old (tenant_id) values ('acme') returning id::int",
  );
  expect(rows).toEqual([{ id: 71 }]);
  await store.close();
});

test("a rollback gives no id back, across the end of a range too", async () => {
  const store = await createStore("rolled");
  await addIdRange(store.agent, notes(1, 2));
  await addIdRange(store.agent, notes(101, 104));
  const given: number[] = [];
  for (const end of ["rollback", "commit", "rollback", "commit", "rollback", "commit"]) {
    await store.app.query("begin");
    const { rows } = await store.app.query(insertNote);
    given.push(Number(rows[0].id));
    await store.app.query(end);
  }
  expect(given).toEqual([1, 2, 101, 102, 103, 104]);
  await store.close();
});

test.each(isolationLevels)(
  "a transaction (%s) older than a range's opening takes ids from it",
  async (isolation) => {
    const store = await createStore(`older_${isolation.replace(" ", "_")}`);
    await addIdRange(store.agent, notes(1, 2));
    await addIdRange(store.agent, notes(101, 200));
    await store.app.query(`begin isolation level ${isolation}`);
    await store.app.query("select count(*) from notes");
    const other = await store.connect();
    for (let count = 0; count < 3; count += 1) await other.query(insertNote);
    const { rows } = await store.app.query(insertNote);
    await store.app.query("commit");
    expect(Number(rows[0].id)).toBe(102);
    await store.close();
  },
);

describe("three cells that use up many small ranges, eight writers each", () => {
  test("never give an id twice, whatever is rolled back", async () => {
    const stores: CellStore[] = [];
    // One after the other: their roles are the server's.
    for (const name of ["one", "two", "three"]) stores.push(await createStore(`rush_${name}`));
    // Dealt in turn, with ends that touch: what one cell overran would be another's.
    const size = 7;
    const leased = new Map<string, Array<readonly [number, number]>>();
    for (let round = 0; round < 40; round += 1) {
      for (const [index, store] of stores.entries()) {
        const lo = (round * stores.length + index) * size + 1;
        const range = [lo, lo + size - 1] as const;
        expect(await addIdRange(store.agent, notes(...range))).toBe("added");
        leased.set(store.name, [...(leased.get(store.name) ?? []), range]);
      }
    }
    const given = new Map<string, number[]>();
    await Promise.all(
      stores.map(async (store) => {
        const ids: number[] = [];
        given.set(store.name, ids);
        const writers = await Promise.all(Array.from({ length: 8 }, () => store.connect()));
        await Promise.all(writers.map((writer, index) => useIds(writer, index, ids)));
      }),
    );
    const all = [...given.values()].flat();
    expect(new Set(all).size).toBe(all.length);
    for (const [name, ids] of given) {
      const outside = ids.filter(
        (id) => !(leased.get(name) ?? []).some(([lo, hi]) => lo <= id && id <= hi),
      );
      expect(outside).toEqual([]);
      // A writer that looked before a range was opened throws the id it took from it away; no more.
      expect(ids.length).toBeGreaterThan(40 * size * 0.8);
    }
    await Promise.all(stores.map((store) => store.close()));
  });

  /** Until there is none left; every third transaction is rolled back, its id counts as given. */
  async function useIds(writer: pg.Client, index: number, ids: number[]): Promise<void> {
    for (let count = index; ; count += 1) {
      await writer.query("begin");
      try {
        const { rows } = await writer.query(insertNote);
        ids.push(Number(rows[0].id));
        await writer.query(count % 3 === 0 ? "rollback" : "commit");
      } catch (error) {
        await writer.query("rollback");
        expect(await refusalOf(Promise.reject(error))).toBe("CF010");
        return;
      }
    }
  }
});

test("a crash of the server gives no id back", async () => {
  const store = await createStore("crashed");
  await addIdRange(store.agent, notes(1, 3));
  await addIdRange(store.agent, notes(101, 300));
  for (let count = 0; count < 5; count += 1) await store.app.query(insertNote);
  const before = await noteIds(store.app);
  await server.restart("kill");
  await store.close();
  const agent = await openClient(server.url("crashed", storeRoles.agentRole));
  const app = await openClient(server.url("crashed", storeRoles.appRole));
  await agent.query(
    "select cellfleet.set_lease(2, clock_timestamp() + '1 hour', pg_postmaster_start_time(), 'a')",
  );
  const { rows } = await app.query(insertNote);
  expect(before).toHaveLength(5);
  expect(Number(rows[0].id)).toBeGreaterThan(Math.max(...before));
  expect(Number(rows[0].id)).toBeLessThanOrEqual(300);
  expect(await readLowRanges(agent)).toContainEqual({ sequence: notes(0, 0).sequence, floor: 300 });
  await Promise.all([agent.end(), app.end()]);
});
