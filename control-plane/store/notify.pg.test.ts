/** A listener whose connection is cut listens again, and wakes everybody: it may have missed something. */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { eventually } from "../control.fixture.ts";
import { channels, startListener } from "./notify.ts";

let postgres: TestPostgres;
let url: string;

beforeAll(async () => {
  postgres = await startTestPostgres();
  url = await postgres.createDatabase("notify");
});
afterAll(() => postgres?.stop());

test("hears, reconnects, wakes all channels after each connection, ends when closed", async () => {
  const heard: string[] = [];
  const errors: unknown[] = [];
  const listener = startListener({
    url,
    clock: systemClock,
    onWake: (channel, payload) => heard.push(`${channel}:${payload}`),
    onError: (error) => errors.push(error),
  });
  const all = Object.values(channels).map((channel) => `${channel}:`);
  const wait = (count: number) =>
    eventually(
      () => Promise.resolve(heard.length),
      (length) => length >= count,
    );
  await wait(all.length);
  expect(heard).toEqual(all);
  const db = new pg.Client({ connectionString: url });
  await db.connect();
  await db.query(`select pg_notify('${channels.op}', 'op_1')`);
  await wait(all.length + 1);
  expect(heard.at(-1)).toBe(`${channels.op}:op_1`);
  const cut = await db.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%-listen'",
  );
  expect(cut.rowCount).toBe(1);
  await wait(2 * all.length + 1);
  expect(heard.slice(all.length + 1)).toEqual(all);
  expect(errors.length).toBeGreaterThan(0);
  await db.query(`select pg_notify('${channels.revision}', '7')`);
  await wait(2 * all.length + 2);
  await listener.close();
  const left = await eventually(
    () => db.query("select 1 from pg_stat_activity where application_name like '%-listen'"),
    ({ rowCount }) => rowCount === 0,
  );
  expect(left.rowCount).toBe(0);
  await db.end();
});
