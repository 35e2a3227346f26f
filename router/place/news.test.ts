/** News is never missed, and is told of the placement that it is about. */
import { expect, test } from "vitest";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { deltaBodySchema } from "../../contract/routing-table.ts";
import { News } from "./news.ts";

const key = (name: string) => `default/tenant/${name}` as PlacementKey;
const delta = (names: readonly string[], more: object = {}) =>
  deltaBodySchema.parse({
    ...{ fleet: "fleet-1", from: 1, to: 2, deletes: [], checksum: "0".repeat(16) },
    upserts: [
      {
        ...{ keyspace: "default", kind: "tenant", cell: "a", epoch: 1, state: "active" },
        values: names,
      },
    ],
    ...more,
  });

test("of those that a delta names, after the revision before it and not after its own", () => {
  const news = new News();
  news.note(5, undefined);
  news.note(6, delta(["acme"], { deletes: [key("gone")] }));
  const after = (name: string) => [4, 5, 6].map((revision) => news.isAfter(key(name), revision));
  expect(after("acme")).toEqual([true, true, false]);
  expect(after("gone")).toEqual([true, true, false]);
  expect(after("globex")).toEqual([true, false, false]);
});

test("of everything, when a whole table came or keyspaces changed", () => {
  const news = new News();
  for (const [revision, one] of [
    [7, undefined],
    [8, delta([], { keyspaces: [] })],
  ] as const) {
    news.note(revision, one);
    expect(news.isAfter(key("globex"), revision - 1)).toBe(true);
    expect(news.isAfter(key("globex"), revision)).toBe(false);
  }
});

test("what is forgotten counts as spoken of", () => {
  const news = new News();
  news.note(2, delta(["acme"]));
  for (let nth = 0; nth < 5; nth += 1) {
    news.note(3 + nth, delta(Array.from({ length: 1000 }, (_one, at) => `t-${nth}-${at}`)));
  }
  expect(news.isAfter(key("acme"), 1)).toBe(true);
  expect(news.isAfter(key("acme"), 7)).toBe(false);
});
