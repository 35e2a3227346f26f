/**
 * Tenants move while work goes on that no request waits for: in every cell a cron job over all tenants, a
 * queue with two workers, and customers who order. Every effect happens once, a job over all tenants meets
 * each of them in one cell, and ids that plain bigserials give never meet.
 */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { checkHistory } from "../../history/check.ts";
import type { Entry } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { startWorkload, type Workload } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { startFleet, type TestFleet, until } from "../fleet.ts";

const app = resolve(import.meta.dirname, "..", "..", "examples", "shop", "cellfleet.yaml");
const cells = ["cell-01", "cell-02", "cell-03"] as const;
const tenants = Array.from({ length: 20 }, (_, index) => `nomad-${index + 1}`);
const homeOf = (tenant: string): string => cells[Number(tenant.split("-")[1]) % 3] ?? "cell-01";
const nextOf = (cell: string): string => cells[(cells.indexOf(cell as "cell-01") + 1) % 3] ?? cell;
const movesSchema = z.object({ items: z.array(z.object({ id: z.string() })) });
const moveSchema = z.object({ step: z.string(), state: z.string(), headline: z.string() });

let fleet: TestFleet;
let workload: Workload | undefined;
const entries: Entry[] = [];

beforeAll(async () => {
  fleet = await startFleet({ cells: 3, flags: ["--no-demo"], app });
  for (const cell of cells) {
    const here = tenants.filter((tenant) => homeOf(tenant) === cell);
    await Promise.all(
      here.map((tenant) => fleet.cliJson("tenant", "create", tenant, "--cell", cell, "--wait")),
    );
  }
});
afterAll(async () => {
  await workload?.close();
  await fleet?.stop();
});

async function connect(cell: string, role: "app" | "postgres"): Promise<pg.Client> {
  const url = new URL((await fleet.endpoints()).cells[cell]?.database ?? "");
  if (role === "postgres") {
    url.username = "postgres";
    url.password = (await readFile(join(fleet.dataDir, "cells", cell, "password"), "utf8")).trim();
  }
  const client = new pg.Client(url.href);
  client.on("error", () => {}); // The query that is under way fails and says so.
  await client.connect();
  return client;
}

/** One look of a job over all tenants, as the application's role makes it. */
type Look = {
  readonly cell: string;
  readonly beganMs: number;
  readonly endedMs: number;
  readonly seen: ReadonlySet<string>;
};

/** `select … from accounts` in every cell, again and again, until told to stop. */
async function lookAround(): Promise<{ readonly stop: () => Promise<readonly Look[]> }> {
  const over = new AbortController();
  const looks: Look[] = [];
  const running = cells.map(async (cell) => {
    const client = await connect(cell, "app");
    while (!over.signal.aborted) {
      const beganMs = systemClock.monotonicMs();
      const { rows } = await client.query<{ id: string }>("select id from accounts");
      const seen = new Set(rows.map(({ id }) => id));
      looks.push({ cell, beganMs, endedMs: systemClock.monotonicMs(), seen });
      await systemClock.sleep(10, over.signal);
    }
    await client.end();
  });
  // Who stops them hears of it; a test that ends before must not leave it to nobody.
  for (const one of running) one.catch(() => undefined);
  return {
    stop: async () => {
      over.abort();
      await Promise.all(running);
      return looks;
    },
  };
}

/** Looks at the old home that began after one at the new home had shown the tenant already. */
function metTwice(looks: readonly Look[], tenant: string): readonly string[] {
  const [from, to] = [homeOf(tenant), nextOf(homeOf(tenant))];
  const saw = (cell: string) => looks.filter((one) => one.cell === cell && one.seen.has(tenant));
  const first = Math.min(...saw(to).map(({ endedMs }) => endedMs));
  const late = saw(from).filter(({ beganMs }) => beganMs > first);
  const elsewhere = cells.filter((cell) => cell !== from && cell !== to && saw(cell).length > 0);
  return [
    ...late.map(
      ({ beganMs }) => `${tenant} in ${from} ${beganMs - first} ms after it was in ${to}`,
    ),
    ...elsewhere.map((cell) => `${tenant} in ${cell}, where it never was`),
  ];
}

