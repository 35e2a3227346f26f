/**
 * 120 races per isolation level and mode: eight writers that sleep between the guard's check and
 * their commit, one fence. Once `fenced` was read back from `apply_ownership`, no row may appear.
 *
 * The writers of two tenants share fewer connections than they are, and take one for a transaction
 * at a time, as behind PgBouncer: a connection serves now the one tenant, now the other.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  isolationLevels,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { sqlStateOf } from "./queryable.ts";

const races = 120;
const writerCount = 8;
/** Races that run at once, each on a tenant of its own; more of them only queue for the processor. */
const atOnce = 2;
const pooled = 12;

let server: TestPostgres;
let store: CellStore;
let pool: pg.Pool;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "racing");
  await store.grantLease();
  pool = new pg.Pool({
    connectionString: server.url("racing", storeRoles.appRole),
    max: pooled,
  });
});
afterAll(async () => {
  await pool.end();
  await store.close();
  await server.stop();
});

type Race = { readonly tenant: string; readonly begin: string; readonly strict: boolean };
type WriterResult = { readonly commits: number; readonly end: string };

/** Writes until it is refused; a serialization failure is tried again, as applications do. */
async function writeUntilRefused(race: Race): Promise<WriterResult> {
  let commits = 0;
  for (;;) {
    const client = await pool.connect();
    try {
      await writeOnce(client, race);
      commits += 1;
    } catch (error) {
      await client.query("rollback");
      const code = sqlStateOf(error) ?? String(error);
      if (code !== "40001") return { commits, end: code };
    } finally {
      client.release();
    }
  }
}

async function writeOnce(client: pg.PoolClient, race: Race): Promise<void> {
  await client.query(race.begin);
  if (race.strict) {
    await client.query("select cellfleet.enter($1, 1)", [`default/tenant/${race.tenant}`]);
  }
  await client.query("insert into orders (tenant_id, item, quantity) values ($1, 'race', 1)", [
    race.tenant,
  ]);
  await client.query("select pg_sleep(random() * 0.006)");
  await client.query("commit");
}

async function countRows(tenant: string): Promise<number> {
  const { rows } = await store.admin.query(
    "select count(*)::int as n from orders where tenant_id = $1",
    [tenant],
  );
  return Number(rows[0].n);
}

async function runRace(race: Race) {
  const key = `default/tenant/${race.tenant}`;
  await store.own(key, "active");
  const writing = Promise.all(Array.from({ length: writerCount }, () => writeUntilRefused(race)));
  // Until work is in flight: a fence in front of everybody proves nothing.
  while ((await countRows(race.tenant)) < 3) await store.admin.query("select pg_sleep(0.001)");
  const outcome = await store.own(key, "fenced");
  const atFence = await countRows(race.tenant);
  const results = await writing;
  const atEnd = await countRows(race.tenant);
  const acknowledged = results.reduce((sum, { commits }) => sum + commits, 0);
  return {
    outcome,
    late: atEnd - atFence,
    unknown: atEnd - acknowledged,
    ends: results.map((r) => r.end),
  };
}

const matrix = (["row", "strict"] as const).flatMap((mode) =>
  isolationLevels.map((isolation) => ({ mode, isolation })),
);

describe.each(matrix)("$mode, $isolation", ({ mode, isolation }) => {
  test(`no row appears after the fence in ${races} races`, async () => {
    await store.setMode(mode);
    let next = 0;
    const results: Awaited<ReturnType<typeof runRace>>[] = [];
    await Promise.all(
      Array.from({ length: atOnce }, async () => {
        while (next < races) {
          const number = next;
          next += 1;
          results.push(
            await runRace({
              tenant: `${mode}-${isolation.replace(" ", "-")}-${number}`,
              begin: `begin isolation level ${isolation}`,
              strict: mode === "strict",
            }),
          );
        }
      }),
    );
    expect(results).toHaveLength(races);
    expect(results.filter(({ late }) => late !== 0)).toEqual([]);
    expect(results.filter(({ unknown }) => unknown !== 0)).toEqual([]);
    expect(new Set(results.map(({ outcome }) => outcome))).toEqual(new Set(["applied"]));
    expect(new Set(results.flatMap(({ ends }) => ends))).toEqual(new Set(["CF001"]));
  });
});
