/** A turn takes effect whole or not at all, once, and only for the leader of the last term. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { must } from "../../runtime/assert.ts";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { openCell } from "../control.fixture.ts";
import type { OpView } from "../core/fleet.ts";
import type { Effect, OpTurn } from "../core/ops/machine.ts";
import { onePlan } from "../core/ops/machine.ts";
import { type Database, openDatabase, prepareDatabase } from "./database.ts";
import { applyLightTurns, applyNote, applyTurn, isLight } from "./effects.ts";
import { takeSeat } from "./leader.ts";
import { findOp, insertOp, toOpView } from "./ops.ts";
import { insertPending, reserve } from "./placements.ts";
import { changeRouting } from "./routing-change.ts";
import { cell, event, fleet, leader, op as opTable, placement, tenant } from "./schema.ts";
import { insertTenant } from "./tenants.ts";

let postgres: TestPostgres;
let database: Database;
let term: number;
let databases = 0;

beforeAll(async () => {
  postgres = await startTestPostgres();
});
beforeEach(async () => {
  await database?.close();
  databases += 1;
  const url = await postgres.createDatabase(`effects${databases}`);
  database = openDatabase({ url, onConnectionError: () => undefined });
  await prepareDatabase(database, systemRandom);
  await openCell(database, "cell-01");
  await openCell(database, "cell-02");
  term = must(await takeSeat(database, "me", 60_000), "term");
});
afterAll(async () => {
  await database?.close();
  await postgres?.stop();
});

const record = (kind: "cell.cordon" | "cell.destroy" | "tenant.create", object: string) =>
  database.transaction((tx) =>
    insertOp(tx, {
      id: `op_${systemRandom.hex(8)}`,
      kind,
      object,
      step: "first",
      state: "running",
      headline: "recorded",
      plan: onePlan(kind, []),
      input: {},
      actor: "me",
      reason: "",
      revision: null,
      nowMs: 1_700_000_000_000,
      deadlineMs: undefined,
    }),
  );
const readOp = async (id: string): Promise<OpView> =>
  toOpView(must(await findOp(database.read, id), "operation"));
const turn = (effects: readonly Effect[]): Extract<OpTurn, { kind: "go" }> => ({
  kind: "go",
  from: "first",
  event: "went",
  to: "second",
  state: "done",
  headline: "it went",
  effects,
});
const apply = (op: OpView, effects: readonly Effect[], as = term) =>
  applyTurn(database, { term: as, nowMs: 1_700_000_001_000 }, op, turn(effects));
const cordon: Effect = { kind: "cell-state", cell: "cell-01", from: ["active"], to: "cordoned" };

const everything = async () =>
  JSON.stringify([
    await database.read.select().from(cell).orderBy(cell.id),
    await database.read.select().from(placement),
    await database.read.select().from(tenant),
    await database.read.select().from(event),
    await database.read.select({ revision: fleet.revision }).from(fleet),
  ]);

test("the turn, its effects and its event are one", async () => {
  const op = await readOp((await record("cell.cordon", "cell-01")).id);
  expect(await apply(op, [cordon])).toBe("applied");
  expect(await readOp(op.id)).toMatchObject({ state: "done", step: "second", version: 2 });
  const [row] = await database.read.select().from(cell).where(eq(cell.id, "cell-01"));
  expect(row).toMatchObject({ state: "cordoned", goal: "cordoned" });
  expect(await database.read.select().from(event)).toMatchObject([{ kind: "op.done" }]);
});

test("an older term changes nothing: neither a turn nor a note", async () => {
  const op = await readOp((await record("cell.cordon", "cell-01")).id);
  await database.read.update(leader).set({ term: term + 1, holder: "another" });
  const before = await everything();
  expect(await apply(op, [cordon])).toBe("deposed");
  const who = { term, nowMs: 0 };
  expect(await applyNote(database, who, op, { headline: "I am back" })).toBe("deposed");
  expect(await everything()).toBe(before);
  expect(await readOp(op.id)).toEqual(op);
});

test("a turn decided on an older version leaves none of its effects behind", async () => {
  const op = await readOp((await record("cell.cordon", "cell-01")).id);
  await applyNote(database, { term, nowMs: 0 }, op, { headline: "somebody was faster" });
  const before = await everything();
  expect(await apply(op, [cordon, { kind: "publish" }])).toBe("raced");
  expect(await everything()).toBe(before);
});

test("ten at once: one applies, the others find that they raced", async () => {
  const op = await readOp((await record("cell.cordon", "cell-01")).id);
  const outcomes = await Promise.all(
    Array.from({ length: 10 }, () =>
      applyNote(database, { term, nowMs: 0 }, op, { headline: "mine" }),
    ),
  );
  expect(outcomes.filter((one) => one === "applied")).toHaveLength(1);
  expect((await readOp(op.id)).version).toBe(2);
});

describe("many light turns in one transaction", () => {
  const batch = async (count: number) => {
    const ops = [];
    for (let index = 0; index < count; index += 1) {
      ops.push(await readOp((await record("tenant.create", `t-${index}`)).id));
    }
    return ops.map((op) => ({ op, turn: turn([{ kind: "publish" }]) }));
  };
  const who = () => ({ term, nowMs: 1_700_000_001_000 });
  const states = async () =>
    (await database.read.select({ step: opTable.step, revision: opTable.revision }).from(opTable))
      .map(({ step, revision }) => `${step} ${revision}`)
      .toSorted();

  test("take effect together, each with its event and the fleet's revision", async () => {
    await database.transaction((tx) => changeRouting(tx, { config: false }));
    const decided = await batch(3);
    expect(await applyLightTurns(database, who(), decided)).toBe("applied");
    expect(await states()).toEqual(["second 1", "second 1", "second 1"]);
    expect(await database.read.$count(event)).toBe(3);
  });

  test("none of them, when one raced or another leads", async () => {
    const decided = await batch(3);
    const last = must(decided[2], "third").op;
    await applyNote(database, who(), last, { headline: "somebody was faster" });
    expect(await applyLightTurns(database, who(), decided)).toBe("raced");
    const old = { ...who(), term: term - 1 };
    expect(await applyLightTurns(database, old, decided.slice(0, 2))).toBe("deposed");
    expect(await states()).toEqual(["first null", "first null", "first null"]);
    expect(await database.read.$count(event)).toBe(0);
  });

  test("what changes more than its operation, or ends in failure, is not light", async () => {
    const [one] = await batch(1);
    const { op } = must(one, "one");
    expect(isLight({ op, turn: turn([{ kind: "publish" }]) })).toBe(true);
    expect(isLight({ op, turn: turn([{ kind: "withdraw" }]) })).toBe(false);
    expect(isLight({ op: { ...op, kind: "cell.create" }, turn: turn([]) })).toBe(false);
    const failure = { code: "OP_FAILED", message: "no", nextSteps: [] } as const;
    expect(isLight({ op, turn: { ...turn([]), failure } })).toBe(false);
  });
});

describe("rules are checked again at commit", () => {
  test("two cells were planned to be cordoned; the second would be the last open one", async () => {
    const first = await readOp((await record("cell.cordon", "cell-01")).id);
    const second = await readOp((await record("cell.cordon", "cell-02")).id);
    expect(await apply(first, [cordon])).toBe("applied");
    await expect(apply(second, [{ ...cordon, cell: "cell-02" }])).rejects.toMatchObject({
      code: "SAFETY_RULE",
    });
  });

  test("a cell was empty when its end was planned; a tenant came in between", async () => {
    const op = await readOp((await record("cell.destroy", "cell-01")).id);
    await place("acme", "op_0000000000");
    const before = await everything();
    const retire: Effect[] = [{ kind: "retire-cell", cell: "cell-01" }, { kind: "publish" }];
    await expect(apply(op, retire)).rejects.toMatchObject({ code: "SAFETY_RULE" });
    expect(await everything()).toBe(before);
  });
});

const place = (id: string, op: string) =>
  database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    const key = `default/tenant/${id}`;
    await reserve(tx, "cell-01", { tenants: 1, bytes: 10, rps: 0 });
    const row = { key, keyspace: "default", kind: "tenant", value: id, cell: "cell-01" } as const;
    await insertPending(tx, [{ ...row, op, revision, epochMin: 1 }]);
    await insertTenant(tx, {
      id,
      keyspace: "default",
      tier: "standard",
      sizeBytes: 10,
      sizeRps: 0,
      labels: {},
      placementKey: key,
    });
  });
const usage = async () => {
  const [row] = await database.read.select().from(cell).where(eq(cell.id, "cell-01"));
  return { tenants: row?.usedTenants, bytes: row?.usedBytes };
};

describe("a tenant that no cell has applied", () => {
  test("is taken back whole: tenant, room, and a tombstone that the cell is told of", async () => {
    const op = await readOp((await record("tenant.create", "acme")).id);
    await place("acme", op.id);
    expect(await usage()).toEqual({ tenants: 1, bytes: 10 });
    expect(await apply(op, [{ kind: "withdraw" }])).toBe("applied");
    expect(await usage()).toEqual({ tenants: 0, bytes: 0 });
    expect(await database.read.select().from(tenant)).toEqual([]);
    const [row] = await database.read.select().from(placement);
    expect(row).toMatchObject({ deleted: true, epoch: 1, attempt: 1, revision: 2 });
  });

  test("stays when the cell was faster: then the point of no return is passed", async () => {
    const op = await readOp((await record("tenant.create", "acme")).id);
    await place("acme", op.id);
    await database.read.update(placement).set({ state: "active" });
    const before = await everything();
    expect(await apply(op, [{ kind: "withdraw" }])).toBe("raced");
    expect(await everything()).toBe(before);
  });
});
