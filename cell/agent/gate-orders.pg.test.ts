/** Moves close gates through the cell's database: every agent that lives obeys, answers, and opens again. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";

const op = "op_1move000001";

let server: TestPostgres;
let bench: AgentBench;
let number = 0;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  number += 1;
  bench = await openBench(server, `cell-gates-${number}`);
});
afterEach(() => bench.close());

const close = (attempt: number, epoch = 1) =>
  bench.store.admin.query("select cellfleet.close_gates($1, $2, $3)", [
    JSON.stringify([{ key: acmeKey, epoch }]),
    ...[op, attempt],
  ]);
const open = (attempt: number) =>
  bench.store.admin.query("select cellfleet.open_gates($1, $2)", [op, attempt]);

/** In flight at each agent that is not done. */
async function waitsFor(attempt: number): Promise<readonly (number | null)[]> {
  const { rows } = await bench.store.admin.query(
    "select in_flight from cellfleet.gates_open($1, $2) order by in_flight",
    [op, attempt],
  );
  return rows.map(({ in_flight: inFlight }) => inFlight);
}
const serves = async (agent: Agent) => (await bench.ask(agent)).status === 201;
const refusal = async (agent: Agent) => {
  const answer = await bench.ask(agent);
  return [answer.status, answer.code, answer.header(headers.notAdmitted)];
};
const closed = [503, "GATE_CLOSED", "nonce-1"];

test("agents close at once and tell what is in flight until the last one is out", async () => {
  const first = await bench.serving();
  const second = await bench.start();
  await until("the second serves", () => serves(second));
  bench.app.seen.length = 0;
  const release = bench.app.hold();
  const held = [bench.ask(first), bench.ask(first)];
  await until("they are in flight", () => bench.app.seen.length === 2);
  await close(1);
  await until("both have answered", async () => {
    const left = await waitsFor(1);
    return left.length === 1 && left[0] === 2;
  });
  expect(await refusal(first)).toEqual(closed);
  expect(await refusal(second)).toEqual(closed);
  release();
  await until("nothing is in flight", async () => (await waitsFor(1)).length === 0);
  expect((await Promise.all(held)).map(({ status }) => status)).toEqual([201, 201]);
  await open(1);
  await until("both serve", async () => (await serves(first)) && (await serves(second)));
});

test("an agent that starts meanwhile lets nothing in; one that dies is not waited for", async () => {
  const first = await bench.serving();
  bench.app.seen.length = 0;
  const release = bench.app.hold();
  const held = bench.ask(first).catch(() => undefined);
  await until("it is in flight", () => bench.app.seen.length === 1);
  await close(1);
  await until("the first has answered", async () => (await waitsFor(1)).includes(1));
  const late = await bench.start();
  // From its first answer on: before it knows its keys it refuses, too.
  const statuses = new Set<string>();
  await until("the late one refuses by the gate", async () => {
    const [, code = "served"] = await refusal(late);
    statuses.add(String(code));
    return code === "GATE_CLOSED" && (await refusal(late))[2] === "nonce-1";
  });
  expect([...statuses]).not.toContain("served");
  await until("it has answered", async () => String(await waitsFor(1)) === "1");
  expect(bench.app.seen).toHaveLength(1);
  // Of the first one nothing is left but what its database heard last.
  const leaving = first.close();
  await until("it is not waited for", async () => (await waitsFor(1)).length === 0);
  release();
  await held;
  await leaving;
  await open(2);
  await until("the late one serves", () => serves(late));
});

test("a lost session is missed, comes back and answers anew; an answer to an earlier attempt is none", async () => {
  const agent = await bench.serving();
  await close(1);
  await until("it has answered", async () => (await waitsFor(1)).length === 0);
  await bench.store.admin.query("delete from cellfleet.gate_answer");
  const { rows } = await bench.store.admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where application_name like 'cellfleet-agent cell%' and datname = current_database()`,
  );
  expect(rows).toHaveLength(1);
  const answers = async () =>
    (await bench.store.admin.query("select attempt, in_flight from cellfleet.gate_answer")).rows;
  await until("it answers anew", async () => (await answers()).length === 1);
  expect(await waitsFor(1)).toEqual([]);
  expect(await refusal(agent)).toEqual(closed);
  await open(2);
  await until("it serves", () => serves(agent));
  await close(3);
  await until("it has answered the third", async () => (await waitsFor(3)).length === 0);
  expect(await answers()).toEqual([{ attempt: 3, in_flight: 0 }]);
  await expect(open(2)).rejects.toMatchObject({ code: "55000" });
  expect(await refusal(agent)).toEqual(closed);
});

test("a gate that is open in the database again refuses nobody, whether the agent has heard of it or not", async () => {
  const agent = await bench.serving();
  for (const attempt of [1, 3, 5, 7, 9]) {
    await close(attempt);
    await until("it is closed", async () => (await waitsFor(attempt)).length === 0);
    // As when the notification is still on its way, or was lost: nobody tells the agent.
    await bench.store.admin.query("delete from cellfleet.closed_gate");
    expect(await serves(agent), `after attempt ${attempt}`).toBe(true);
  }
  // One that stays closed is looked at as well, and refuses.
  await close(11);
  await until("it is closed", async () => (await waitsFor(11)).length === 0);
  expect(await refusal(agent)).toEqual(closed);
});

test("a key that came back at another epoch is served, whatever a forgotten line says", async () => {
  const agent = await bench.serving();
  await close(1);
  await until("it has answered", async () => (await waitsFor(1)).length === 0);
  await bench.applied(bench.control.own(acmeKey, "active", 3));
  await until("it serves", async () => (await bench.ask(agent, { epoch: 3 })).status === 201);
  expect(agent.gate.isClosed(acmeKey)).toBe(false);
});
