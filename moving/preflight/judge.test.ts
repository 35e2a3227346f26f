/** What is made of facts, case by case. */
import { describe, expect, it } from "vitest";
import { cellIdSchema, epochSchema, opIdSchema } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import type { MoveTask } from "../ports.ts";
import { estimateMove } from "./estimate.ts";
import type { StoreFacts } from "./facts.ts";
import { judgeMove } from "./judge.ts";

const op = opIdSchema.parse("op_1move000001");
const key = placementKeySchema.parse("default/tenant/acme");
const login = { cell: cellIdSchema.parse("a"), store: "main", url: "" };
const task: MoveTask = {
  op,
  attempt: 1,
  keyspace: {
    name: "default" as MoveTask["keyspace"]["name"],
    strategy: "directory",
    guardMode: "row",
  },
  keys: [{ key, epoch: epochSchema.parse(3), until: null, overrides: [] }],
  source: cellIdSchema.parse("a"),
  target: cellIdSchema.parse("b"),
  stores: [{ name: "main", source: login, target: login }],
  external: [],
  reverses: null,
};

type Pack = NonNullable<StoreFacts["pack"]>;
const pack = (more: Partial<Pack>): Pack => ({
  cell: "a",
  encoding: "UTF8",
  leaseLive: true,
  stage: "enforce",
  schemaVersion: null,
  keyspace: { strategy: "directory", slotCount: null },
  ownership: [],
  unclassed: [],
  keyTransactions: [],
  otherPublications: [],
  tables: [],
  sizes: [],
  schema: "",
  ...more,
});
const facts = (more: Partial<StoreFacts>): StoreFacts => ({
  version: 180_004,
  versionName: "18.4",
  inRecovery: false,
  walLevel: "logical",
  slots: { used: 1, max: 10 },
  senders: { used: 1, max: 10 },
  workers: { used: 1, max: 4 },
  strainedSlots: [],
  slotBytesMax: null,
  walBytesPerSecond: 1_000_000,
  role: {
    name: "cellfleet_mover",
    replicates: true,
    bypassesRowSecurity: true,
    maySubscribe: true,
    maySetReplicationRole: true,
    mayCreate: true,
    actsForPack: true,
  },
  packInstalled: true,
  longTransactions: [],
  pack: pack({}),
  ...more,
});
const owned = [{ key, state: "active" as const, epoch: 3, op: "op_0" }];
const sourceFacts = (more: Partial<StoreFacts> = {}, packMore: Partial<Pack> = {}) =>
  facts({ pack: pack({ ownership: owned, ...packMore }), ...more });
const targetFacts = (more: Partial<StoreFacts> = {}, packMore: Partial<Pack> = {}) =>
  facts({ pack: pack({ cell: "b", ...packMore }), ...more });

function found(
  source: StoreFacts,
  target: StoreFacts,
  options: { readonly task?: Partial<MoveTask>; readonly copyMs?: number } = {},
): string[] {
  const stores = [{ name: "main", source: { facts: source }, target: { facts: target } }];
  return judgeMove({ ...task, ...options.task }, stores, options.copyMs ?? 1000)
    .filter(({ verdict }) => verdict !== "ok")
    .map(({ verdict, id, cell }) => `${verdict} ${id} ${cell}`);
}

describe("a fit pair", () => {
  it("has only good checks, each with its place", () => {
    const checks = judgeMove(
      task,
      [{ name: "main", source: { facts: sourceFacts() }, target: { facts: targetFacts() } }],
      1000,
    );
    expect(checks.filter(({ verdict }) => verdict !== "ok")).toEqual([]);
    expect(new Set(checks.map(({ cell }) => cell))).toEqual(new Set(["a", "b"]));
    const places = checks.map(({ id, cell, store }) => `${id} ${cell} ${store}`);
    expect(new Set(places).size).toBe(places.length);
  });
});

describe("the server", () => {
  it.each<[string, Partial<StoreFacts>, string]>([
    ["an old version", { version: 150_018, pack: undefined }, "refused version a"],
    ["a standby", { inRecovery: true }, "refused primary a"],
    ["no logical log", { walLevel: "replica" }, "refused wal-level a"],
    ["no slot free", { slots: { used: 10, max: 10 } }, "refused slots a"],
    ["no sender free", { senders: { used: 10, max: 10 } }, "refused wal-senders a"],
    ["no worker free", { workers: { used: 4, max: 4 } }, "refused workers a"],
    ["a lost slot", { strainedSlots: ["old"] }, "warning wal-room a"],
    ["no pack", { packInstalled: false, pack: undefined }, "refused pack a"],
    [
      "a role that may not act for the pack",
      { role: { ...facts({}).role, actsForPack: false }, pack: undefined },
      "refused mover-rights a",
    ],
    [
      "a transaction that stays open",
      { longTransactions: [{ pid: 7, seconds: 90, user: "shop" }] },
      "warning long-transactions a",
    ],
  ])("%s", (_, more, expected) => {
    const withPack = "pack" in more ? more : { ...more, pack: sourceFacts().pack };
    expect(found(facts(withPack), targetFacts())).toEqual([expected]);
  });

  it("keeps more log while a large tenant is copied than a slot may keep", () => {
    const tight = { slotBytesMax: 64_000_000 };
    expect(found(sourceFacts(tight), targetFacts(), { copyMs: 20_000 })).toEqual([]);
    expect(found(sourceFacts(tight), targetFacts(), { copyMs: 60_000 })).toEqual([
      "refused wal-room a",
    ]);
  });

  it("is told of every right that is missing, with what grants it", () => {
    const role = { ...facts({}).role, name: "my mover", replicates: false, maySubscribe: false };
    const stores = [
      { name: "main", source: { facts: sourceFacts({ role }) }, target: { facts: targetFacts() } },
    ];
    const check = judgeMove(task, stores, 0).find(({ verdict }) => verdict === "refused");
    expect(check?.fix).toBe(
      'alter role "my mover" replication; grant pg_create_subscription to "my mover";',
    );
  });
});

