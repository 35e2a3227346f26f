/** Questions to all cells: asked once each, answered once each, and no cell is missing without a word. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import type { AgentSyncResponse } from "../contract/cell-protocol.ts";
import { auditEntrySchema, list } from "../contract/control-api.ts";
import {
  type QueryResult,
  queryAnswerBytesMax,
  queryAnsweredSchema,
  queryBytesMax,
  queryResultSchema,
} from "../contract/query-api.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { auditEndpoints } from "./api/audit.ts";
import { queryEndpoints } from "./api/queries.ts";
import {
  type AgentChange,
  type ControlFixture,
  callAgent,
  eventually,
  openCell,
  startControl,
} from "./control.fixture.ts";
import { codeOf } from "./plane.fixture.ts";
import { removeOldQueries } from "./store/queries.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let operator: JsonClient;
const agents = new Map<string, JsonClient>();

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("queries"), (context) => [
    ...queryEndpoints(context),
    ...auditEndpoints(context),
  ]);
  operator = await control.client("operator");
  for (const cell of ["cell-01", "cell-02"]) {
    await openCell(control.database, cell);
    agents.set(cell, await control.client("agent", cell));
    await call(cell);
  }
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const agent = (cell: string): JsonClient => {
  const client = agents.get(cell);
  if (client === undefined) throw new Error(`no agent of ${cell}`);
  return client;
};

/** As an agent that is up to date: nothing but a question is news to it. */
async function call(cell: string, change: AgentChange = {}): Promise<AgentSyncResponse> {
  const appliedRevision = control.publisher.revision();
  return callAgent(agent(cell), cell, { appliedRevision, ...change });
}

const ask = (body: object, as = operator): Promise<QueryResult> =>
  as.call({
    method: "POST",
    path: "/v1/queries",
    body,
    schema: queryResultSchema,
    timeoutMs: 10_000,
  });
const read = (id: string, waitMs = 0, as = operator): Promise<QueryResult> =>
  as.call({
    method: "GET",
    path: `/v1/queries/${id}?waitMs=${waitMs}`,
    schema: queryResultSchema,
    timeoutMs: 40_000,
  });
const answer = (cell: string, id: string, said: object, as = agent(cell)) =>
  as.call({
    method: "POST",
    path: "/v1/machine/agent/query-answers",
    body: { cell, id, answer: said },
    schema: queryAnsweredSchema,
    timeoutMs: 20_000,
  });
const rows = (...values: (string | null)[]) => ({
  kind: "rows",
  columns: ["n"],
  rows: values.map((value) => [value]),
  truncated: false,
});
const finish = (id: string) =>
  control.database.read.execute(
    sql`update cellfleet_control.query set deadline_at = clock_timestamp() where id = ${id}`,
  );

