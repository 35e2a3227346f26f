/** Locks are got past a vacuum, never waited for, and given up in the end with the name of who is in the way. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { openClient } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { lockLimitsDefault, runLocked } from "./lock-bounded.ts";
import type { Step, StepEvent } from "./step.ts";

let server: TestPostgres;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await server.stop();
});

const step: Step = {
  ...{ id: "key-not-null public.busy", kind: "key-not-null", object: "public.busy", way: "locked" },
  ...{ hold: '"public"."busy"', lock: "", why: "", undo: "" },
  sql: ["alter table public.busy alter column body set not null;"],
};

async function attempt(url: string, giveUpMs: number, triesUntilBlamed = 5) {
  const client = await openClient(url);
  const events: StepEvent[] = [];
  const limits = { ...lockLimitsDefault, giveUpMs, triesUntilBlamed };
  const signal = new AbortController().signal;
  const emit = (event: StepEvent) => {
    events.push(event);
  };
  const work = runLocked(
    { client, limits, signal, emit, clock: systemClock, random: systemRandom },
    step,
  );
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  await client.end();
  return { error, events };
}

test("an autovacuum that would take minutes gives the table up", async () => {
  const url = await server.createDatabase("vacuumed");
  const admin = await openClient(url);
  await admin.query("alter system set autovacuum_naptime = 1");
  await admin.query("select pg_reload_conf()");
  await admin.query(
    `create table busy (id integer primary key, body text) with (autovacuum_vacuum_threshold = 1,
       autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)`,
  );
  await admin.query("insert into busy select n, repeat('x', 500) from generate_series(1, 30000) n");
  await admin.query("delete from busy where id % 2 = 0");
  const isVacuumed = async () => {
    const { rows } = await admin.query(
      "select from pg_stat_progress_vacuum where relid = 'busy'::regclass and phase <> 'initializing'",
    );
    return rows.length > 0;
  };
  while (!(await isVacuumed())) await systemClock.sleep(100);
  expect((await attempt(url, 20_000)).error).toBeUndefined();
  await admin.end();
});

test("in the end it gives up, changes nothing, and names who is in the way", async () => {
  const url = await server.createDatabase("held");
  const holder = await openClient(url);
  await holder.query("create table busy (id integer primary key, body text)");
  await holder.query("begin; select * from busy");
  // Blamed at its first try: on a busy machine a second holds fewer than five.
  const { error, events } = await attempt(url, 1000, 1);
  const { rows } = await holder.query<{ pid: number }>("select pg_backend_pid() as pid");
  expect(String(error)).toContain(`pid ${rows[0]?.pid}`);
  expect(events.some(({ kind }) => kind === "lock.blocked")).toBe(true);
  await holder.query("commit");
  expect((await attempt(url, 5000)).error).toBeUndefined();
  await holder.end();
});
