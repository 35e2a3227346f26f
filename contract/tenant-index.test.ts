/** The dense index against a `Map`, also where hashes collide on purpose. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { tagOf } from "./half-sip-hash.ts";
import type { CellId, Epoch } from "./ids.ts";
import type { Route } from "./keyspace-routes.ts";
import { TenantIndex } from "./tenant-index.ts";

const route = (cell: string, epoch = 1): Route => ({
  cell: cell as CellId,
  epoch: epoch as Epoch,
  state: "active",
});

/** `set` with a cell, `delete` without. */
const steps = (id: fc.Arbitrary<string>) =>
  fc.array(fc.tuple(id, fc.option(fc.constantFrom("a", "b", "c"))), { maxLength: 400 });

function compare(list: ReadonlyArray<readonly [string, string | null]>): void {
  const index = new TenantIndex([7, 9]);
  const model = new Map<string, Route>();
  for (const [id, cell] of list) {
    if (cell === null) expect(index.delete(id)).toBe(model.delete(id));
    else {
      index.set(id, route(cell));
      model.set(id, route(cell));
    }
    expect(index.size).toBe(model.size);
  }
  for (const [id] of list) expect(index.get(id)).toEqual(model.get(id));
  expect(new Map(index.entries())).toEqual(model);
}

test("it is a map, whatever is set and deleted", () => {
  fc.assert(fc.property(steps(fc.stringMatching(/^[a-z0-9]{1,3}$/)), compare), { numRuns: 300 });
});

test("it is a map where many ids want the same few slots", () => {
  // Ids whose hash begins with the same four bits: one long cluster that wraps around the end.
  const wanted = 15;
  const ids: string[] = [];
  for (let nth = 0; ids.length < 60; nth += 1) {
    const id = `t${nth}`;
    if (tagOf([7, 9], id) >>> 28 === wanted) ids.push(id);
  }
  fc.assert(fc.property(steps(fc.constantFrom(...ids)), compare), { numRuns: 300 });
});

test("it grows, forgets what is deleted, and stays exact for a hundred thousand", () => {
  const index = new TenantIndex([1, 2]);
  const id = (nth: number) => `tenant-${nth}`;
  const count = 100_000;
  for (let nth = 0; nth < count; nth += 1) index.set(id(nth), route(`c${nth % 7}`, 1 + (nth % 3)));
  for (let nth = 0; nth < count; nth += 2) expect(index.delete(id(nth))).toBe(true);
  for (let nth = 0; nth < count; nth += 4) index.set(id(nth), route("back"));
  let wrong = 0;
  for (let nth = 0; nth < count; nth += 1) {
    const got = index.get(id(nth));
    const cell = nth % 4 === 0 ? "back" : nth % 2 === 0 ? undefined : `c${nth % 7}`;
    if (got?.cell !== cell) wrong += 1;
  }
  expect([wrong, index.size]).toEqual([0, 75_000]);
});

test("a table whose tenants all come and go does not grow without end", () => {
  const index = new TenantIndex([1, 2]);
  const id = (round: number, nth: number) => `round-${round}-tenant-${nth}`;
  for (let round = 0; round < 40; round += 1) {
    for (let nth = 0; nth < 500; nth += 1) {
      index.set(id(round, nth), route(`c${round}`));
      if (round > 0) expect(index.delete(id(round - 1, nth))).toBe(true);
    }
    for (let nth = 0; nth < 500; nth += 1)
      expect(index.get(id(round, nth))?.cell).toBe(`c${round}`);
    expect(index.size).toBe(500);
  }
  expect(index.bytes).toBeLessThan(200_000);
});

test("an id that is not ASCII equals nothing that is stored", () => {
  const index = new TenantIndex([1, 2]);
  index.set("A", route("a"));
  expect(index.get("\u0141")).toBeUndefined();
  expect(index.get("")).toBeUndefined();
});

test("the hash is HalfSipHash-1-3 in its shape: every bit of key and text counts", () => {
  const base = tagOf([1, 2], "tenant");
  const others = [
    tagOf([1, 3], "tenant"),
    tagOf([0, 2], "tenant"),
    tagOf([1, 2], "tenanu"),
    tagOf([1, 2], "tenan"),
  ];
  expect(new Set([base, ...others]).size).toBe(5);
  expect(tagOf([1, 2], "tenant")).toBe(base);
});
