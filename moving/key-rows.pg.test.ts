/**
 * Which rows belong to a key: the condition of a comparison, the filter of the stream and what the guard
 * resolves must name the same ones, for every kind of key and type of column.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { epochSchema, tenantIdSchema } from "../contract/ids.ts";
import { placementKeySchema } from "../contract/placement-key.ts";
import { routedKeyspaceSchema } from "../contract/routing-table.ts";
import { type CellStore, createCellStore } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { keyTypes, rowFilter } from "./filters.ts";
import { rowsOfKeys, tenantsOf } from "./key-rows.ts";
import type { MoveTask } from "./ports.ts";

const keyspaces = [
  { name: "plain", strategy: "directory", guardMode: "row" },
  { name: "slotted", strategy: "slots", slotCount: 8, guardMode: "row" },
  { name: "ranged", strategy: "range", guardMode: "row", ranges: ["", "5", "m"] },
] as const;
const tableOf = (type: string): string => `rows_${type.replaceAll(" ", "_")}`;

let server: TestPostgres;
let store: CellStore;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "cell-a", { keyspaces });
  for (const type of keyTypes) {
    const values =
      type === "uuid"
        ? "md5(g::text)::uuid"
        : type === "bigint" || type === "integer"
          ? `(g * g * 37 - 500)::${type}`
          : "case g % 4 when 0 then 'zeta-' || g when 1 then md5(g::text) when 2 then g::text else 'Tenant-' || g end";
    await store.admin.query(
      `create table ${tableOf(type)} as select ${values} as tenant from generate_series(1, 400) g`,
    );
  }
  for (const key of [
    ...[
      "slotted/tenant/77",
      "ranged/tenant/Tenant-3",
      "ranged/tenant/Tenant-7",
      "ranged/tenant/962",
    ],
    ...Array.from({ length: 8 }, (_, slot) => `slotted/slot/${slot}`),
    ...["ranged/range/", "ranged/range/5", "ranged/range/m"],
  ]) {
    await store.own(key, "active");
  }
});

afterAll(async () => {
  await store.close();
  await server.stop();
});

type Moving = { readonly key: string; readonly until?: string; readonly overrides?: string[] };
function taskOf(moving: readonly Moving[]): Pick<MoveTask, "keys" | "keyspace"> {
  const name = moving[0]?.key.split("/")[0];
  return {
    keyspace: routedKeyspaceSchema.parse(keyspaces.find((keyspace) => keyspace.name === name)),
    keys: moving.map(({ key, until, overrides }) => ({
      key: placementKeySchema.parse(key),
      epoch: epochSchema.parse(1),
      until: until ?? null,
      overrides: (overrides ?? []).map((tenant) => tenantIdSchema.parse(tenant)),
    })),
  };
}

const rangeOverrides = ["Tenant-3", "Tenant-7", "962"];

describe.each(keyTypes)("a key column of type %s", (type) => {
  const tenantsWhere = async (condition: string): Promise<string[]> => {
    const { rows } = await store.admin.query<{ tenant: string }>(
      `select tenant::text as tenant from ${tableOf(type)} r where ${condition} order by tenant::text collate "C"`,
    );
    return rows.map(({ tenant }) => tenant);
  };

  it.each<[string, Moving[]]>([
    ["a tenant", [{ key: "plain/tenant/Tenant-7" }]],
    [
      "tenants",
      [{ key: "plain/tenant/863" }, { key: "plain/tenant/2" }, { key: "plain/tenant/Tenant-11" }],
    ],
    ["a slot under an override", [{ key: "slotted/slot/3", overrides: ["77"] }]],
    [
      "slots",
      [
        { key: "slotted/slot/0", overrides: ["77"] },
        { key: "slotted/slot/7", overrides: ["77"] },
      ],
    ],
    ["the first range", [{ key: "ranged/range/", until: "5", overrides: rangeOverrides }]],
    ["a range in the middle", [{ key: "ranged/range/5", until: "m", overrides: rangeOverrides }]],
    ["the last range", [{ key: "ranged/range/m", overrides: rangeOverrides }]],
    ["an override", [{ key: "ranged/tenant/Tenant-3" }]],
  ])("%s", async (_, moving) => {
    const task = taskOf(moving);
    const { rows } = await store.admin.query<{ value: string }>(
      "select v.value from unnest($1::text[]) v(value) where pg_input_is_valid(v.value, $2)",
      [tenantsOf(task), type],
    );
    const compared = await tenantsWhere(
      rowsOfKeys(task, { name: "tenant", type, holds: rows.map(({ value }) => value) }),
    );
    // All types have rows in slots and in the middle; texts everywhere.
    const isCommon = moving.some(({ key }) => key.includes("/slot/") || key.endsWith("/5"));
    if (type.includes("char") || type === "text" || isCommon) expect(compared).not.toEqual([]);
    const keys = moving.map(({ key }) => `'${key}'`).join(", ");
    expect(compared).toEqual(
      await tenantsWhere(
        `cellfleet.placement_key('${task.keyspace.name}', r.tenant::text) in (${keys})`,
      ),
    );
    expect(compared).toEqual(await tenantsWhere(rowFilter(task, { name: "tenant", type })));
  });
});
