/** An agent that looks for forgotten tables must not lose its lease over it. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, openBench, until } from "./agent.fixture.ts";

let server: TestPostgres;
let bench: AgentBench;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  bench = await openBench(server, "cell-1");
});
afterEach(() => bench.close());

const reported = () => bench.control.calls.findLast((one) => one.primary)?.stage?.unclassed;

test("keeps calling while the list of classes is locked, and tells when it is free", async () => {
  await bench.serving();
  await until("no table", () => reported()?.count === 0);
  await bench.store.owner("create table notes (id integer)");
  await bench.store.admin.query("begin; lock table cellfleet.classed_table");
  await until("calls go on without it", () => reported() === undefined);
  const before = bench.control.calls.length;
  await until("more than once", () => bench.control.calls.length > before + 1);
  expect(reported()).toBeUndefined();
  await bench.store.admin.query("rollback");
  await until("it is told", () => reported()?.names.join() === "public.notes");
});
