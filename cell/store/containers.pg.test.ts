/**
 * Keys inside keys (corrections A10): tenants in slots and ranges, overrides above them, and what
 * happens to a writer when the way its tenant resolves changes under it.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compareBytes, slotOf } from "../../contract/placement-key.ts";
import {
  type CellStore,
  createCellStore,
  isolationLevels,
  refusalOf,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { applyKeyspaces } from "./ownership.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const insert = (tenant: string) => ({
  text: "insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)",
  values: [tenant],
});
const seenBy = async (store: CellStore) => {
  const { rows } = await store.app.query("select distinct tenant_id as t from orders");
  return rows.map(({ t }) => String(t)).toSorted(compareBytes);
};
/** Until one session waits for an advisory lock. */
const waitForLock = (store: CellStore) =>
  expect
    .poll(async () => {
      const { rows } = await store.admin.query(
        "select count(*)::int as n from pg_locks where locktype = 'advisory' and not granted",
      );
      return rows[0].n;
    })
    .toBe(1);
const slotCount = 64;
const slots = { name: "default", strategy: "slots", slotCount, guardMode: "row" } as const;
const slotOfTenant = (tenant: string) => `default/slot/${slotOf(tenant, slotCount)}`;

test("PostgreSQL and the contract compute the same slot", async () => {
  const store = await createCellStore(server, "slot_numbers");
  const tenants = [
    "acme",
    "globex",
    "ünïcode",
    "a".repeat(128),
    ...Array.from({ length: 500 }, (_, i) => `t-${i}`),
  ];
  const { rows } = await store.admin.query(
    "select cellfleet.slot(t, 16384) as slot from unnest($1::text[]) with ordinality u(t, n) order by n",
    [tenants],
  );
  expect(rows.map(({ slot }) => slot)).toEqual(tenants.map((tenant) => slotOf(tenant, 16_384)));
  await store.close();
});

describe("slots", () => {
  let store: CellStore;
  beforeAll(async () => {
    store = await createCellStore(server, "slotted", { keyspaces: [slots] });
    await store.grantLease();
  });
  afterAll(() => store.close());

  test("a tenant is written and seen where its slot is active", async () => {
    expect(await refusalOf(store.app.query(insert("acme")))).toBe("CF001");
    await store.own(slotOfTenant("acme"), "active");
    await store.app.query(insert("acme"));
    expect(await seenBy(store)).toEqual(["acme"]);
    await store.own(slotOfTenant("acme"), "fenced");
    expect(await seenBy(store)).toEqual([]);
    expect(await refusalOf(store.app.query(insert("acme")))).toBe("CF001");
    await store.own(slotOfTenant("acme"), "active");
  });

  test("an override stands above its slot, here or elsewhere, until it is dropped", async () => {
    await store.own("default/tenant/acme", "moved", 2);
    expect(await refusalOf(store.app.query(insert("acme")))).toBe("CF001");
    expect(await seenBy(store)).toEqual([]);
    await store.own("default/tenant/acme", "active", 3);
    await store.own(slotOfTenant("acme"), "fenced", 2);
    await store.app.query(insert("acme"));
    expect(await seenBy(store)).toEqual(["acme"]);
    await store.own("default/tenant/acme", "dropped", 4);
    expect(await refusalOf(store.app.query(insert("acme")))).toBe("CF001");
    await store.own(slotOfTenant("acme"), "active", 3);
    await store.app.query(insert("acme"));
  });

  test("strict mode wants the container's key", async () => {
    await applyKeyspaces(store.agent, [{ ...slots, guardMode: "strict" }]);
    await store.own(slotOfTenant("globex"), "active");
    await store.app.query("begin");
    await store.app.query("select cellfleet.enter($1, 1)", [slotOfTenant("globex")]);
    await store.app.query(insert("globex"));
    await store.app.query("commit");
    expect(await refusalOf(store.app.query(insert("globex")))).toBe("CF003");
    await applyKeyspaces(store.agent, [slots]);
    expect(await seenBy(store)).toEqual(["acme", "globex"]);
  });

  test("an override waits for the writers of its slot", async () => {
    await store.own(slotOfTenant("late"), "active");
    await store.app.query("begin");
    await store.app.query(insert("late"));
    const change = { key: "default/tenant/late", state: "moved", epoch: 1, op: "op_x", attempt: 1 };
    const text = JSON.stringify([change]);
    const applied = "select outcome from cellfleet.apply_ownership($1, null, 30)";
    expect(await refusalOf(store.agent.query(applied, [text]))).toBe("55P03");
    await store.app.query("commit");
    expect((await store.agent.query(applied, [text])).rows).toEqual([{ outcome: "applied" }]);
  });

  describe.each(isolationLevels)(
    "a transaction (%s) that began before an override was made",
    (isolation) => {
      test("does not write past it", async () => {
        const tenant = `older-${isolation.replace(" ", "-")}`;
        await store.own(slotOfTenant(tenant), "active");
        await store.app.query(`begin isolation level ${isolation}`);
        await store.app.query("select count(*) from orders");
        await store.own(`default/tenant/${tenant}`, "moved");
        const code = await refusalOf(store.app.query(insert(tenant)));
        expect(code).toBe(isolation === "read committed" ? "CF001" : "40001");
        await store.app.query("rollback");
      });

      test("nor one that waited for the lock meanwhile", async () => {
        const tenant = `waiting-${isolation.replace(" ", "-")}`;
        const slot = slotOfTenant(tenant);
        await store.own(slot, "active");
        // The override, in a transaction that is still open: its locks are held.
        await store.agent.query("begin");
        const change = {
          key: `default/tenant/${tenant}`,
          state: "moved",
          epoch: 1,
          op: "op_y",
          attempt: 1,
        };
        await store.agent.query("select cellfleet.apply_ownership($1, null)", [
          JSON.stringify([change]),
        ]);
        await store.app.query(`begin isolation level ${isolation}`);
        const refused = refusalOf(store.app.query(insert(tenant)));
        await waitForLock(store);
        await store.agent.query("commit");
        expect(await refused).toBe(isolation === "read committed" ? "CF001" : "40001");
        await store.app.query("rollback");
      });
    },
  );
});

