/**
 * The stages of a cell that is being adopted: in `observe` everything passes and is counted, by
 * reason; and the step to `enforce` leaves nobody behind who wrote by leave of the earlier stage.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  enterStage,
  isolationLevels,
  openClient,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts, setSchemaVersion, setStage } from "./facts.ts";
import { addIdRange, readHeldRanges, readLowRanges } from "./id-ranges.ts";
import { installPack } from "./install.ts";
import { sqlStateOf } from "./queryable.ts";

let server: TestPostgres;
let store: CellStore;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "adopted");
  await store.grantLease();
  await store.own("default/tenant/acme", "active", 3);
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const insertFor = (tenant: string | null) => ({
  text: "insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)",
  values: [tenant],
});
const counted = async (from: CellStore = store) => (await readFacts(from.agent)).wouldRefuse;

/** By how much the work raises the counters. */
async function countOf(work: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await counted();
  await work();
  const after = await counted();
  const grown = Object.entries(after).map(
    ([code, count]) => [code, count - (before[code] ?? 0)] as const,
  );
  return Object.fromEntries(grown.filter(([, count]) => count > 0));
}

describe.each(isolationLevels)("in observe, %s, a write passes and counts", (isolation) => {
  let app: pg.Client;
  const inTransaction = async (...texts: (string | pg.QueryConfig)[]): Promise<void> => {
    await app.query(`begin isolation level ${isolation}`);
    try {
      for (const text of texts) await app.query(text);
      await app.query("commit");
    } catch (error) {
      await app.query("rollback");
      throw error;
    }
  };

  beforeEach(async () => {
    app = store.app;
    await enterStage(store.agent, "observe");
    await store.setMode("row");
    await store.admin.query("set session_replication_role = replica");
    await store.admin.query("truncate orders");
    await store.admin.query("reset session_replication_role");
  });

  test("for a tenant that nobody knows here: CF001", async () => {
    const grown = await countOf(() => inTransaction(insertFor("nobody"), insertFor("stranger")));
    expect(grown).toEqual({ CF001: 2 });
    // Visibility hides none of it.
    const { rows } = await app.query("select tenant_id from orders order by 1");
    expect(rows.map((row) => row.tenant_id)).toEqual(["nobody", "stranger"]);
    const deleted = await countOf(() => inTransaction("delete from orders"));
    expect(deleted).toEqual({ CF001: 2 });
  });

  test("what is in order counts nothing", async () => {
    expect(await countOf(() => inTransaction(insertFor("acme")))).toEqual({});
  });

  test("of a changed key: CF002", async () => {
    await inTransaction(insertFor("acme"));
    const update = "update orders set tenant_id = 'nobody'";
    expect(await countOf(() => inTransaction(update))).toEqual({ CF001: 1, CF002: 1 });
    const { rows } = await app.query("select tenant_id from orders");
    expect(rows).toEqual([{ tenant_id: "nobody" }]);
  });

  test("without a lease, at the row and at the commit: CF004", async () => {
    await store.agent.query("select cellfleet.expire_lease(1000000)");
    try {
      expect(await countOf(() => inTransaction(insertFor("acme")))).toEqual({ CF004: 2 });
      expect((await app.query("select * from orders")).rowCount).toBe(1);
    } finally {
      await store.grantLease();
    }
  });

  test("of a whole table, by TRUNCATE: CF005", async () => {
    await inTransaction(insertFor("acme"));
    expect(await countOf(() => inTransaction("truncate orders"))).toEqual({ CF005: 1 });
    expect((await app.query("select * from orders")).rowCount).toBe(0);
  });

  test("without a key: CF009", async () => {
    expect(await countOf(() => inTransaction(insertFor("")))).toEqual({ CF009: 1 });
  });

  test("in strict mode too: CF003, CF006, CF007, and enter() itself", async () => {
    await store.setMode("strict");
    const enter = (key: string, epoch: number) =>
      `select cellfleet.enter('default/tenant/${key}', ${epoch})`;
    expect(await countOf(() => inTransaction(insertFor("acme")))).toEqual({ CF003: 1 });
    // An old epoch is met at enter(), and once more at the row.
    expect(await countOf(() => inTransaction(enter("acme", 2), insertFor("acme")))).toEqual({
      CF006: 2,
    });
    await store.own("default/tenant/globex", "active", 1);
    expect(await countOf(() => inTransaction(enter("acme", 3), insertFor("globex")))).toEqual({
      CF007: 1,
    });
    expect(await countOf(() => inTransaction(enter("nobody", 1)))).toEqual({ CF001: 1 });
    expect(await countOf(() => inTransaction(enter("acme", 3), insertFor("acme")))).toEqual({});
  });

  test("also when it is rolled back", async () => {
    const grown = await countOf(async () => {
      await app.query(`begin isolation level ${isolation}`);
      await app.query(insertFor("nobody"));
      await app.query("rollback");
    });
    expect(grown).toEqual({ CF001: 1 });
  });

  test("older than the import of its tenant: repeated where its snapshot is kept", async () => {
    const tenant = `late-${isolation.replace(" ", "-")}`;
    await store.own(`default/tenant/${tenant}`, "importing");
    await app.query(`begin isolation level ${isolation}`);
    await app.query("select count(*) from orders");
    await store.own(`default/tenant/${tenant}`, "active", 2);
    if (isolation === "read committed") {
      await app.query(insertFor(tenant));
      await app.query("commit");
    } else {
      // To that snapshot the rows are not here yet: no stage lets it write beside them.
      expect(await refusalOf(app.query(insertFor(tenant)))).toBe("40001");
      await app.query("rollback");
      await inTransaction(insertFor(tenant));
    }
    expect((await app.query("select * from orders")).rowCount).toBe(1);
  });

  test("a transaction that only reads is let through uncounted", async () => {
    const grown = await countOf(async () => {
      await app.query(`begin isolation level ${isolation} read only`);
      await app.query("select cellfleet.enter('default/tenant/nobody', 1)");
      await app.query("commit");
    });
    expect(grown).toEqual({});
  });
});

