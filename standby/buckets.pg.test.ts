/** The filter of a range of buckets, asked of PostgreSQL itself: as a row filter, and row by row. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keyspaceNameSchema } from "../contract/ids.ts";
import { bucketOf, parsePlacementKey, slotOf } from "../contract/placement-key.ts";
import { type KeyType, keyTypes } from "../moving/filters.ts";
import { must } from "../runtime/assert.ts";
import { openClient } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { bucketFilter } from "./buckets.ts";
import type { BucketRange } from "./ports.ts";

let server: TestPostgres;
let client: pg.Client;
beforeAll(async () => {
  server = await startTestPostgres();
  client = await openClient(await server.createDatabase("buckets"));
});
afterAll(async () => {
  await client.end();
  await server.stop();
});

const name = keyspaceNameSchema.parse("users");
const keyspaces = {
  directory: { name, strategy: "directory" },
  "16 slots": { name, strategy: "slots", slotCount: 16 },
  "16384 slots": { name, strategy: "slots", slotCount: 16_384 },
  ranges: { name, strategy: "range" },
} as const;
type Split = (typeof keyspaces)[keyof typeof keyspaces];

/** As the control plane splits a cell over three partners, one, and one that gets little. */
const splits: readonly (readonly BucketRange[])[] = [
  [
    { lo: 0, hi: 85 },
    { lo: 86, hi: 170 },
    { lo: 171, hi: 255 },
  ],
  [{ lo: 0, hi: 255 }],
  [
    { lo: 0, hi: 0 },
    { lo: 1, hi: 7 },
    { lo: 8, hi: 255 },
  ],
];

const values: Readonly<Record<KeyType, string>> = {
  text: "md5(n::text) || case n % 3 when 0 then '@x' when 1 then '~Ä' else '' end",
  "character varying": "'tenant-' || n",
  uuid: "md5(n::text)::uuid",
  bigint: "(n - 50) * 9007199254740881",
  integer: "(n - 50) * 7919",
};

/** Of the key that a row belongs to: the tenant's own, or its slot's, which lie in the same bucket. */
function bucketsOfRow(id: string, keyspace: Split): number[] {
  const keys = [`users/tenant/${id}`];
  if (keyspace.strategy === "slots") keys.push(`users/slot/${slotOf(id, keyspace.slotCount)}`);
  return keys.flatMap((key) => {
    const parts = parsePlacementKey(key);
    return parts === undefined ? [] : [bucketOf(parts, keyspace)];
  });
}

describe.each(keyTypes)("key column of type %s", (type) => {
  const table = `by_${type.replaceAll(" ", "_")}`;
  const column = { name: 'the "key"', type };
  beforeAll(async () => {
    await client.query(`create table ${table} ("the ""key""" ${type} primary key)`);
    await client.query(
      `insert into ${table} select (${values[type]})::${type} from generate_series(1, 300) n`,
    );
  });

  const idsIn = async (where: string): Promise<string[]> => {
    await client.query(
      `create publication p for table ${table} where (${where}) with (publish = 'insert, update, delete')`,
    );
    await client.query("drop publication p");
    const { rows } = await client.query<{ id: string }>(
      `select "the ""key"""::text as id from ${table} where ${where}`,
    );
    return rows.map(({ id }) => id);
  };

  test.each(Object.entries(keyspaces))(
    "in a keyspace of %s, PostgreSQL and bucketOf agree",
    async (_name, keyspace) => {
      for (const split of splits) {
        const seen: string[] = [];
        for (const range of split) {
          const filter = bucketFilter(keyspace, range, column);
          const ids = await idsIn(
            filter.kind === "some" ? filter.where : String(filter.kind === "all"),
          );
          const strays = ids.filter((id) =>
            bucketsOfRow(id, keyspace).some((bucket) => bucket < range.lo || bucket > range.hi),
          );
          expect(strays).toEqual([]);
          seen.push(...ids);
        }
        expect([seen.length, new Set(seen).size]).toEqual([300, 300]);
      }
    },
  );
});

test("what nobody can have is none, what is everybody's has no filter", () => {
  const column = { name: "t", type: "text" } as const;
  const { directory, ranges } = keyspaces;
  expect(bucketFilter(directory, { lo: 0, hi: 255 }, column)).toEqual({ kind: "all" });
  expect(bucketFilter(keyspaces["16 slots"], { lo: 16, hi: 255 }, column)).toEqual({
    kind: "none",
  });
  const home = bucketOf(must(parsePlacementKey("users/range/"), "a range"), ranges);
  expect(bucketFilter(ranges, { lo: home, hi: home }, column)).toEqual({ kind: "all" });
  expect(bucketFilter(ranges, { lo: 0, hi: home - 1 }, column)).toEqual({ kind: "none" });
});
