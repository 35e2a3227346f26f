/** Slots and ranges move without the tenants that stand above them, also where ids are numbers or uuids. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { KeyspaceInCell } from "../cell/store/ownership.ts";
import { protectTable } from "../cell/store/protect.ts";
import { compareBytes, slotOf } from "../contract/placement-key.ts";
import { storeRoles } from "../tests/cell-store.ts";
import {
  bringIntoStep,
  leftoversOf,
  never,
  setKeys,
  streams,
  switchOver,
  throughTheStream,
} from "./streams.fixture.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

const keyTypes = ["uuid", "bigint"] as const;
const uuidOf = (n: number): string =>
  `${n.toString(16).padStart(8, "0")}-0000-7000-8000-000000000000`;

/** Tables with other types of key columns, beside those of the fixture. */
async function addTables(cells: TwoCells): Promise<void> {
  for (const store of [cells.a, cells.b]) {
    for (const type of keyTypes) {
      await store.owner(
        `create table by_${type} (tenant_id ${type} not null, no integer not null, primary key (tenant_id, no));
         grant select, insert, update, delete on by_${type} to ${storeRoles.appRole}`,
      );
      await protectTable(store.admin, {
        ...{ schema: "public", table: `by_${type}`, keyColumn: "tenant_id", keyspace: "default" },
      });
    }
  }
}

const tenantsOf = async (client: { query: TwoCells["a"]["admin"]["query"] }): Promise<string[]> => {
  const { rows } = await client.query<{ id: string }>(
    `select tenant_id as id from notes union all select tenant_id::text from by_uuid
      union all select tenant_id::text from by_bigint`,
  );
  return [...new Set(rows.map(({ id }) => id))].toSorted(compareBytes);
};

async function writeAll(cells: TwoCells, tenants: readonly string[]): Promise<void> {
  for (const tenant of tenants) {
    const table = tenant.includes("-0000-")
      ? "by_uuid"
      : /^\d+$/.test(tenant)
        ? "by_bigint"
        : "notes";
    await cells.a.app.query(
      table === "notes"
        ? "insert into notes (tenant_id, body) values ($1, 'x')"
        : `insert into ${table} select $1, coalesce(max(no), 0) + 1 from ${table} where tenant_id = $1`,
      [tenant],
    );
  }
}

const tenants = [
  ...Array.from({ length: 12 }, (_, n) => `t${n}`),
  ...Array.from({ length: 12 }, (_, n) => uuidOf(n * 350_000_001)),
  ...Array.from({ length: 12 }, (_, n) => String(n * 77_777)),
];

const cases: ReadonlyArray<{
  readonly name: string;
  readonly keyspace: KeyspaceInCell;
  readonly keys: readonly string[];
  readonly moving: (
    overrides: readonly string[],
  ) => ReadonlyArray<{ key: string; until?: string; overrides: readonly string[] }>;
  readonly belongs: (tenant: string) => boolean;
}> = [
  {
    name: "slots",
    keyspace: { name: "default", strategy: "slots", slotCount: 4, guardMode: "row" },
    keys: [0, 1, 2, 3].map((slot) => `default/slot/${slot}`),
    moving: (overrides) => [1, 3].map((slot) => ({ key: `default/slot/${slot}`, overrides })),
    belongs: (tenant) => slotOf(tenant, 4) % 2 === 1,
  },
  {
    name: "ranges",
    keyspace: { name: "default", strategy: "range", guardMode: "row", ranges: ["", "2", "t5"] },
    keys: ["", "2", "t5"].map((start) => `default/range/${start}`),
    moving: (overrides) => [{ key: "default/range/2", until: "t5", overrides }],
    belongs: (tenant) => compareBytes(tenant, "2") >= 0 && compareBytes(tenant, "t5") < 0,
  },
];

describe.each(cases)("$name", ({ keyspace, keys, moving, belongs }) => {
  let cells: TwoCells;
  const inside = tenants.filter(belongs);
  /** Two tenants that would be inside, and stay. */
  const above = [inside[0] ?? "", inside.at(-1) ?? ""];
  const travels = inside.filter((tenant) => !above.includes(tenant)).toSorted(compareBytes);
  beforeAll(async () => {
    cells = await startTwoCells({ keyspace });
    await addTables(cells);
    for (const key of keys) await cells.own(cells.a, key, "active");
    for (const tenant of above) await cells.own(cells.a, `default/tenant/${tenant}`, "active");
    await writeAll(cells, tenants);
  });
  afterAll(() => cells.close());

  test("exactly their tenants travel, in the copy, in the stream and in the purge", async () => {
    const { a, b } = cells;
    expect(new Set(travels.map((tenant) => tenant.includes("-"))).size).toBe(2);
    const task = cells.task({ keys: moving(above) });
    await bringIntoStep(task);
    expect(await tenantsOf(b.admin)).toEqual(travels);
    await writeAll(cells, tenants);
    await a.app.query("delete from notes where tenant_id = any ($1)", [travels]);
    await writeAll(cells, tenants);
    await throughTheStream(task, a, b);
    expect(await tenantsOf(b.admin)).toEqual(travels);
    for (const table of ["notes", "by_uuid", "by_bigint"]) {
      const query = `select coalesce(string_agg(r::text, ' ' order by r::text), '') as rows from ${table} r
                      where tenant_id::text = any ($1)`;
      const [here, there] = [
        await a.admin.query(query, [travels]),
        await b.admin.query(query, [travels]),
      ];
      expect(there.rows).toEqual(here.rows);
    }
    await switchOver(cells, task);
    await streams.turnAround(task);
    await streams.clean(task, never);
    expect(await tenantsOf(b.admin)).toEqual(travels);
    expect(await tenantsOf(a.admin)).toEqual(
      tenants.filter((tenant) => !travels.includes(tenant)).toSorted(compareBytes),
    );
    expect(await leftoversOf(cells, task)).toEqual([]);
  });

  test("a tenant above a container moves by itself, also to where its container is served", async () => {
    const { a, b } = cells;
    const [tenant = ""] = above;
    const task = cells.task({ number: 2, keys: [{ key: `default/tenant/${tenant}` }] });
    await bringIntoStep(task);
    await streams.undo(task, never);
    // Its rows do not fall to the container, which is active there.
    expect(await tenantsOf(b.app)).toEqual(travels);
    const { rows } = await b.admin.query("select cellfleet.placement_key('default', $1) as key", [
      tenant,
    ]);
    expect(rows[0]?.key).toBe(`default/tenant/${tenant}`);
    const again = cells.task({ number: 3, keys: [{ key: `default/tenant/${tenant}` }] });
    await bringIntoStep(again);
    await setKeys(a, again, "fenced");
    await throughTheStream(again, a, b);
    expect(await tenantsOf(b.admin)).toEqual([...travels, tenant].toSorted(compareBytes));
    await streams.undo(again, never);
    expect(await tenantsOf(b.admin)).toEqual(travels);
  });
});