describe("a keyspace of slots in observe", () => {
  test("lets rows of any slot pass", async () => {
    const slots = await createCellStore(server, "slotted", {
      keyspaces: [{ name: "default", strategy: "slots", slotCount: 16, guardMode: "row" }],
    });
    await enterStage(slots.agent, "observe");
    await slots.app.query(insertFor("anybody"));
    expect((await slots.app.query("select * from orders")).rowCount).toBe(1);
    await enterStage(slots.agent, "enforce");
    await slots.grantLease();
    expect(await refusalOf(slots.app.query(insertFor("anybody")))).toBe("CF001");
    expect((await slots.app.query("select * from orders")).rowCount).toBe(0);
    await slots.close();
  });

  test("and so does a keyspace that nobody has told it of", async () => {
    const client = await openClient(await server.createDatabase("untold"));
    await installPack(client, { ...storeRoles, cellId: "untold", stage: "pass-through" });
    await client.query("create table things (tenant_id text not null)");
    await client.query(
      "select cellfleet.protect_table('public', 'things', 'tenant_id', 'default')",
    );
    await client.query(`grant select, insert on things to ${storeRoles.appRole}`);
    const app = await openClient(server.url("untold", storeRoles.appRole));
    await app.query("insert into things values ('acme')");
    expect((await app.query("select * from things")).rowCount).toBe(1);
    await enterStage(client, "enforce");
    expect(await refusalOf(app.query("insert into things values ('acme')"))).toBe("CF001");
    await Promise.all([client.end(), app.end()]);
  });
});

