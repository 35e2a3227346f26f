/**
 * Whoever works on a move may die at any moment, and so may any of PostgreSQL's own processes for it: what
 * comes after finishes or takes back.
 */
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import type { CellStore } from "../tests/cell-store.ts";
import { type CuttingProxy, startCuttingProxy } from "./cutting-proxy.fixture.ts";
import { copierName, forwardName } from "./names.ts";
import type { MoveTask } from "./ports.ts";
import {
  bringIntoStep,
  eventually,
  keepWriting,
  leftoversOf,
  never,
  plainCopy,
  streams,
  switchOver,
  throughTheStream,
} from "./streams.fixture.ts";
import { createStreams } from "./streams.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

let cells: TwoCells;
let proxy: CuttingProxy;
beforeAll(async () => {
  cells = await startTwoCells();
  proxy = await startCuttingProxy(cells.serverOf(cells.a).port);
});
afterAll(async () => {
  await proxy.close();
  await cells.close();
});

let number = 0;
async function taskOf(tenant: string, rows = 3): Promise<MoveTask> {
  await cells.own(cells.a, `default/tenant/${tenant}`, "active");
  for (let row = 0; row < rows; row += 1) await cells.write(cells.a.app, tenant);
  number += 1;
  return cells.task({ number, tenants: [tenant] });
}

const throughProxy = (task: MoveTask): MoveTask => ({
  ...task,
  stores: task.stores.map(({ name, source, target }) => ({
    name,
    source: { ...source, url: proxy.through(source.url) },
    target: { ...target, url: proxy.through(target.url) },
  })),
});

/** With 1 every place is tried, in half a minute; where the cuts fall differs from run to run anyway. */
const sendsBetweenCuts = 4;

/** The step is begun again and again, each time cut a little later, until it comes through whole. */
async function cutEverywhere(
  task: MoveTask,
  step: (task: MoveTask) => Promise<void>,
): Promise<MoveTask> {
  onTestFinished(() => proxy.cutAfter(Number.POSITIVE_INFINITY));
  for (let sends = 0; ; sends += sendsBetweenCuts) {
    const again = { ...task, attempt: task.attempt + sends };
    proxy.cutAfter(sends);
    try {
      await step(again);
      // It may have been cut where nothing was missed any more: while connections were being closed.
      if (proxy.hasCut()) continue;
    } catch (error) {
      // Nothing but what an executor tries again by itself.
      expect(`${JSON.stringify(error)} ${error}`).toContain("CELL_DATABASE_UNREACHABLE");
      continue;
    }
    proxy.cutAfter(Number.POSITIVE_INFINITY);
    return { ...again, attempt: again.attempt + 1 };
  }
}

