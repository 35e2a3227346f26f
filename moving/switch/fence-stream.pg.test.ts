/**
 * Races of the fence of a move, per isolation level: eight writers that sleep between the guard's check
 * and their commit. After the fence no row may appear, and when the marker has arrived at the target,
 * every row that was acknowledged is there: without waiting, in the very snapshot that found the marker.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sqlStateOf } from "../../cell/store/queryable.ts";
import { type IsolationLevel, isolationLevels, storeRoles } from "../../tests/cell-store.ts";
import { startTwoCells, type TwoCells } from "../two-cells.fixture.ts";
import { openSwitch, patience, type Switching, startStream } from "./streamed.fixture.ts";

const races = 40;
const writerCount = 8;

let cells: TwoCells;
let bench: Switching;
let pool: pg.Pool;
let stopStream: () => Promise<void>;
/** Each race is a try of its own. */
let attempt = 0;

beforeAll(async () => {
  cells = await startTwoCells();
  bench = openSwitch();
  pool = new pg.Pool({
    connectionString: cells.serverOf(cells.a).url(cells.a.name, storeRoles.appRole),
    max: writerCount,
  });
  // A target that is slow to apply: what is not behind the marker has not arrived by chance either.
  await cells.b.admin.query(`
    create function slowly() returns trigger language plpgsql as $$
      begin perform pg_sleep(0.001); return new; end $$;
    create trigger slowly before insert on orders for each row execute function slowly();
    alter table orders enable always trigger slowly`);
  stopStream = await startStream(cells, { from: cells.a, to: cells.b, op: cells.task().op });
});
afterAll(async () => {
  await bench.close();
  await pool.end();
  await stopStream();
  await cells.close();
});

/** Until the fence refuses it; how many of its rows were acknowledged. */
async function writeUntilRefused(tenant: string, isolation: IsolationLevel) {
  let commits = 0;
  for (;;) {
    const client = await pool.connect();
    try {
      await client.query(`begin isolation level ${isolation}`);
      await client.query("insert into orders (tenant_id, item, quantity) values ($1, 'race', 1)", [
        tenant,
      ]);
      await client.query("select pg_sleep(random() * 0.006)");
      await client.query("commit");
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

const countText = "select count(*)::integer as n from orders where tenant_id = $1";

async function countIn(client: pg.Client, tenant: string): Promise<number> {
  const { rows } = await client.query(countText, [tenant]);
  return Number(rows[0]?.n);
}

async function race(tenant: string, isolation: IsolationLevel) {
  const { a, b } = cells;
  const { switching, snapshots } = bench;
  attempt += 1;
  const task = cells.task({ tenants: [tenant], attempt });
  await cells.own(a, `default/tenant/${tenant}`, "active");
  const writing = Promise.all(
    Array.from({ length: writerCount }, () => writeUntilRefused(tenant, isolation)),
  );
  // Until work is in flight: a fence in front of everybody proves nothing.
  while ((await countIn(a.admin, tenant)) < 3) await a.admin.query("select pg_sleep(0.001)");
  await switching.fence(task, 5000);
  const [atFence] = await Promise.all([
    countIn(a.admin, tenant),
    switching.drain(task, patience()),
  ]);
  const atDrain = await countIn(b.admin, tenant);
  const [pair] = snapshots.take(task.op) ?? [];
  const frozen = await Promise.all(
    [pair?.source, pair?.target].map(async (side) => {
      const result = await side?.query<{ n: number }>(countText, [tenant]);
      await side?.close();
      return result?.rows[0]?.n;
    }),
  );
  const results = await writing;
  const atEnd = await countIn(a.admin, tenant);
  return {
    late: atEnd - atFence,
    lost: atEnd - atDrain,
    unknown: atEnd - results.reduce((sum, { commits }) => sum + commits, 0),
    notFrozen: frozen.map((n) => atEnd - (n ?? -1)),
    ends: results.map(({ end }) => end),
  };
}

describe.each(isolationLevels)("%s", (isolation) => {
  test(`no row after the fence, none behind the marker, in ${races} races`, async () => {
    const results: Awaited<ReturnType<typeof race>>[] = [];
    for (let nth = 0; nth < races; nth += 1) {
      results.push(await race(`${isolation.replace(" ", "-")}-${nth}`, isolation));
    }
    const clean = { late: 0, lost: 0, unknown: 0, notFrozen: [0, 0] };
    expect(
      results
        .map(({ ends: _, ...counts }) => counts)
        .filter((counts) => JSON.stringify(counts) !== JSON.stringify(clean)),
    ).toEqual([]);
    expect(new Set(results.flatMap(({ ends }) => ends))).toEqual(new Set(["CF001"]));
  });
});