describe("ranges", () => {
  let store: CellStore;
  const ranges = (starts: string[]) =>
    applyKeyspaces(store.agent, [
      { name: "default", strategy: "range", guardMode: "row", ranges: starts },
    ]);
  beforeAll(async () => {
    const keyspace = { name: "default", strategy: "range", guardMode: "row", ranges: ["", "m"] };
    store = await createCellStore(server, "ranged", { keyspaces: [keyspace] });
    await store.grantLease();
    await store.own("default/range/", "active");
  });
  afterAll(() => store.close());

  test("a range ends where another cell's begins, in byte order", async () => {
    await store.app.query(insert("acme"));
    await store.app.query(insert("Zebra"));
    await store.app.query(insert("lzzz"));
    for (const foreign of ["m", "mA", "zed", "~tilde", "é"]) {
      expect(await refusalOf(store.app.query(insert(foreign)))).toBe("CF001");
    }
    expect(await seenBy(store)).toEqual(["Zebra", "acme", "lzzz"]);
  });

  test("an override stands above its range", async () => {
    await store.own("default/tenant/acme", "moved");
    expect(await refusalOf(store.app.query(insert("acme")))).toBe("CF001");
    expect(await seenBy(store)).toEqual(["Zebra", "lzzz"]);
    await store.own("default/tenant/acme", "dropped", 2);
    await store.app.query(insert("acme"));
    await store.own("default/tenant/zed", "active");
    await store.app.query(insert("zed"));
    expect(await seenBy(store)).toEqual(["Zebra", "acme", "lzzz", "zed"]);
  });

  test("a split moves tenants at once: it waits for their writers and later ones are refused", async () => {
    await store.app.query("begin");
    await store.app.query(insert("golf"));
    expect(await refusalOf(ranges(["", "g", "m"]))).toBe("55P03");
    await store.app.query("commit");
    const older = await store.connect();
    await older.query("begin isolation level repeatable read");
    await older.query("select count(*) from orders");
    await ranges(["", "g", "m"]);
    expect(await refusalOf(older.query(insert("golf")))).toBe("40001");
    expect(await refusalOf(store.app.query(insert("golf")))).toBe("CF001");
    expect(await seenBy(store)).toEqual(["Zebra", "acme", "zed"]);
    await store.own("default/range/g", "active", 2);
    await store.app.query(insert("golf"));
    expect(await seenBy(store)).toEqual(["Zebra", "acme", "golf", "lzzz", "zed"]);
  });

  test("a merge gives them back to the range before", async () => {
    await store.own("default/range/g", "dropped", 3);
    await ranges(["", "m"]);
    await store.app.query(insert("golf"));
    expect(await seenBy(store)).toEqual(["Zebra", "acme", "golf", "lzzz", "zed"]);
  });

  test.each(isolationLevels)(
    "a writer (%s) that waited while its range was split begins anew",
    async (isolation) => {
      await store.agent.query("begin");
      const split = [
        { name: "default", strategy: "range", guardMode: "row", ranges: ["", "h", "m"] },
      ];
      await store.agent.query("select cellfleet.set_keyspaces($1)", [JSON.stringify(split)]);
      await store.app.query(`begin isolation level ${isolation}`);
      const refused = refusalOf(store.app.query(insert("hotel")));
      await waitForLock(store);
      await store.agent.query("commit");
      expect(await refused).toBe("40001");
      await store.app.query("rollback");
      await ranges(["", "m"]);
    },
  );
});
