/** What several stores of one cell say together: the decisions, without databases. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ownershipStates } from "../../../contract/cell-protocol.ts";
import type { DatabaseFacts } from "../../store/facts.ts";
import type { OwnedKey } from "../../store/ownership.ts";
import { withoutStandbys } from "../../store/standby-facts.fixture.ts";
import type { Placement } from "../placement.ts";
import type { Purged } from "../purger.ts";
import { factsOfAll } from "./facts-of-all.ts";
import { nameInCell, nameInStore } from "./names.ts";
import { duePurges } from "./purges.ts";
import { readKeysOfAll } from "./report-of-all.ts";
import { parseStores } from "./store-flags.ts";
import { strictestPlacement, strictestStage } from "./strictest.ts";

const placements: fc.Arbitrary<Placement | undefined> = fc.option(
  fc.record({ state: fc.constantFrom(...ownershipStates), epoch: fc.integer({ min: 1, max: 3 }) }),
  { nil: undefined },
);
const joined = (all: readonly (Placement | undefined)[]): Placement | undefined =>
  all.reduce((one, other) => strictestPlacement(one, other));
/** As the gate asks: may a request with this epoch pass, and does an override stand in its way? */
const serves = (one: Placement | undefined, epoch: number): boolean =>
  one?.state === "active" && one.epoch === epoch;
const isOverride = (one: Placement | undefined): boolean =>
  one !== undefined && one.state !== "dropped";

describe("a key", () => {
  test("is served at an epoch exactly if every store would serve it there, in any order", () => {
    fc.assert(
      fc.property(
        fc.array(placements, { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 3 }),
        (all, epoch) => {
          const wanted = all.every((one) => serves(one, epoch));
          expect(serves(joined(all), epoch)).toBe(wanted);
          expect(serves(joined(all.toReversed()), epoch)).toBe(wanted);
        },
      ),
    );
  });

  test("of a tenant above a container stands in the way if it does in any store", () => {
    fc.assert(
      fc.property(fc.array(placements, { minLength: 1, maxLength: 4 }), (all) => {
        expect(isOverride(joined(all))).toBe(all.some(isOverride));
      }),
    );
  });
});

test("of two stages the one that refuses more counts", () => {
  expect(strictestStage(["observe", "enforce", "pass-through"])).toBe("enforce");
  expect(strictestStage(["pass-through", "observe"])).toBe("observe");
});

describe("facts", () => {
  const facts = (some: Partial<DatabaseFacts>): DatabaseFacts => ({
    ...{ cell: "cell-01", systemIdentifier: "1", timeline: 1, boot: "b", clock: "c", grant: 7 },
    lease: { live: true, remainingMs: 1, grant: 7 },
    ...{ epochMax: 3, appliedRevision: 9, inRecovery: false, stage: "enforce", stageNumber: 4 },
    ...{ wouldRefuse: {}, guardedTables: 2, schemaVersion: null },
    standby: withoutStandbys,
    ...some,
  });
  const of = (first: Partial<DatabaseFacts>, second: Partial<DatabaseFacts>): DatabaseFacts =>
    factsOfAll([
      { name: "", facts: facts(first) },
      { name: "billing", facts: facts(second) },
    ]);

  test("of one store are its own", () => {
    const one = facts({ schemaVersion: "12" });
    expect(factsOfAll([{ name: "", facts: one }])).toBe(one);
  });

  test("of several present the least that is applied, and the most that was seen of an epoch", () => {
    expect(
      of({ appliedRevision: 9, epochMax: 3 }, { appliedRevision: 4, epochMax: 8 }),
    ).toMatchObject({ appliedRevision: 4, epochMax: 8, guardedTables: 4 });
    expect(
      of({ wouldRefuse: { CF001: 2 } }, { wouldRefuse: { CF001: 1, CF004: 5 } }),
    ).toMatchObject({
      wouldRefuse: { CF001: 3, CF004: 5 },
    });
  });

  test("present the lower grant, of stores that ever had one", () => {
    expect(of({ grant: 7 }, { grant: 5 }).grant).toBe(5);
    expect(of({ grant: 7 }, { grant: 0 }).grant).toBe(7);
    expect(of({ grant: 0 }, { grant: 0 }).grant).toBe(0);
  });

  test("claim a stage only when the last store has come to it, and `enforce` last of all", () => {
    const behind = { stage: "observe", stageNumber: 3 } as const;
    expect(of({}, behind)).toMatchObject(behind);
    expect(of(behind, {})).toMatchObject(behind);
    expect(of({}, { stage: "observe", stageNumber: 4 }).stage).toBe("observe");
  });

  test("tell the versions of all schemas, and never more than the contract takes", () => {
    expect(of({}, {}).schemaVersion).toBeNull();
    expect(of({ schemaVersion: "12" }, { schemaVersion: "7" }).schemaVersion).toBe(
      "default=12,billing=7",
    );
    const long = of({ schemaVersion: "x".repeat(60) }, { schemaVersion: "1" }).schemaVersion ?? "";
    expect(long.length).toBeLessThanOrEqual(64);
    expect(of({ schemaVersion: "x".repeat(60) }, { schemaVersion: "2" }).schemaVersion).not.toBe(
      long,
    );
  });
});