describe("ownership", () => {
  it.each<[string, Pack["ownership"]]>([
    ["absent", []],
    ["fenced", [{ key, state: "fenced", epoch: 3, op: "op_0" }]],
    ["at another epoch", [{ key, state: "active", epoch: 4, op: "op_0" }]],
  ])("refuses a source where the key is %s", (_, ownership) => {
    expect(found(sourceFacts({}, { ownership }), targetFacts())).toEqual(["refused owner a"]);
  });

  it.each<[string, Pack["ownership"], string[]]>([
    ["active", [{ key, state: "active", epoch: 2, op: "op_0" }], ["refused not-owner b"]],
    ["fenced", [{ key, state: "fenced", epoch: 2, op: "op_0" }], ["refused not-owner b"]],
    [
      "another move's",
      [{ key, state: "importing", epoch: 3, op: "op_0" }],
      ["refused not-owner b"],
    ],
    [
      "ahead of the source",
      [{ key, state: "moved", epoch: 4, op: "op_0" }],
      ["refused not-owner b"],
    ],
    ["this move's own already", [{ key, state: "importing", epoch: 3, op }], []],
    ["what was here before", [{ key, state: "moved", epoch: 2, op: "op_0" }], []],
    ["what was dropped", [{ key, state: "dropped", epoch: 1, op: "op_0" }], []],
  ])("judges a target where the key is %s", (_, ownership, expected) => {
    expect(found(sourceFacts(), targetFacts({}, { ownership }))).toEqual(expected);
  });
});

describe("what stands on the target", () => {
  const sizes = [{ table: "public.orders", rows: 3, bytes: 300, exact: true }];

  it("is told, and removed", () => {
    expect(found(sourceFacts(), targetFacts({}, { sizes }))).toEqual(["warning residue b"]);
  });

  it("is expected where the way back of another move has kept it up", () => {
    const reverses = opIdSchema.parse("op_1move000000");
    expect(found(sourceFacts(), targetFacts({}, { sizes }), { task: { reverses } })).toEqual([]);
  });
});

describe("both sides", () => {
  it("refuses a keyspace that the cell knows otherwise, or not yet", () => {
    expect(found(sourceFacts(), targetFacts({}, { keyspace: null }))).toEqual([
      "refused keyspace b",
    ]);
    const slots = { strategy: "slots", slotCount: 64 };
    expect(found(sourceFacts(), targetFacts({}, { keyspace: slots }))).toEqual([
      "refused keyspace b",
    ]);
  });

  it("refuses a version that only one of them has recorded", () => {
    expect(found(sourceFacts({}, { schemaVersion: "7" }), targetFacts())).toEqual([
      "refused schema-version b",
    ]);
  });

  it("refuses a target without a lease, and does not ask the source for one", () => {
    expect(found(sourceFacts(), targetFacts({}, { leaseLive: false }))).toEqual([
      "refused lease b",
    ]);
    expect(found(sourceFacts({}, { leaseLive: false }), targetFacts())).toEqual([]);
  });

  it("refuses two encodings", () => {
    expect(found(sourceFacts(), targetFacts({}, { encoding: "LATIN1" }))).toEqual([
      "refused encoding b",
    ]);
  });

  it("refuses a move without a store in common", () => {
    expect(judgeMove(task, [], 0)).toMatchObject([{ id: "stores", verdict: "refused" }]);
  });

  it("says why a database could not be looked at, and judges no more of it", () => {
    const stores = [
      { name: "main", source: { facts: sourceFacts() }, target: { unreachable: "gone" } },
    ];
    const checks = judgeMove(task, stores, 0).filter(({ cell }) => cell === "b");
    expect(checks).toMatchObject([{ id: "reachable", verdict: "refused", text: "gone" }]);
  });
});

it("estimates by what was measured: 1 MB in some 60 ms, 100 MB in some 1.4 s", () => {
  const of = (bytes: number) =>
    estimateMove([{ store: "main", table: "t", rows: 1, bytes }], 1).copyMs;
  expect(of(1_000_000)).toBe(63);
  expect(of(100_000_000)).toBe(1332);
});
