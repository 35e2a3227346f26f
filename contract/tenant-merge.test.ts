/** Image, merge and changes together against a `Map`: under small limits, so that merges happen all the time. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { tagOf } from "./half-sip-hash.ts";
import type { CellId, Epoch } from "./ids.ts";
import type { Route } from "./keyspace-routes.ts";
import { TenantIndex } from "./tenant-index.ts";

const key = [7, 9] as const;
const limits = { changesMin: 4, changesMax: 16, fillMax: 8 };
const route = (cell: string): Route => ({
  cell: cell as CellId,
  epoch: 1 as Epoch,
  state: "active",
});

type Step =
  | { readonly kind: "set"; readonly id: string; readonly cell: string }
  | { readonly kind: "delete"; readonly id: string }
  | { readonly kind: "settle"; readonly buckets: number }
  /** As after a restart: the image and the changes are all there is. */
  | { readonly kind: "reopen"; readonly owns: boolean };

const stepsOf = (id: fc.Arbitrary<string>): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.oneof(
      {
        weight: 10,
        arbitrary: fc.record({
          kind: fc.constant("set" as const),
          id,
          cell: fc.constantFrom("a", "b", "c", "d"),
        }),
      },
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("delete" as const), id }) },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant("settle" as const),
          buckets: fc.constantFrom(1, 2, Number.POSITIVE_INFINITY),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant("reopen" as const), owns: fc.boolean() }),
      },
    ),
    { maxLength: 300 },
  );

function run(steps: readonly Step[], strangers: readonly string[]): void {
  let index = new TenantIndex(key, limits);
  const model = new Map<string, Route>();
  const asked = new Set(strangers);
  for (const step of steps) {
    if (step.kind === "settle") index.settle(step.buckets);
    else if (step.kind === "reopen") {
      index = TenantIndex.fromShared(key, structuredClone(index.share()), {
        owns: step.owns,
        limits,
      });
    } else {
      asked.add(step.id);
      if (step.kind === "delete") expect(index.delete(step.id)).toBe(model.delete(step.id));
      else {
        index.set(step.id, route(step.cell));
        model.set(step.id, route(step.cell));
      }
      expect(index.get(step.id)).toEqual(model.get(step.id));
    }
    expect(index.size).toBe(model.size);
  }
  for (const id of asked) expect(index.get(id)).toEqual(model.get(id));
  expect(new Map(index.entries())).toEqual(model);
  expect([...index.entries()].length).toBe(model.size);
  const cells = (routes: Iterable<Route>) => new Set([...routes].map(({ cell }) => cell));
  expect(cells(index.values())).toEqual(cells(model.values()));
}

const uuid = fc.uuid().chain((id) => fc.constantFrom(id, id.toUpperCase(), id.slice(0, 35)));
const anyId = fc.oneof(
  fc.stringMatching(/^[a-z0-9]{1,2}$/),
  fc.constantFrom("x".repeat(128), "x".repeat(127), `${"x".repeat(127)}y`),
  uuid,
);

test("it is a map, whatever is set, deleted, merged, shared and opened again", () => {
  fc.assert(
    fc.property(stepsOf(anyId), (steps) => run(steps, ["A", "", "ÿ", "Ł", "x".repeat(300)])),
    {
      numRuns: 400,
    },
  );
});

test("ids that share the checked byte and the bucket of the image are told apart", () => {
  // A byte of the hash stands in the image and its first bits choose the bucket: all alike here, and so
  // high that the changes run over the end of their slots.
  const ids: string[] = [];
  for (let nth = 0; ids.length < 24; nth += 1) {
    const tag = tagOf(key, `t${nth}`);
    if ((tag & 255) === 77 && tag >>> 29 === 7) ids.push(`t${nth}`);
  }
  const [known = []] = [ids.slice(0, 12)];
  fc.assert(
    fc.property(stepsOf(fc.constantFrom(...known)), (steps) => run(steps, ids)),
    {
      numRuns: 200,
    },
  );
});

test("a UUID and what only looks like it are different tenants", () => {
  const id = "0b1c9f4e-52a7-4c0d-9d5e-aa00bb11cc22";
  const others = [id.toUpperCase(), id.replaceAll("-", ":"), `${id.slice(0, 35)}g`, id.slice(1)];
  for (const kept of [id, ...others]) {
    const index = new TenantIndex(key, { ...limits, changesMin: 1 });
    index.set(kept, route("a"));
    while (!index.settle(1));
    for (const asked of [id, ...others]) {
      expect(index.get(asked)?.cell).toBe(asked === kept ? "a" : undefined);
    }
    expect([...index.entries()].map(([one]) => one)).toEqual([kept]);
  }
});

test("ten thousand tenants merged little by little: images follow each other, memory stays small", () => {
  const index = new TenantIndex(key, { changesMin: 64, changesMax: 256, fillMax: 512 });
  const id = (nth: number) => `tenant-${nth}`;
  for (let nth = 0; nth < 10_000; nth += 1) index.set(id(nth), route(`c${nth % 7}`));
  while (!index.settle(50));
  const { generation } = index;
  for (let nth = 0; nth < 10_000; nth += 2) expect(index.delete(id(nth))).toBe(true);
  for (let nth = 0; nth < 10_000; nth += 4) index.set(id(nth), route("back"));
  expect(index.generation).toBeGreaterThan(generation + 5);
  let wrong = 0;
  for (let nth = 0; nth < 10_000; nth += 1) {
    const cell = nth % 4 === 0 ? "back" : nth % 2 === 0 ? undefined : `c${nth % 7}`;
    if (index.get(id(nth))?.cell !== cell) wrong += 1;
  }
  expect([wrong, index.size]).toEqual([0, 7500]);
  while (!index.settle(Number.POSITIVE_INFINITY));
  expect(index.bytes / index.size).toBeLessThan(32);
});

test("a table that follows another's image makes none of its own", () => {
  const index = new TenantIndex(key, limits);
  for (let nth = 0; nth < 100; nth += 1) index.set(`t${nth}`, route("a"));
  const follower = TenantIndex.fromShared(key, index.share(), { owns: false, limits });
  for (let nth = 0; nth < 100; nth += 1) follower.set(`t${nth}`, route("b"));
  expect([follower.generation, follower.get("t7")?.cell]).toEqual([0, "b"]);
  // The same memory is read by both, so nothing of this may be seen in the other.
  expect(index.get("t7")?.cell).toBe("a");
});