test("every step of a move may be cut off anywhere and begun again", async () => {
  const { a, b } = cells;
  let task = throughProxy(await taskOf("cut"));
  await taskOf("bystander");
  const others = await cells.rowsOf(a, "bystander");
  task = await cutEverywhere(task, (again) => streams.prepare(again, never));
  task = await cutEverywhere(task, async (again) => {
    await cells.write(a.app, "cut");
    await streams.copy(again, plainCopy);
  });
  task = await cutEverywhere(task, async (again) => {
    await cells.write(a.app, "cut");
    await streams.startStream(again);
  });
  await switchOver(cells, task);
  expect(await cells.rowsOf(b, "cut")).toEqual(await cells.rowsOf(a, "cut"));
  await cells.write(b.app, "cut");
  task = await cutEverywhere(task, streams.turnAround);
  await throughTheStream(task, b, a);
  const kept = await cells.rowsOf(b, "cut");
  expect(await cells.rowsOf(a, "cut")).toEqual(kept);
  task = await cutEverywhere(task, (again) => streams.clean(again, never));
  expect(await cells.countOf(a, "cut")).toBe(0);
  expect(await cells.rowsOf(b, "cut")).toEqual(kept);
  expect(await cells.rowsOf(a, "bystander")).toEqual(others);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("undoing may be cut off anywhere too", async () => {
  const { a, b } = cells;
  let task = throughProxy(await taskOf("undo"));
  await bringIntoStep(task);
  const before = await cells.rowsOf(a, "undo");
  task = await cutEverywhere(task, (again) => streams.undo(again, never));
  expect(await cells.countOf(b, "undo")).toBe(0);
  expect(await cells.rowsOf(a, "undo")).toEqual(before);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

const slowCopy = { ...plainCopy, rateMax: 2000 };
const terminate = (store: CellStore, condition: string, value: string) =>
  store.admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where ${condition}`, [
    value,
  ]);
const copiers = async (task: MoveTask): Promise<number> => {
  const { rowCount } = await cells.a.admin.query(
    "select from pg_stat_activity where application_name = $1",
    [copierName(task, 0)],
  );
  return Number(rowCount);
};

test.each([
  ["in the source", "application_name = $1 and datname = 'cell-a'"],
  ["in the target", "application_name = $1 and datname = 'cell-b'"],
])("a copier killed %s while it copies: the next attempt starts over", async (where, condition) => {
  const { a, b } = cells;
  const task = await taskOf(`killed-${where.at(-3)}`, 200);
  const tenant = String(task.keys[0]?.key.split("/")[2]);
  await streams.prepare(task, never);
  const copying = streams.copy(task, slowCopy);
  const outcome = copying.catch((error: unknown) => error);
  await eventually("the copy has begun", async () => (await copiers(task)) >= 4);
  await terminate(a, condition, copierName(task, 0));
  expect(await outcome).toMatchObject({ code: "CELL_DATABASE_UNREACHABLE" });
  await eventually("no copier is left", async () => (await copiers(task)) === 0);
  const again = { ...task, attempt: 2 };
  await streams.copy(again, plainCopy);
  await streams.startStream(again);
  await throughTheStream(again, a, b);
  expect(await cells.rowsOf(b, tenant)).toEqual(await cells.rowsOf(a, tenant));
  await streams.undo(again, never);
});

test("a second executor ends the first one's copy, and the first can do nothing any more", async () => {
  const { a, b } = cells;
  const task = await taskOf("taken", 200);
  await streams.prepare(task, never);
  const first = streams.copy(task, slowCopy).catch((error: unknown) => error);
  await eventually("the copy has begun", async () => (await copiers(task)) >= 4);
  const second = { ...task, attempt: 2 };
  await streams.copy(second, plainCopy);
  expect(await first).toMatchObject({ code: "CELL_DATABASE_UNREACHABLE" });
  for (const late of [
    () => streams.copy(task, plainCopy),
    () => streams.prepare(task, never),
    () => streams.startStream(task),
    () => streams.turnAround(task),
    () => streams.clean(task, never),
    () => streams.undo(task, never),
  ]) {
    await expect(late()).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  }
  await streams.startStream(second);
  await throughTheStream(second, a, b);
  expect(await cells.rowsOf(b, "taken")).toEqual(await cells.rowsOf(a, "taken"));
  await streams.undo(second, never);
});

test("a copy that is called off ends on both servers", async () => {
  const task = await taskOf("off", 200);
  await streams.prepare(task, never);
  const stop = new AbortController();
  const copying = streams
    .copy(task, { ...slowCopy, signal: stop.signal })
    .catch((error: unknown) => error);
  await eventually("the copy has begun", async () => (await copiers(task)) >= 4);
  stop.abort();
  expect(await copying).toMatchObject({ name: "AbortError" });
  await eventually("no copier is left", async () => (await copiers(task)) === 0);
  await streams.undo({ ...task, attempt: 2 }, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("sender and worker killed while they follow come back by themselves, and lose nothing", async () => {
  const { a, b } = cells;
  const task = await taskOf("follow");
  await bringIntoStep(task);
  const writer = keepWriting(cells, await a.connect(), "follow");
  for (const [store, condition] of [
    [a, "backend_type = 'walsender' and application_name = $1"],
    [b, "backend_type = 'logical replication apply worker' and $1 <> ''"],
  ] as const) {
    const before = writer.written();
    await eventually("it is there, and is killed", async () => {
      const { rowCount } = await terminate(store, condition, forwardName(task, 0));
      return rowCount !== 0;
    });
    await eventually("writes go on", async () => writer.written() > before + 5);
  }
  expect(await streams.streamState(task)).toMatchObject({ broken: undefined });
  await switchOver(cells, task);
  const written = await writer.stop();
  expect(await cells.countOf(b, "follow")).toBe((3 + written) * 6);
  await streams.turnAround(task);
  await streams.clean(task, never);
});

test("a slot is not waited for without end, and who is in the way is named; then it works", async () => {
  const { a, b } = cells;
  const task = await taskOf("blocked");
  const blocker = await a.connect();
  await blocker.query("begin");
  await cells.write(blocker, "bystander");
  const impatient = createStreams({ clock: systemClock, slotWaitMsMax: 300 });
  await impatient.prepare(task, never);
  await expect(impatient.copy(task, plainCopy)).rejects.toMatchObject({
    code: "MOVE_UNFIT",
    message: expect.stringMatching(/process \d+ \(shop_app in cell-a, idle in transaction\)/),
    details: { sessions: [{ user: "shop_app", pid: expect.any(Number) }] },
    nextSteps: [expect.stringMatching(/^psql -c "select pg_terminate_backend\(\d+\)"$/)],
  });
  expect(
    (
      await cells.a.admin.query("select from pg_replication_slots where slot_name = $1", [
        forwardName(task, 0),
      ])
    ).rowCount,
  ).toBe(0);
  const told: (string | undefined)[] = [];
  const onWait = (blockers: string | undefined) => void told.push(blockers);
  const waiting = streams.copy({ ...task, attempt: 2 }, { ...plainCopy, onWait });
  waiting.catch(() => {}); // Told below.
  await eventually("it waits for longer than for any lock, and says for whom", async () => {
    const { rowCount } = await a.admin.query(
      `select from pg_stat_activity
        where application_name = $1 and clock_timestamp() - query_start > interval '5.5 s'`,
      [copierName(task, 0)],
    );
    return rowCount === 1 && /shop_app in cell-a/.test(told.at(-1) ?? "");
  });
  await blocker.query("commit");
  await waiting;
  expect(told.at(-1)).toBe(undefined);
  await blocker.query("begin");
  await cells.write(blocker, "bystander");
  await expect(impatient.startStream({ ...task, attempt: 2 })).rejects.toMatchObject({
    code: "MOVE_UNFIT",
    details: { sqlState: "55P03", sessions: [{ user: "shop_app" }] },
  });
  await blocker.query("commit");
  await streams.startStream({ ...task, attempt: 2 });
  await throughTheStream(task, a, b);
  expect(await cells.rowsOf(b, "blocked")).toEqual(await cells.rowsOf(a, "blocked"));
  await streams.undo({ ...task, attempt: 3 }, never);
});