describe("a question", () => {
  test("wakes the agents that wait, and its answers wake whoever asked", async () => {
    const waiting = Promise.all(
      ["cell-01", "cell-02"].map((cell) => call(cell, { waitMs: 30_000 })),
    );
    await eventually(
      async () => control.publisher.waiting(),
      (count) => count === 2,
    );
    const asked = await ask({ sql: "SELECT count(*)\n\tFROM orders -- all", timeoutMs: 60_000 });
    expect(asked).toMatchObject({ state: "asking", complete: false, cells: {} });
    expect(asked.missing.map(({ cell }) => cell)).toEqual(["cell-01", "cell-02"]);
    for (const told of await waiting) {
      expect(told.queries).toEqual([
        {
          id: asked.id,
          sql: "SELECT count(*)\n\tFROM orders -- all",
          rowsMax: 1000,
          timeoutMs: expect.any(Number),
        },
      ]);
      expect(told.queries?.[0]?.timeoutMs).toBeLessThanOrEqual(60_000);
    }
    const result = read(asked.id, 30_000);
    expect(await answer("cell-01", asked.id, rows("7"))).toEqual({ kept: true });
    expect(await answer("cell-02", asked.id, rows(null))).toEqual({ kept: true });
    expect(await result).toMatchObject({
      state: "done",
      complete: true,
      missing: [],
      cells: { "cell-01": { rows: [["7"]] }, "cell-02": { rows: [[null]] } },
    });
    expect((await call("cell-01")).queries).toBeUndefined();
  });

  test("comes at once to an agent that waits, not with the end of its wait", async () => {
    const waiting = call("cell-02", { waitMs: 30_000 });
    await eventually(
      async () => control.publisher.waiting(),
      (count) => count === 1,
    );
    // Agents wait for five seconds: who is not woken hears of this one when it is over.
    const { id } = await ask({ sql: "select 1", cells: ["cell-02"], timeoutMs: 4500 });
    expect((await waiting).queries?.map((one) => one.id)).toEqual([id]);
    await finish(id);
  });

  test("is repeated until it is answered, but ends an agent's wait once", async () => {
    const { id } = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 60_000 });
    const idsOf = async (told: Promise<AgentSyncResponse>) =>
      (await told).queries?.map((one) => one.id);
    expect(await idsOf(call("cell-01", { waitMs: 30_000, instance: "a" }))).toEqual([id]);
    // The second time it waits: an agent that works on the question does not call in circles.
    const again = idsOf(call("cell-01", { waitMs: 300, instance: "a" }));
    await eventually(
      async () => control.publisher.waiting(),
      (count) => count === 1,
    );
    expect(await again).toEqual([id]);
    expect((await call("cell-02")).queries).toBeUndefined();
    expect((await call("cell-01", { primary: false, instance: "b" })).queries).toBeUndefined();
    await answer("cell-01", id, rows("1"));
    expect((await call("cell-01", { instance: "a" })).queries).toBeUndefined();
  });

  test("stands in the audit log before anybody is asked, all of it", async () => {
    const long = `SELECT '${"x".repeat(2500)}'`;
    const { id } = await ask({ sql: `${long}\nFROM t`, cells: ["cell-02"], reason: "month end" });
    const { items } = await operator.call({
      method: "GET",
      path: "/v1/audit?action=query.create&limit=1",
      schema: list(auditEntrySchema),
      timeoutMs: 10_000,
    });
    const after = z.object({ id: z.string(), sql: z.array(z.string()) }).parse(items[0]?.after);
    expect(after.id).toBe(id);
    expect(after.sql.join("")).toBe(`${long}FROM t`);
    expect(items[0]).toMatchObject({ reason: "month end", object: "cell-02" });
    await finish(id);
  });

  test("is for operators, about cells that are there, and within limits", async () => {
    const viewer = await control.client("viewer");
    const { id } = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 100 });
    expect(await codeOf(ask({ sql: "select 1" }, viewer))).toBe("FORBIDDEN");
    expect(await codeOf(read(id, 0, viewer))).toBe("FORBIDDEN");
    expect(await codeOf(ask({ sql: "select 1", cells: ["cell-99"] }))).toBe("CELL_UNKNOWN");
    expect(await codeOf(ask({ sql: "select 1", rowsMax: 1_000_000 }))).toBe("VALIDATION_FAILED");
    expect(await codeOf(ask({ sql: "select '\u0007'" }))).toBe("VALIDATION_FAILED");
    expect(await codeOf(read("qry_000000000000000000000000"))).toBe("NOT_FOUND");
    const { database } = control;
    await database.read.execute(sql`update cellfleet_control.fleet set mode = 'recovering'`);
    const refused = await codeOf(ask({ sql: "select 1" }));
    await database.read.execute(sql`update cellfleet_control.fleet set mode = 'normal'`);
    expect(refused).toBe("RECOVERING");
  });
});

