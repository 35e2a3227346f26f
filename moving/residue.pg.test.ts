/** Removing many rows: every batch goes straight to its rows, or a large tenant would take for ever. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { dropLeftover, findLeftovers } from "./leftovers.ts";
import { bringIntoStep, eventually, never, setKeys, streams } from "./streams.fixture.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

let cells: TwoCells;
beforeAll(async () => {
  cells = await startTwoCells();
});
afterAll(() => cells.close());

const rowsOfTest = 40_000;

test("rows are read a few times in all, not once more for each batch", async () => {
  const { b } = cells;
  await cells.own(cells.a, "default/tenant/large", "active");
  await b.admin.query("set session_replication_role = replica");
  for (const [tenant, rows] of [
    ["large", rowsOfTest],
    ["small", 10],
  ] as const) {
    await b.admin.query(
      "insert into notes (tenant_id, body) select $1, 'x' from generate_series(1, $2::integer)",
      [tenant, rows],
    );
  }
  await b.admin.query("set session_replication_role = origin");
  const readSoFar = async () => {
    const { rows } = await b.admin.query(
      `select (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::integer as rows, n_tup_del::integer as removed
         from pg_stat_user_tables where relname = 'notes'`,
    );
    return { read: Number(rows[0]?.rows), removed: Number(rows[0]?.removed) };
  };
  const before = await readSoFar();
  await streams.prepare(cells.task({ tenants: ["large"] }), never);
  await eventually("the counters are told", async () => (await readSoFar()).removed >= rowsOfTest);
  expect((await readSoFar()).read - before.read).toBeLessThan(3 * rowsOfTest);
  expect([await cells.countOf(b, "large"), await cells.countOf(b, "small")]).toEqual([0, 10]);
});

test("nothing is removed in a cell that lets unknown keys be written", async () => {
  const { b } = cells;
  const task = cells.task({ number: 2, tenants: ["unknown"] });
  await b.agent.query("select cellfleet.set_stage('observe', 100, 5000)");
  await cells.write(b.app, "unknown");
  await expect(streams.prepare(task, never)).rejects.toMatchObject({ code: "MOVE_UNFIT" });
  await b.agent.query("select cellfleet.set_stage('enforce', 101, 5000)");
  expect(await cells.countOf(b, "unknown")).toBe(6);
});

test("rows of a key that is taken into use meanwhile are left alone", async () => {
  const { b } = cells;
  const task = cells.task({ number: 3, tenants: ["meanwhile"] });
  await streams.prepare(task, never);
  await setKeys(b, task, "active", 1);
  await cells.write(b.app, "meanwhile");
  await expect(
    streams.copy(task, { rateMax: undefined, onProgress: () => {}, signal: never }),
  ).rejects.toMatchObject({ code: "MOVE_UNFIT" });
  await streams.undo(task, never);
  expect(await cells.countOf(b, "meanwhile")).toBe(6);
});

test("what a forgotten move left can be listed and dropped by anybody who has the login", async () => {
  await cells.own(cells.a, "default/tenant/forgotten", "active");
  await bringIntoStep(cells.task({ number: 4, tenants: ["forgotten"] }));
  const kinds: string[] = [];
  for (const store of [cells.a, cells.b]) {
    const login = cells.login(store);
    for (const leftover of await findLeftovers(login)) {
      if (leftover.op !== cells.task({ number: 4 }).op) continue;
      kinds.push(`${store.name} ${leftover.kind}`);
      await dropLeftover(login, leftover, systemClock);
    }
    const left = await findLeftovers(login);
    expect(
      left.filter(({ op, kind }) => op === cells.task({ number: 4 }).op && kind !== "ownership"),
    ).toEqual([]);
  }
  expect(kinds).toEqual([
    ...["cell-a subscription", "cell-a slot", "cell-a publication"],
    ...["cell-b subscription", "cell-b slot", "cell-b publication", "cell-b ownership"],
  ]);
});