test("a name of one store is no name of another", () => {
  for (const name of ["public.orders_id_seq", '"a/b".seq', '"Shop".t']) {
    for (const store of ["", "billing", "a"]) {
      const told = nameInCell(store, name);
      expect(["", "billing", "a"].filter((one) => nameInStore(one, told) !== undefined)).toEqual([
        store,
      ]);
      expect(nameInStore(store, told)).toBe(name);
    }
  }
});

test("a purge is told when every store has finished that very command", () => {
  const purge = (attempt: number, rows: Purged["rows"]): Purged =>
    ({ key: "default/tenant/acme", op: "op_1", attempt, rows }) as Purged;
  const stores = (first: readonly Purged[], second: readonly Purged[]) =>
    [first, second].map((due, at) => ({
      name: at === 0 ? "" : "billing",
      purger: { due: () => [...due], reported: () => {} },
    }));
  expect(duePurges(stores([purge(0, {})], []))).toEqual([]);
  expect(duePurges(stores([purge(0, {})], [purge(1, {})]))).toEqual([]);
  expect(duePurges(stores([purge(1, { "public.t": 2 })], [purge(1, { "public.t": 3 })]))).toEqual([
    purge(1, { "public.t": 2, "billing/public.t": 3 }),
  ]);
});

test("pages of a report name every key of any store once, at its highest epoch", async () => {
  const row = (tenant: string, epoch: number, state: OwnedKey["state"] = "active"): OwnedKey => ({
    ...{ key: `default/tenant/${tenant}`, state, epoch, revision: 1, change: 1 },
  });
  const reader = (rows: readonly OwnedKey[]) => async (after: string, limit: number) =>
    rows.filter(({ key }) => key > after).slice(0, limit);
  const read = [
    reader([row("a", 1), row("c", 2), row("d", 2, "fenced"), row("e", 1)]),
    reader([row("b", 1), row("c", 3), row("d", 2), row("f", 1)]),
  ];
  const all: OwnedKey[] = [];
  for (let after = "", more = true; more; ) {
    const page = await readKeysOfAll(read, after, 2);
    all.push(...page);
    after = page.at(-1)?.key ?? after;
    more = page.length === 2;
  }
  expect(all).toEqual([
    ...[row("a", 1), row("b", 1), row("c", 3), row("d", 2, "fenced"), row("e", 1), row("f", 1)],
  ]);
});

describe("--store", () => {
  test("names further databases, in one order for every agent", () => {
    expect(parseStores(["shop=env:SHOP", "billing=file:/b=1"], "env:MAIN")).toEqual({
      stores: [
        { name: "billing", databaseUrl: "file:/b=1" },
        { name: "shop", databaseUrl: "env:SHOP" },
      ],
      problems: [],
    });
  });

  test("that is wrong is told, and never repeated", () => {
    const wrong = (...flags: readonly string[]) => parseStores(flags, "env:MAIN").problems.join();
    expect(wrong("default=env:A")).toContain("is the store of --database-url");
    expect(wrong("a=env:A", "a=env:B")).toContain("a is named twice");
    expect(wrong("a=env:MAIN")).toContain("the same database as another store");
    expect(wrong("a=env:A", "b=env:A")).toContain("the same database as another store");
    const secret = wrong("billing=postgres://u:hunter2@h/d");
    expect(secret).toContain("must be NAME=REF");
    expect(secret).not.toContain("hunter2");
    expect(wrong("env:A")).toContain("must be NAME=REF");
  });
});
