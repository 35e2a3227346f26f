/** Cut off after any step, and in the middle of the long ones, `install` goes on and ends in the same catalog. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AppCatalog, readAppCatalog } from "./app-catalog.ts";
import { type InstallRun, planInstallation, runInstallation } from "./install.ts";
import { createShop, installRun, type Shop } from "./shop.fixture.ts";
import type { Step, StepEvent } from "./step.ts";

let server: TestPostgres;
const size = { accounts: 10, orders: 200, items: 1000 };

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await server.stop();
});

/** Ids of the pack's statements count what is left; what they say stays the same. */
const keyOf = ({ kind, object, sql }: Step): string => `${kind} ${object} ${sql.join(" ")}`;

/** What must be equal: not sizes, counters, nor names of databases. */
const shapeOf = ({ tables, pack }: AppCatalog) => ({
  pack: { ...pack, guarded: pack.guarded.map(({ name }) => name).toSorted() },
  tables: tables.map(({ rows: _rows, bytes: _bytes, writes: _writes, ...shape }) => shape),
});

async function endOf(shop: Shop) {
  const { rows } = await shop.admin.query(
    "select count(*)::integer as unfilled from order_items where account_id is null",
  );
  return { shape: shapeOf(await readAppCatalog(shop.admin)), unfilled: rows[0] };
}

/** The connection dies as it does with kill -9 of the command: nothing of ours gets to say goodbye. */
async function cutOff(shop: Shop, run: InstallRun): Promise<void> {
  const { rows } = await run.database.client
    .query<{ pid: number }>("select pg_backend_pid() as pid")
    .catch(() => ({ rows: [] }));
  // With a time limit the call returns when the connection is gone, not when it was told to go.
  await shop.admin.query("select pg_terminate_backend($1, 10000)", [rows[0]?.pid ?? 0]);
}

/** Runs until the event, kills, and runs again with a connection of its own. */
async function cutAndResume(shop: Shop, isMoment: (event: StepEvent) => boolean): Promise<boolean> {
  let cut = false;
  const { run, database } = await installRun(shop.url);
  const first = runInstallation({
    ...run,
    emit: async (event) => {
      if (cut || !isMoment(event)) return;
      cut = true;
      await cutOff(shop, run);
    },
  });
  await first.catch(() => undefined);
  await database.close();
  const again = await installRun(shop.url);
  await runInstallation(again.run);
  expect((await planInstallation(again.run)).steps).toEqual([]);
  await again.database.close();
  return cut;
}

test("killed before and after every step", async () => {
  const whole = await createShop(server, "whole", size);
  const { run, database, events } = await installRun(whole.url);
  await runInstallation(run);
  await database.close();
  const wanted = await endOf(whole);
  await whole.close();
  // One table makes the guard of a column, for all of them: the others find it there.
  const steps = events
    .flatMap((event) => (event.kind === "step.began" ? [keyOf(event.step)] : []))
    .filter((key) => !key.includes("guard_for("));
  expect(steps.length).toBeGreaterThan(30);

  // One shop is cut off at each of its steps in turn; a second one before each.
  for (const kind of ["step.done", "step.began"] as const) {
    const shop = await createShop(server, `cut_${kind.slice(5)}`, size);
    const reached: string[] = [];
    for (const id of steps) {
      const { run: next, database: one } = await installRun(shop.url);
      const isOver = runInstallation({
        ...next,
        emit: async (event) => {
          if (event.kind !== kind || keyOf(event.step) !== id) return;
          reached.push(id);
          await cutOff(shop, next);
        },
      });
      await isOver.catch(() => undefined);
      await one.close();
    }
    const last = await installRun(shop.url);
    await runInstallation(last.run);
    await last.database.close();
    expect(reached).toEqual(steps);
    expect(await endOf(shop)).toEqual(wanted);
    await shop.close();
  }
}, 300_000);

test("killed while rows are being filled", async () => {
  const shop = await createShop(server, "cut_backfill", { ...size, orders: 2000, items: 20_000 });
  let batches = 0;
  const cut = await cutAndResume(shop, (event) => {
    if (event.kind === "step.progress" && event.step === "backfill public.order_items")
      batches += 1;
    return batches === 3;
  });
  expect(cut).toBe(true);
  expect((await endOf(shop)).unfilled).toEqual({ unfilled: 0 });
  await shop.close();
});

test("an index whose building was cut off is dropped and built anew", async () => {
  const shop = await createShop(server, "cut_index", size);
  await shop.admin.query("begin; update orders set total = total where id = 1");
  const { run, database } = await installRun(shop.url);
  const stop = new AbortController();
  const work = runInstallation({
    ...run,
    signal: stop.signal,
    emit: (event) => {
      // It waits for the writer, who ends below only: now it is in the middle.
      if (event.kind === "lock.blocked" && event.step === "identity-index public.orders")
        stop.abort();
    },
  });
  await expect(work).rejects.toThrow();
  await shop.admin.query("commit");
  await database.close();
  const broken = await readAppCatalog(shop.admin);
  const orders = broken.tables.find(({ name }) => name === "public.orders");
  expect(orders?.indexes.filter(({ valid }) => !valid).map(({ name }) => name)).toEqual([
    "orders_cellfleet_identity",
  ]);

  const again = await installRun(shop.url);
  await runInstallation(again.run);
  await again.database.close();
  const mended = await readAppCatalog(shop.admin);
  expect(mended.tables.flatMap(({ indexes }) => indexes.filter(({ valid }) => !valid))).toEqual([]);
  expect(mended.tables.find(({ name }) => name === "public.orders")?.replicaIdentity).toBe("i");
  await shop.close();
});