describe("the step to enforce", () => {
  test.each(isolationLevels)("no row appears behind it in 40 races (%s)", async (isolation) => {
    const writers = await Promise.all(Array.from({ length: 6 }, () => store.connect()));
    await store.setMode("row");
    const late: number[] = [];
    for (let race = 0; race < 40; race += 1) {
      await enterStage(store.agent, "observe");
      const tenant = `race-${isolation.replace(" ", "-")}-${race}`;
      const ends = Promise.all(
        writers.map((writer) => writeUntilRefused(writer, isolation, tenant)),
      );
      while ((await rowsOf(tenant)) < 2) await store.admin.query("select pg_sleep(0.001)");
      await enterStage(store.agent, "enforce", 5000);
      const atStep = await rowsOf(tenant);
      expect(new Set(await ends)).toEqual(new Set(["CF001"]));
      late.push((await rowsOf(tenant)) - atStep);
    }
    expect(late.filter((rows) => rows !== 0)).toEqual([]);
  });

  async function writeUntilRefused(writer: pg.Client, isolation: string, tenant: string) {
    for (;;) {
      try {
        await writer.query(`begin isolation level ${isolation}`);
        await writer.query(insertFor(tenant));
        await writer.query("select pg_sleep(random() * 0.004)");
        await writer.query("commit");
      } catch (error) {
        await writer.query("rollback");
        if (sqlStateOf(error) !== "40001") return sqlStateOf(error);
      }
    }
  }

  const rowsOf = async (tenant: string): Promise<number> => {
    const { rows } = await store.admin.query(
      "select count(*)::int as n from orders where tenant_id = $1",
      [tenant],
    );
    return Number(rows[0].n);
  };

  test("waits for who wrote by leave of the earlier stage, and says so after its time", async () => {
    await enterStage(store.agent, "observe");
    await store.app.query("begin");
    await store.app.query(insertFor("nobody"));
    expect(await refusalOf(enterStage(store.agent, "enforce", 50))).toBe("55P03");
    expect((await readFacts(store.agent)).stage).toBe("observe");
    // A writer whose row is in order needs no leave, and holds nobody up.
    await store.app.query("rollback");
    await store.app.query("begin");
    await store.app.query(insertFor("acme"));
    await enterStage(store.agent, "enforce", 50);
    await store.app.query("commit");
    expect(await refusalOf(store.app.query(insertFor("nobody")))).toBe("CF001");
  });

  test("is not to be held up by a lock that the application may take", async () => {
    await enterStage(store.agent, "observe");
    await store.app.query("begin");
    const lock = store.app.query("lock table cellfleet.stage in row share mode");
    expect(await refusalOf(lock)).toBe("42501");
    await store.app.query("rollback");
    const set = store.app.query("select cellfleet.set_stage('observe', 1, 50)");
    expect(await refusalOf(set)).toBe("42501");
    expect(await refusalOf(store.app.query("select nextval('cellfleet.would_refuse_cf001')"))).toBe(
      "42501",
    );
  });

  test("and back: what was refused passes again", async () => {
    await enterStage(store.agent, "enforce");
    expect(await refusalOf(store.app.query(insertFor("nobody")))).toBe("CF001");
    await enterStage(store.agent, "observe");
    await store.app.query(insertFor("nobody"));
    expect(await refusalOf(enterStage(store.agent, "enforced" as "enforce"))).toBe("22023");
  });
});

test("a change of stage that was counted before the last one changes nothing, however late it comes", async () => {
  await enterStage(store.agent, "observe");
  const { stageNumber } = await readFacts(store.agent);
  const change = (stage: "observe" | "enforce", number: number) =>
    setStage(store.agent, { stage, number });
  expect(await change("enforce", stageNumber + 2)).toBe("done");
  expect(await change("enforce", stageNumber + 2)).toBe("done");
  expect(await change("observe", stageNumber + 1)).toBe("stale");
  expect(await change("observe", stageNumber + 2)).toBe("stale");
  expect(await readFacts(store.agent)).toMatchObject({
    stage: "enforce",
    stageNumber: stageNumber + 2,
  });
  expect(await refusalOf(store.app.query(insertFor("nobody")))).toBe("CF001");
  expect(await change("observe", stageNumber + 3)).toBe("done");
  await store.app.query(insertFor("nobody"));
});

test("a new database may begin in observe; one that has the pack keeps its stage", async () => {
  const client = await openClient(await server.createDatabase("beginning"));
  await installPack(client, { ...storeRoles, cellId: "b", stage: "observe" });
  expect((await readFacts(client)).stage).toBe("observe");
  await enterStage(client, "enforce");
  await installPack(client, { ...storeRoles, cellId: "b", stage: "observe" });
  const facts = await readFacts(client);
  expect([facts.stage, facts.guardedTables, facts.schemaVersion]).toEqual(["enforce", 0, null]);
  await client.query("create table t (tenant_id text)");
  await client.query("select cellfleet.protect_table('public', 't', 'tenant_id', 'default')");
  await setSchemaVersion(client, "0042_add_notes");
  await setSchemaVersion(client, "0042_add_notes");
  const later = await readFacts(client);
  expect([later.guardedTables, later.schemaVersion]).toEqual([1, "0042_add_notes"]);
  expect((await client.query("table cellfleet.store_version")).rowCount).toBe(1);
  await client.end();
});

