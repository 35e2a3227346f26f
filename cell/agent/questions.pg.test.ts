/** Operators' questions: read only, bounded, answered once, by a login of its own. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, openBench, until } from "./agent.fixture.ts";
import { answerBytesMax, runQuestion } from "./read-query.ts";

let server: TestPostgres;
let bench: AgentBench;
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
});
afterEach(() => bench.close());

const question = (sql: string, more: { rowsMax?: number; timeoutMs?: number } = {}) => ({
  ...{ id: "query_1", sql, rowsMax: 1000, timeoutMs: 20_000 },
  ...more,
});
// The superuser's own login: only the transaction stands between the text and the rows.
const run = (sql: string, more: { rowsMax?: number; timeoutMs?: number } = {}) =>
  runQuestion(question(sql, more), server.url(bench.store.name), systemClock);

describe("a question", () => {
  test("is answered in PostgreSQL's own spelling, with nulls as nulls", async () => {
    expect(
      await run(
        "select 1 as n, null as nothing, true as yes, 9007199254740993::int8 as big, '{a,b}'::text[] as list, 1 as n",
      ),
    ).toEqual({
      kind: "rows",
      columns: ["n", "nothing", "yes", "big", "list", "n"],
      rows: [["1", null, "t", "9007199254740993", "{a,b}", "1"]],
      truncated: false,
    });
  });

  test("gets as many rows as asked for, and is told when there were more", async () => {
    const all = await run("select n from generate_series(1, 250) n", { rowsMax: 250 });
    expect(all).toMatchObject({ kind: "rows", truncated: false });
    expect(all.kind === "rows" && all.rows.length).toBe(250);
    const cut = await run("select n from generate_series(1, 250) n", { rowsMax: 120 });
    expect(cut).toMatchObject({ truncated: true });
    expect(cut.kind === "rows" && cut.rows.length).toBe(120);
  });

  test("gets no more bytes than the control plane takes, and is told so", async () => {
    const cut = await run("select repeat('x', 100000) as text from generate_series(1, 500)");
    expect(cut).toMatchObject({ kind: "rows", truncated: true });
    const bytes = Buffer.byteLength(JSON.stringify(cut));
    expect(bytes).toBeLessThan(answerBytesMax * 1.01);
    expect(bytes).toBeGreaterThan(answerBytesMax * 0.9);
  });

  test("of one gigantic row is cut off instead of taken into memory", async () => {
    const answer = await run("select repeat('x', 1000000) from generate_series(1, 300)");
    expect(answer).toMatchObject({ kind: "error", code: "CUT_OFF" });
  });

  test.each([
    ["a deletion", "delete from orders", /42601/],
    [
      "a deletion inside a SELECT",
      "with gone as (delete from orders returning 1) select * from gone",
      /0A000|25006/,
    ],
    ["a second statement", "select 1; delete from orders", /42601/],
    ["an end of the transaction", "select 1; commit; delete from orders", /42601/],
    ["a sequence", "select nextval('orders_id_seq')", /25006/],
    [
      "an attempt to write after all",
      "select set_config('transaction_read_only', 'off', true)",
      /25001/,
    ],
    ["a lock for update", "select * from orders for update", /25006/],
    ["no SQL", "hello", /42601/],
  ])("%s is refused, and nothing is changed", async (_what, sql, code) => {
    await bench.store.own("default/tenant/acme", "active");
    await bench.store.grantLease();
    await bench.insertOrder();
    const answer = await run(sql);
    expect(answer.kind === "error" && answer.code).toMatch(code);
    const { rows } = await bench.store.admin.query("select count(*) as count from orders");
    expect(rows[0].count).toBe("1");
  });

  test("that takes too long ends, in the database too", async () => {
    const answer = await run("select pg_sleep(60)", { timeoutMs: 300 });
    expect(answer).toMatchObject({ kind: "error" });
    await until("no such statement runs", async () => {
      const { rows } = await bench.store.admin.query(
        "select 1 from pg_stat_activity where application_name = 'cellfleet-query'",
      );
      return rows.length === 0;
    });
  });

  test("that takes away its own time limit is ended all the same, with what it holds", async () => {
    const sql = `select case when g = 1 then set_config('statement_timeout', '0', false)
        when g = 2 then pg_advisory_lock(4711)::text
        when g = 3 then set_config('client_connection_check_interval', '0', false)
        when g > 150 then pg_sleep(600)::text else 'x' end
      from generate_series(1, 1000) g`;
    const answer = await run(sql, { timeoutMs: 1000 });
    expect(answer).toMatchObject({ kind: "error" });
    await until("its backend is gone, and its lock with it", async () => {
      const { rows } = await bench.store.admin.query(
        `select 1 from pg_stat_activity where application_name = 'cellfleet-query'
         union all select 1 from pg_locks where locktype = 'advisory' and objid = 4711`,
      );
      return rows.length === 0;
    });
  });

  test("in one batch that cannot be interrupted by its time limit is ended too", async () => {
    const sql = `select case when g = 1 then set_config('statement_timeout', '0', false)
        when g = 2 then set_config('client_connection_check_interval', '0', false)
        else pg_sleep(600)::text end from generate_series(1, 3) g`;
    expect(await run(sql, { timeoutMs: 500 })).toMatchObject({ kind: "error" });
    await until("its backend is gone", async () => {
      const { rows } = await bench.store.admin.query(
        "select 1 from pg_stat_activity where application_name = 'cellfleet-query'",
      );
      return rows.length === 0;
    });
  });

  test("to a database that is not there is answered so", async () => {
    const answer = await runQuestion(
      question("select 1"),
      "postgres://x@127.0.0.1:1/x",
      systemClock,
    );
    expect(answer).toMatchObject({ kind: "error", code: "UNREACHABLE" });
    const malformed = await runQuestion(question("select 1"), "postgres://[", systemClock);
    expect(malformed).toMatchObject({ kind: "error" });
  });
});

describe("the agent", () => {
  test("answers each question once, by the login it was given, and again when the answer was lost", async () => {
    bench.control.settings.queryAnswersLost = 1;
    await bench.serving({}, { queryDatabaseUrl: server.url(bench.store.name, "shop_app") });
    bench.control.settings.queries = [question("select current_user, pg_is_in_recovery()")];
    await until("the answer is there", () => bench.control.queryAnswers.length > 0);
    expect(must(bench.control.queryAnswers[0], "answer")).toMatchObject({
      ...{ cell: bench.store.name, id: "query_1" },
      answer: { kind: "rows", rows: [["shop_app", "f"]] },
    });
    const at = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > at + 1);
    expect(bench.control.queryAnswers.length).toBe(1);
  });

  test("answers many at once, and a slow one holds up nothing else", async () => {
    const agent = await bench.serving({}, { queryDatabaseUrl: server.url(bench.store.name) });
    bench.control.settings.queries = [
      { ...question("select pg_sleep(60)", { timeoutMs: 60_000 }), id: "slow" },
      ...["a", "b", "c", "d"].map((id) => ({ ...question(`select '${id}'`), id })),
    ];
    await until("the quick ones are answered", () => bench.control.queryAnswers.length === 4);
    expect((await bench.ask(agent)).status).toBe(201);
    bench.control.settings.queries = [];
    await bench.store.admin.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cellfleet-query'",
    );
    await until("the slow one is answered too", () => bench.control.queryAnswers.length === 5);
  });

  test("that is told to stop leaves no question running, and tells of none", async () => {
    const agent = await bench.serving({}, { queryDatabaseUrl: server.url(bench.store.name) });
    bench.control.settings.queries = [question("select pg_sleep(60)", { timeoutMs: 60_000 })];
    const running = async () => {
      const { rows } = await bench.store.admin.query(
        "select 1 from pg_stat_activity where application_name = 'cellfleet-query' and state = 'active'",
      );
      return rows.length;
    };
    await until("it runs", async () => (await running()) === 1);
    await agent.close();
    expect(bench.events("step.failed")).toEqual([]);
    expect(bench.control.queryAnswers).toEqual([]);
  });

  test("without a login for questions says what is missing", async () => {
    await bench.serving();
    bench.control.settings.queries = [question("select 1")];
    await until("the answer is there", () => bench.control.queryAnswers.length > 0);
    expect(bench.control.queryAnswers[0]?.answer).toMatchObject({
      kind: "error",
      code: "NO_READER",
    });
  });
});
