/** What grows is cut, by the leader alone; what is younger stays. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type ControlFixture, eventually, startControl } from "../control.fixture.ts";
import { startHousekeeping } from "./housekeeping.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("housekeeping"));
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

test("rows of tenants that an operator asked for, names that ran out, old answers and events go", async () => {
  const { read } = control.database;
  await read.execute(sql`
    insert into cellfleet_control.query (id, actor, sql, cells, rows_max, timeout_ms, created_at, deadline_at)
    select 'qry_' || age, 'somebody', 'select 1', '{cell-01}', 1, 1,
           now() - make_interval(mins => age), now() - make_interval(mins => age)
      from unnest(array[1, 11]) as age`);
  await read.execute(sql`
    insert into cellfleet_control.query_answer (query, cell, answer)
    select id, 'cell-01', '{}' from cellfleet_control.query`);
  await read.execute(sql`
    insert into cellfleet_control.claim (namespace, hash, keyspace, tenant, state, exclusive, expires_at)
    select 'domain', 'hash-' || age, 'default', 'acme', 'reserved', true,
           now() - make_interval(mins => age) from unnest(array[-5, 5]) as age`);
  await read.execute(sql`
    insert into cellfleet_control.event (at, kind, object, text)
    select now() - make_interval(days => age), 'test', 'days-' || age, '' from unnest(array[1, 31]) as age`);
  await read.execute(sql`
    insert into cellfleet_control.idempotency (token_id, key, request_hash, created_at)
    select 'token', 'hours-' || age, '', now() - make_interval(hours => age) from unnest(array[1, 25]) as age`);
  const { rows: seats } = await read.execute<{ term: number }>(sql`
    update cellfleet_control.leader set term = term + 1, holder = 'test',
           expires_at = now() + interval '1 hour' returning term::int as term`);
  const term = seats[0]?.term ?? 0;
  const left = async (): Promise<string[]> => {
    const { rows } = await read.execute<{ what: string }>(sql`
      select id as what from cellfleet_control.query
      union all select 'answer of ' || query from cellfleet_control.query_answer
      union all select hash from cellfleet_control.claim
      union all select object from cellfleet_control.event
      union all select key from cellfleet_control.idempotency order by 1`);
    return rows.map(({ what }) => what);
  };
  const start = (seat: number | undefined) =>
    startHousekeeping({
      ...{ database: control.database, clock: systemClock, random: systemRandom },
      lead: { term: () => seat },
      onError: (error) => control.troubles.push(error),
    });
  const all = await left();
  expect(all).toHaveLength(10);
  for (const seat of [undefined, term + 1]) {
    const idle = start(seat);
    idle.wake();
    await idle.close();
    expect(await left()).toEqual(all);
  }
  const loop = start(term);
  const kept = await eventually(left, (rows) => rows.length < all.length);
  await loop.close();
  expect(kept).toEqual(["answer of qry_1", "days-1", "hash--5", "hours-1", "qry_1"]);
  expect(control.troubles).toEqual([]);
});