const all = async <Row extends object>(sql: string): Promise<Row[]> => {
  const found = await Promise.all(
    cells.map(async (cell) => {
      const client = await connect(cell, "postgres");
      return client
        .query<Row>(sql)
        .then(({ rows }) => rows)
        .finally(() => client.end());
    }),
  );
  return found.flat();
};

test("20 tenants move round while everything works: each effect once", {
  timeout: 240_000,
}, async () => {
  workload = startWorkload({
    ...{ tenants, processesPerTenant: 1, ordersPerSecondMax: 60, attemptsMax: 3 },
    router: async () => new URL((await fleet.endpoints()).router).origin,
    requestTimeoutMs: 10_000,
    recorder: createRecorder({
      ...{ clock: systemClock, run: "nomads" },
      write: (entry) => entries.push(entry),
    }),
    ...{ clock: systemClock, run: "nomads" },
  });
  const { counts } = workload;
  await until("every tenant has ordered", () => counts().ok >= 3 * tenants.length);
  const looking = await lookAround();

  const moves: string[] = [];
  for (const cell of cells) {
    const leaving = tenants.filter((tenant) => homeOf(tenant) === cell);
    const asked = ["move", "start", ...leaving, "--to", nextOf(cell), "--together", "4"];
    // What is shown here is what a pause may do, not how long it is on a busy machine.
    const how = ["--switch", "auto", "--soak", "3s", "--pause-budget", "4s"];
    const started = await fleet.cliJson(...asked, ...how);
    moves.push(...movesSchema.parse(started).items.map(({ id }) => id));
  }
  for (const move of moves) {
    await until(
      `${move} is done`,
      async () => {
        const { state, headline, step } = moveSchema.parse(
          await fleet.cliJson("move", "show", move),
        );
        if (["failed", "cancelled"].includes(state))
          throw new Error(`${move} ${step}: ${headline}`);
        return state === "done";
      },
      120_000,
    );
  }
  const before = counts().ok;
  await until("orders flow where the tenants are now", () => counts().ok > before + 60);
  await workload.stop();
  const looks = await looking.stop();
  await workload.readBack(60_000);

  expect(tenants.flatMap((tenant) => metTwice(looks, tenant))).toEqual([]);
  expect(looks.length).toBeGreaterThan(300);
  const verdict = checkHistory(entries);
  expect(verdict.violations).toEqual([]);
  expect(verdict.counts).toMatchObject({ failed: 0, unknown: 0 });

  // The queue: every order is confirmed exactly once, whichever cell's worker had claimed it.
  await until(
    "the queues are empty",
    async () => {
      const open = await all<{ n: number }>(
        "select 1 as n from jobs where state <> 'done' limit 1",
      );
      return open.length === 0;
    },
    60_000,
  );
  const orders = await all<{ id: string; account_id: string; confirmed: number }>(
    "select id::text, account_id, confirmed from orders",
  );
  expect(orders.filter(({ confirmed }) => confirmed !== 1)).toEqual([]);
  // Ids of plain bigserials, given in three cells.
  expect(new Set(orders.map(({ id }) => id)).size).toBe(orders.length);
  // The cron job: once per tenant and tick, over all cells.
  const ticks = await all<{ act: string }>("select account_id || ' ' || tick as act from ticks");
  expect(new Set(ticks.map(({ act }) => act)).size).toBe(ticks.length);
  // Nobody left rows behind.
  const accounts = await all<{ id: string }>("select id from accounts");
  expect(new Set(accounts.map(({ id }) => id))).toEqual(new Set(tenants));
  expect(accounts.length).toBe(tenants.length);
});