describe("an answer", () => {
  test("counts once, from its own cell, and not after the deadline", async () => {
    const { id } = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 60_000 });
    expect(await codeOf(answer("cell-01", id, rows("1"), agent("cell-02")))).toBe("FORBIDDEN");
    expect(await answer("cell-02", id, rows("1"))).toEqual({ kept: false });
    expect(await answer("cell-01", id, rows("1"))).toEqual({ kept: true });
    expect(await answer("cell-01", id, rows("2"))).toEqual({ kept: false });
    expect((await read(id)).cells["cell-01"]?.rows).toEqual([["1"]]);
    const late = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 60_000 });
    await finish(late.id);
    expect(await answer("cell-01", late.id, rows("1"))).toEqual({ kept: false });
    expect(await read(late.id)).toMatchObject({ state: "done", complete: false, cells: {} });
  });

  test("may hold whatever tenants wrote, and no more rows than were asked for", async () => {
    const { id } = await ask({
      ...{ sql: "select 1", cells: ["cell-01"], rowsMax: 2 },
      timeoutMs: 60_000,
    });
    await answer("cell-01", id, rows("line\nnext\u001b[2J", "nul\u0000\ud800", "third"));
    const result = await read(id);
    expect(result.cells["cell-01"]).toEqual({
      columns: ["n"],
      rows: [["line\nnext\u001b[2J"], ["nul\ufffd\ufffd"]],
      truncated: true,
    });
    // All cells have answered, but not with all their rows.
    expect(result).toMatchObject({ state: "done", complete: false, missing: [] });
  });

  test("of eight megabytes of rows is taken, a larger body is not read", async () => {
    const { id } = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 60_000 });
    const tooLong = rows("x".repeat(queryAnswerBytesMax + 2 * 1024 * 1024));
    expect(await codeOf(answer("cell-01", id, tooLong))).toBe("BODY_TOO_LARGE");
    const value = "x".repeat(queryAnswerBytesMax);
    expect(await answer("cell-01", id, rows(value))).toEqual({ kept: true });
    expect((await read(id)).cells["cell-01"]?.rows[0]?.[0]).toHaveLength(value.length);
  });

  test("that is too large for all together is missing, and says so", async () => {
    const { database } = control;
    const { id } = await ask({ sql: "select 1", timeoutMs: 60_000 });
    await answer("cell-01", id, rows("1"));
    await database.read.execute(sql`
      update cellfleet_control.query_answer
         set answer = jsonb_set(answer, '{rows,0,0}', to_jsonb(repeat('x', ${queryBytesMax}::int)))
       where query = ${id}`);
    await answer("cell-02", id, rows("2"));
    const { rows: kept } = await database.read.execute<{ code: string }>(sql`
      select answer ->> 'code' as code from cellfleet_control.query_answer
       where query = ${id} and cell = 'cell-02'`);
    expect(kept).toEqual([{ code: "ANSWER_TOO_LARGE" }]);
    await database.read.execute(sql`delete from cellfleet_control.query where id = ${id}`);
  });
});

describe("a cell that is missing", () => {
  test("is named with the reason: an error, silence, or no agent at all", async () => {
    await openCell(control.database, "cell-03");
    await openCell(control.database, "cell-04");
    agents.set("cell-04", await control.client("agent", "cell-04"));
    await call("cell-04");
    const { database } = control;
    await database.read.execute(sql`
      update cellfleet_control.agent set seen_at = clock_timestamp() - interval '40 s'
       where cell = 'cell-04'`);
    const { id } = await ask({ sql: "select nothing", timeoutMs: 60_000 });
    await answer("cell-01", id, rows("1"));
    const error = { kind: "error", code: "42703", message: 'column "nothing" does not exist' };
    await answer("cell-02", id, error);
    expect((await read(id)).state).toBe("asking");
    const waiting = read(id, 30_000);
    await finish(id);
    // The deadline was moved by hand: whoever waits looks again with the next answer or question.
    await database.read.execute(sql`select pg_notify('cellfleet_query', ${id})`);
    expect(await waiting).toMatchObject({
      state: "done",
      complete: false,
      missing: [
        { cell: "cell-02", reason: '42703: column "nothing" does not exist' },
        { cell: "cell-03", reason: "no primary agent of it has ever called" },
        {
          cell: "cell-04",
          reason: expect.stringMatching(/^its primary agent was heard \d+ s ago$/),
        },
      ],
      cells: { "cell-01": { rows: [["1"]] } },
    });
    await database.read.execute(
      sql`update cellfleet_control.cell set state = 'retired' where id in ('cell-03', 'cell-04')`,
    );
  });

  test("is waited for no longer than was asked", async () => {
    const { id } = await ask({ sql: "select 1", cells: ["cell-01"], timeoutMs: 150 });
    const result = await read(id, 30_000);
    expect(result).toMatchObject({
      state: "done",
      missing: [{ cell: "cell-01", reason: "it did not answer within 150 ms" }],
    });
  });
});

test("questions and rows are gone after ten minutes, those that are younger stay", async () => {
  const { database } = control;
  const old = await ask({ sql: "select 1", cells: ["cell-01"] });
  await answer("cell-01", old.id, rows("secret"));
  const young = await ask({ sql: "select 1", cells: ["cell-01"] });
  await answer("cell-01", young.id, rows("1"));
  await database.read.execute(sql`
    update cellfleet_control.query set created_at = created_at - interval '11 min',
           deadline_at = deadline_at - interval '11 min' where id = ${old.id}`);
  await database.transaction(removeOldQueries);
  expect(await codeOf(read(old.id))).toBe("NOT_FOUND");
  expect(
    await database.read.$count(sql`cellfleet_control.query_answer where query = ${old.id}`),
  ).toBe(0);
  expect((await read(young.id)).complete).toBe(true);
  expect(control.troubles).toEqual([]);
});
