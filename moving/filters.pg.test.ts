/** The condition on the key column, asked of PostgreSQL itself: as a row filter, and row by row. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { epochSchema, keyspaceNameSchema, parseTenantId, tenantIdSchema } from "../contract/ids.ts";
import {
  compareBytes,
  parsePlacementKey,
  placementKeySchema,
  slotOf,
} from "../contract/placement-key.ts";
import { must } from "../runtime/assert.ts";
import { openClient } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { type KeyType, keyTypes, rowFilter } from "./filters.ts";
import type { MoveTask } from "./ports.ts";

let server: TestPostgres;
let client: pg.Client;
beforeAll(async () => {
  server = await startTestPostgres();
  client = await openClient(await server.createDatabase("filters"));
});
afterAll(async () => {
  await client.end();
  await server.stop();
});

const uuids = Array.from(
  { length: 40 },
  (_, n) =>
    `${(n * 2_654_435_761).toString(16).padStart(8, "0").slice(-8)}-0000-7000-8000-0000000${String(n).padStart(5, "0")}`,
);
/** What stands in each table, as PostgreSQL writes it. */
const ids: Readonly<Record<KeyType, readonly string[]>> = {
  text: ["acme", "Acme", "o'neil@x", "z~9", "m", "ma", "l~", ...uuids, "7", "007"],
  "character varying": ["acme", "Acme", "z~9", "m", "ma", ...uuids],
  uuid: uuids,
  bigint: [
    "0",
    "7",
    "70",
    "700",
    "-7",
    "-70",
    "9223372036854775807",
    "-9223372036854775808",
    ...numbers(60),
  ],
  integer: ["0", "7", "70", "2147483647", "-2147483648", "-5", ...numbers(60)],
};

function numbers(count: number): string[] {
  return Array.from({ length: count }, (_, n) => String(1000 + n * 7919));
}

type Keys = ReadonlyArray<{
  readonly key: string;
  readonly until?: string | null;
  readonly overrides?: readonly string[];
}>;

const taskOf = (keys: Keys, slotCount = 4): Pick<MoveTask, "keys" | "keyspace"> => ({
  keyspace: {
    name: keyspaceNameSchema.parse("users"),
    strategy: "slots",
    slotCount,
    guardMode: "row",
  },
  keys: keys.map(({ key, until, overrides }) => ({
    key: placementKeySchema.parse(key),
    epoch: epochSchema.parse(1),
    until: until ?? null,
    overrides: (overrides ?? []).map((tenant) => tenantIdSchema.parse(tenant)),
  })),
});

/** What the control plane means by the same keys. */
function belongs(id: string, keys: Keys, slotCount: number): boolean {
  return keys.some(({ key, until, overrides = [] }) => {
    const parts = must(parsePlacementKey(key), key);
    if (parts.kind === "tenant") return parts.tenant === id;
    if (overrides.includes(id)) return false;
    if (parts.kind === "slot") return slotOf(id, slotCount) === parts.slot;
    return compareBytes(id, parts.from) >= 0 && (until == null || compareBytes(id, until) < 0);
  });
}

const cases: ReadonlyArray<readonly [string, (some: readonly string[]) => Keys]> = [
  ["one tenant", ([one]) => [{ key: `users/tenant/${one}` }]],
  [
    "tenants, and one whose id no value of the type reads like",
    ([one, two]) =>
      [one, two, "no-such~tenant", "ABCDEF00-0000-7000-8000-000000000000", "00012"].map((id) => ({
        key: `users/tenant/${id}`,
      })),
  ],
  ["a tenant that the type cannot hold", () => [{ key: "users/tenant/x~y" }]],
  ["one slot", () => [{ key: "users/slot/3" }]],
  [
    "slots without the tenants above them",
    (some) => [
      { key: "users/slot/0", overrides: some.slice(0, 20) },
      { key: "users/slot/2", overrides: some.slice(0, 20) },
    ],
  ],
  [
    "a slot, and the tenants above it too",
    (some) => [
      { key: "users/slot/1", overrides: some },
      ...some.slice(0, 3).map((id) => ({ key: `users/tenant/${id}` })),
    ],
  ],
  ["the first range", () => [{ key: "users/range/", until: "5" }]],
  [
    "a range in the middle",
    (some) => [{ key: "users/range/5", until: "m", overrides: some.slice(0, 5) }],
  ],
  ["the last range", () => [{ key: "users/range/7" }]],
  ["a whole keyspace", () => [{ key: "users/range/" }]],
  [
    "two ranges",
    () => [
      { key: "users/range/", until: "2" },
      { key: "users/range/m", until: "mz" },
    ],
  ],
];

describe.each(keyTypes)("key column of type %s", (type) => {
  const table = `by_${type.replaceAll(" ", "_")}`;
  const column = { name: 'the "key"', type };
  beforeAll(async () => {
    await client.query(`create table ${table} ("the ""key""" ${type} primary key)`);
    await client.query(`insert into ${table} select u::${type} from unnest($1::text[]) u`, [
      ids[type],
    ]);
  });

  test.each(cases)("%s", async (_name, keysOf) => {
    const some = ids[type].filter((id) => parseTenantId(id) !== undefined);
    const keys = keysOf(some);
    const filter = rowFilter(taskOf(keys), column);
    await client.query(
      `create publication p for table ${table} where (${filter}) with (publish = 'insert, update, delete')`,
    );
    await client.query("drop publication p");
    const { rows } = await client.query<{ id: string }>(
      `select "the ""key"""::text as id from ${table} where ${filter} order by 1`,
    );
    expect(rows.map(({ id }) => id).toSorted(compareBytes)).toEqual(
      ids[type].filter((id) => belongs(id, keys, 4)).toSorted(compareBytes),
    );
  });

  test("every row is in exactly one slot", async () => {
    const counts = await Promise.all(
      [0, 1, 2, 3].map(async (slot) => {
        const filter = rowFilter(taskOf([{ key: `users/slot/${slot}` }]), column);
        const { rowCount } = await client.query(`select from ${table} where ${filter}`);
        return Number(rowCount);
      }),
    );
    expect(counts.reduce((sum, count) => sum + count)).toBe(ids[type].length);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  });
});
