/**
 * Rule 4 against a list that really grows: whatever readers ask for and however long answers take, what a
 * real list shows is green, and one read that shows another moment than it may is red.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { checkHistory } from "./check.ts";
import type { Entry } from "./model.ts";

type Spec = {
  readonly kind: "write" | "list";
  readonly before: number;
  readonly after: number;
  readonly answered: boolean;
  /** Of a list: how many of the newest ids are shown; 0: all. */
  readonly page: number;
};

const specs = fc.array(
  fc.record({
    kind: fc.constantFrom("write" as const, "list" as const),
    before: fc.integer({ min: 0, max: 40 }),
    after: fc.integer({ min: 0, max: 40 }),
    answered: fc.boolean(),
    page: fc.integer({ min: 0, max: 4 }),
  }),
  { minLength: 2, maxLength: 60 },
);

/** Ids in an order that has nothing to do with time: half come from another cell's range. */
const idOf = (n: number): number => (n % 2 === 0 ? n : 1000 - n);
const by = { cell: "cell-01", epoch: 1 };

/** Each operation takes effect at one moment; `stale` reads show what was there that many moments ago. */
function historyOf(all: readonly Spec[], stale: (n: number) => number = () => 0): Entry[] {
  const written: number[][] = [[]];
  for (const [n, { kind }] of all.entries()) {
    const now = written[n] ?? [];
    written.push(kind === "write" ? [...now, n] : now);
  }
  const timed = all.flatMap(({ kind, before, after, answered, page }, n): Entry[] => {
    const [at, end, process] = [n * 10 - before, n * 10 + after, `p${n}`];
    if (kind === "write") {
      const sent: Entry = { kind: "invoke", at, process, tenant: "acme", value: `v${n}` };
      return answered ? [sent, { kind: "ok", at: end, process, ref: `${idOf(n)}`, ...by }] : [sent];
    }
    const there = (written[Math.max(0, n - stale(n))] ?? []).toSorted((a, b) => idOf(b) - idOf(a));
    const shown = page === 0 || there.length < page ? there : there.slice(0, page);
    const from = shown.length === there.length ? null : idOf(shown.at(-1) ?? 0);
    const seen = shown.map((one) => ({ value: `v${one}`, ref: `${idOf(one)}` }));
    const asked: Entry = { kind: "list", at, process, tenant: "acme" };
    return answered ? [asked, { kind: "listed", at: end, process, from, seen, ...by }] : [asked];
  });
  const timeOf = (entry: Entry) => ("at" in entry ? entry.at : 0);
  const present = (written.at(-1) ?? []).map((n): Entry => {
    return { kind: "present", tenant: "acme", value: `v${n}`, cell: "c", ref: `${idOf(n)}` };
  });
  return [
    { kind: "head", format: "cellfleet.history", version: 2, run: "test" },
    ...timed.toSorted((a, b) => timeOf(a) - timeOf(b)),
    ...present,
    { kind: "read", tenant: "acme" },
  ];
}

const readKinds = new Set(["stale-read", "went-back", "forked-read"]);
const readFaults = (entries: readonly Entry[]) =>
  checkHistory(entries).violations.filter(({ kind }) => readKinds.has(kind));

test("what a real list shows is green, in pages of any size, answered at any time", () => {
  fc.assert(
    fc.property(specs, (all) => {
      const { violations } = checkHistory(historyOf(all));
      expect(violations.filter(({ kind }) => kind !== "vacuous")).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

test("a read of the past is red when something had been acknowledged since", () => {
  fc.assert(
    fc.property(specs, (some) => {
      const told: Spec = { kind: "write", before: 0, after: 0, answered: true, page: 0 };
      const all = [...some, told, { ...told, kind: "list" as const }];
      expect(readFaults(historyOf(all))).toEqual([]);
      const late = historyOf(all, (n) => (n === all.length - 1 ? 1 : 0));
      expect(readFaults(late)).toMatchObject([{ value: `v${all.length - 2}` }]);
    }),
  );
});

test("a page that ends above an id says nothing of it", () => {
  const told: Spec = { kind: "write", before: 0, after: 0, answered: true, page: 0 };
  // Ids 0 and 999: a page of one shows the second only.
  expect(readFaults(historyOf([told, told, { ...told, kind: "list", page: 1 }]))).toEqual([]);
});

test("a read that shows a later write shows what was there before it", () => {
  const open = (process: string, at: number): Entry => ({
    kind: "invoke",
    at,
    process,
    tenant: "acme",
    value: process,
  });
  const entries: Entry[] = [
    { kind: "list", at: 0, process: "reader", tenant: "acme" },
    open("first", 1),
    { kind: "ok", at: 2, process: "first", ref: "1", ...by },
    open("second", 3),
    {
      kind: "listed",
      at: 4,
      process: "reader",
      from: null,
      seen: [{ value: "second", ref: "2" }],
      ...by,
    },
  ];
  expect(readFaults(entries)).toMatchObject([{ kind: "stale-read", value: "first" }]);
});

test("what a report names may vanish from reads, and nothing else may", () => {
  const told: Spec = { kind: "write", before: 0, after: 0, answered: true, page: 0 };
  const read: Spec = { ...told, kind: "list" };
  const before = historyOf([told, told, read]);
  const lost = (value: string): Entry => ({ kind: "reported-lost", tenant: "acme", value });
  const after: Entry[] = [
    { kind: "list", at: 1e6, process: "p2", tenant: "acme" },
    {
      kind: "listed",
      at: 1e6,
      process: "p2",
      from: null,
      seen: [{ value: "v0", ref: "0" }],
      ...by,
    },
  ];
  const entries = [...before.slice(0, -3), ...after];
  expect(readFaults([...entries, lost("v1")])).toEqual([]);
  expect(readFaults([...entries, lost("v0")])).toMatchObject([{ kind: "went-back", value: "v1" }]);
});