test("a database whose pack is older than stages is in enforce, whatever the installer wishes", async () => {
  const client = await openClient(await server.createDatabase("older"));
  await installPack(client, { ...storeRoles, cellId: "o" });
  await client.query("drop table cellfleet.stage; delete from cellfleet.pack");
  await installPack(client, { ...storeRoles, cellId: "o", stage: "observe" });
  expect((await readFacts(client)).stage).toBe("enforce");
  await client.end();
});

describe("ids while no range is there", () => {
  const insert =
    "insert into orders (tenant_id, item, quantity) values ('acme', 'x', 1) returning id";

  test("go on as plain numbers, counted, and ranges that come begin above them", async () => {
    const cell = await createCellStore(server, "rangeless");
    await cell.own("default/tenant/acme", "active");
    await cell.grantLease();
    await cell.owner("create table notes (id bigserial primary key, tenant_id text not null)");
    await cell.owner("insert into notes (tenant_id) select 'acme' from generate_series(1, 10)");
    await cell.owner("select cellfleet.protect_table('public', 'notes', 'tenant_id', 'default')");
    await cell.owner(`grant select, insert on notes to ${storeRoles.appRole}`);
    await enterStage(cell.agent, "observe");
    const note = "insert into notes (tenant_id) values ('acme') returning id::int";
    const ids: number[] = [];
    for (let count = 0; count < 3; count += 1) ids.push((await cell.app.query(note)).rows[0].id);
    expect(ids).toEqual([11, 12, 13]);
    expect(await counted(cell)).toEqual({ CF010: 3 });
    const sequence = "public.notes_id_seq";
    expect(await readLowRanges(cell.agent)).toContainEqual({ sequence, floor: 13 });
    expect(await readHeldRanges(cell.agent)).toContainEqual({ sequence, max: 13 });
    // Asked for before the last two were given.
    expect(await addIdRange(cell.agent, { sequence, lo: 12, hi: 40 })).toBe("refused");
    expect(await addIdRange(cell.agent, { sequence, lo: 21, hi: 22 })).toBe("added");
    await enterStage(cell.agent, "enforce");
    for (let count = 0; count < 2; count += 1) ids.push((await cell.app.query(note)).rows[0].id);
    expect(ids.slice(3)).toEqual([21, 22]);
    expect(await refusalOf(cell.app.query(note))).toBe("CF010");
    await cell.close();
  });

  test("are never given twice while ranges come and go under eight writers", async () => {
    await enterStage(store.agent, "observe");
    await store.owner("create table busy (id bigserial primary key, tenant_id text not null)");
    await store.owner("select cellfleet.protect_table('public', 'busy', 'tenant_id', 'default')");
    await store.owner(`grant select, insert on busy to ${storeRoles.appRole}`);
    const writers = await Promise.all(Array.from({ length: 8 }, () => store.connect()));
    const sequence = "public.busy_id_seq";
    let writing = true;
    // A number given twice would fail on the primary key.
    const work = Promise.all(
      writers.map(async (writer) => {
        for (let count = 0; count < 150; count += 1)
          await writer.query("insert into busy (tenant_id) values ('acme')");
      }),
    ).finally(() => {
      writing = false;
    });
    let added = 0;
    while (writing) {
      const low = (await readLowRanges(store.agent)).find((range) => range.sequence === sequence);
      const floor = low?.floor ?? 0;
      if (low !== undefined && added < 8) {
        const range = { sequence, lo: floor + 20, hi: floor + 40 };
        if ((await addIdRange(store.agent, range)) === "added") added += 1;
      }
      await store.admin.query("select pg_sleep(0.005)");
    }
    await work;
    const { rows } = await store.admin.query("select count(distinct id)::int as n from busy");
    expect(rows).toEqual([{ n: 1200 }]);
    expect(added).toBeGreaterThan(3);
  });

  test("in enforce there is none", async () => {
    await enterStage(store.agent, "enforce");
    await store.owner("create table bare (id bigserial primary key, tenant_id text not null)");
    await store.owner("select cellfleet.protect_table('public', 'bare', 'tenant_id', 'default')");
    await store.owner(`grant select, insert on bare to ${storeRoles.appRole}`);
    expect(await refusalOf(store.app.query("insert into bare (tenant_id) values ('acme')"))).toBe(
      "CF010",
    );
    await store.app.query(insert);
  });
});
