/** Changes of ownership: what is older is refused, what is busy is told, and the bulk path is quick. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { OwnershipChange } from "../../contract/cell-protocol.ts";
import { epochSchema, keyspaceNameSchema, tenantIdSchema } from "../../contract/ids.ts";
import { compareBytes, tenantKey } from "../../contract/placement-key.ts";
import { type CellStore, createCellStore, refusalOf } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "./facts.ts";
import { applyKeyspaces, applyOwnership, listOwnership, ownershipSince } from "./ownership.ts";
import { isPrimary, stepDown, tryBecomePrimary } from "./primary-lock.ts";
import { subscribeOwnership } from "./subscription.ts";

let server: TestPostgres;
let store: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "owned");
  await store.grantLease();
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

type Wish = Partial<Omit<OwnershipChange, "key" | "epoch">> & { readonly epoch?: number };
const change = (tenant: string, wish: Wish = {}): OwnershipChange => ({
  key: tenantKey(keyspaceNameSchema.parse("default"), tenantIdSchema.parse(tenant)),
  state: "active",
  op: "op_b",
  attempt: 1,
  ...wish,
  epoch: epochSchema.parse(wish.epoch ?? 5),
});

const apply = (changes: readonly OwnershipChange[], revision = 1) =>
  applyOwnership(store.agent, { changes, revision });

async function outcomeOf(one: OwnershipChange) {
  const { outcomes } = await apply([one]);
  return outcomes.map(({ outcome, state, epoch, op, attempt }) =>
    [outcome, state, epoch, op, attempt].join(" "),
  );
}

test("the application's role cannot hold up changes of other keys by taking locks", async () => {
  // Whoever may connect may take advisory locks; the seed of lock_key is no secret.
  const lock = "select pg_advisory_lock(hashtextextended('cellfleet/apply', 7305))";
  await store.app.query(lock);
  try {
    expect(await outcomeOf(change("bystander"))).toEqual(["applied active 5 op_b 1"]);
  } finally {
    await store.app.query("select pg_advisory_unlock_all()");
  }
});

test("a command is obeyed once, and nothing older after it", async () => {
  expect(await outcomeOf(change("a"))).toEqual(["applied active 5 op_b 1"]);
  expect(await outcomeOf(change("a"))).toEqual(["same active 5 op_b 1"]);
  const stale: readonly Wish[] = [
    { epoch: 4 },
    { epoch: 4, op: "op_z", attempt: 9, state: "fenced" },
    { op: "op_a" },
    { attempt: 0, state: "fenced" },
    { op: "op_a", attempt: 7, state: "dropped" },
    // Within one attempt there is no way back.
    { state: "importing" },
  ];
  for (const wish of stale) {
    expect(await outcomeOf(change("a", wish))).toEqual(["refused active 5 op_b 1"]);
  }
  expect(await outcomeOf(change("a", { state: "fenced" }))).toEqual(["applied fenced 5 op_b 1"]);
  expect(await outcomeOf(change("a"))).toEqual(["refused fenced 5 op_b 1"]);
  // The next attempt takes the fence back; a higher epoch comes with any operation.
  expect(await outcomeOf(change("a", { attempt: 2 }))).toEqual(["applied active 5 op_b 2"]);
  expect(await outcomeOf(change("a", { epoch: 6, op: "op_a", attempt: 0 }))).toEqual([
    "applied active 6 op_a 0",
  ]);
  expect((await readFacts(store.agent)).epochMax).toBe(6);
});

test("revisions are stored durably and never fall", async () => {
  await apply([change("r1")], 40);
  await apply([], 39);
  expect((await readFacts(store.agent)).appliedRevision).toBe(40);
  await server.restart("immediate");
  await store.close();
  store = await createCellStore(server, "owned_again");
  await store.grantLease();
  await apply([change("a")], 3);
  expect((await readFacts(store.agent)).appliedRevision).toBe(3);
});

test("ten thousand fresh keys are one quick call, also with a writer in the way elsewhere", async () => {
  await apply([change("busy")]);
  await store.app.query("begin");
  await store.app.query("insert into orders (tenant_id, item, quantity) values ('busy', 'x', 1)");
  const many = Array.from({ length: 10_000 }, (_, index) => change(`bulk-${index}`));
  await store.agent.query("set statement_timeout = '5s'");
  const { rows } = await store.agent.query(
    "select outcome, count(*)::int as n from cellfleet.apply_ownership($1, 50) group by 1",
    [JSON.stringify(many)],
  );
  await store.agent.query("reset statement_timeout");
  expect(rows).toEqual([{ outcome: "applied", n: 10_000 }]);
  const locks = await store.admin.query(
    "select count(*)::int as n from pg_locks where locktype = 'advisory'",
  );
  expect(locks.rows[0].n).toBe(1);
  await store.app.query("rollback");
});

test("thousands of active keys are fenced in parts that the lock table can hold", async () => {
  const many = Array.from({ length: 3000 }, (_, index) =>
    change(`bulk-${index}`, { state: "fenced" }),
  );
  const { outcomes, busy } = await apply(many, 51);
  expect(busy).toEqual([]);
  expect(outcomes.filter(({ outcome }) => outcome === "applied")).toHaveLength(3000);
});

test("a busy key delays no other, keeps its state, and holds the revision back", async () => {
  await apply([change("slow"), change("quick")], 60);
  await store.app.query("begin");
  await store.app.query("insert into orders (tenant_id, item, quantity) values ('slow', 'x', 1)");
  const fence = [
    change("slow", { state: "fenced", attempt: 2 }),
    change("quick", { state: "fenced", attempt: 2 }),
  ];
  const first = await apply(fence, 61);
  expect(first.busy).toEqual(["default/tenant/slow"]);
  expect(first.outcomes.map(({ key, outcome }) => `${key} ${outcome}`)).toEqual([
    "default/tenant/quick applied",
  ]);
  expect((await readFacts(store.agent)).appliedRevision).toBe(60);
  await store.app.query("commit");
  const second = await apply(fence, 61);
  expect(second.outcomes.map(({ key, outcome }) => `${key} ${outcome}`).toSorted()).toEqual([
    "default/tenant/quick same",
    "default/tenant/slow applied",
  ]);
  expect((await readFacts(store.agent)).appliedRevision).toBe(61);
});

test("the same key twice in one answer is applied in order", async () => {
  const { outcomes } = await apply([
    change("twice"),
    change("twice", { epoch: 6, state: "moved" }),
  ]);
  expect(outcomes.map(({ outcome, state }) => `${outcome} ${state}`)).toEqual([
    "applied active",
    "applied moved",
  ]);
});

test.each([
  [{ key: "default/tenant/a/b" }, "CF009"],
  [{ key: "default/planet/a" }, "CF009"],
  [{ key: null }, "CF009"],
  [{ state: "paused" }, "CF009"],
  [{ epoch: 0 }, "CF009"],
  [{ op: null }, "CF009"],
])("a malformed change is refused whole: %j", async (broken, code) => {
  const text = JSON.stringify([change("whole"), { ...change("broken"), ...broken }]);
  expect(
    await refusalOf(store.agent.query("select cellfleet.apply_ownership($1, 1)", [text])),
  ).toBe(code);
  const { rowCount } = await store.admin.query(
    "select from cellfleet.ownership where key = 'default/tenant/whole'",
  );
  expect(rowCount).toBe(0);
});

test("pages and changes tell a second agent everything", async () => {
  const keys: string[] = [];
  for (let after = ""; ; after = keys.at(-1) ?? "") {
    const page = await listOwnership(store.agent, after, 4000);
    keys.push(...page.map(({ key }) => key));
    if (page.length < 4000) break;
  }
  expect(keys).toHaveLength(new Set(keys).size);
  expect(keys).toEqual(keys.toSorted(compareBytes));
  const listener = await store.connect("shop_agent");
  const { promise, resolve } = Promise.withResolvers<number>();
  const subscription = await subscribeOwnership(listener, resolve);
  const [last] = (await ownershipSince(store.agent, 0)).slice(-1);
  await apply([change("news"), change("news-2")], 70);
  const heard = await promise;
  expect(heard).toBeGreaterThan(last?.change ?? 0);
  const news = await ownershipSince(listener, last?.change ?? 0);
  expect(news.map(({ key }) => key).toSorted(compareBytes)).toEqual([
    "default/tenant/news",
    "default/tenant/news-2",
  ]);
  await subscription.close();
});

test("one agent of several is primary, until its connection ends", async () => {
  const first = await store.connect("shop_agent");
  const second = await store.connect("shop_agent");
  expect(await tryBecomePrimary(first)).toBe(true);
  expect(await tryBecomePrimary(second)).toBe(false);
  expect([await isPrimary(first), await isPrimary(second)]).toEqual([true, false]);
  await stepDown(first);
  expect([await isPrimary(first), await tryBecomePrimary(second)]).toEqual([false, true]);
  await second.end();
  await expect.poll(() => tryBecomePrimary(first)).toBe(true);
});

describe("keyspaces", () => {
  test("repeating them changes nothing; guard mode may change", async () => {
    const plain = { name: "default", strategy: "directory", guardMode: "row" } as const;
    await applyKeyspaces(store.agent, [plain]);
    await applyKeyspaces(store.agent, [plain, { ...plain, name: "other", guardMode: "strict" }]);
    const { rows } = await store.agent.query(
      "select name, guard_mode from cellfleet.keyspace order by name",
    );
    expect(rows).toEqual([
      { name: "default", guard_mode: "row" },
      { name: "other", guard_mode: "strict" },
    ]);
  });

  test("the strategy of a keyspace that owns keys is fixed", async () => {
    const other = { name: "default", strategy: "slots", slotCount: 64, guardMode: "row" } as const;
    expect(await refusalOf(applyKeyspaces(store.agent, [other]))).toBe("55000");
  });
});
