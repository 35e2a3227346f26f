/**
 * Error budgets over a real control plane: what routers and agents say is counted once, in minutes and then in
 * hours; a budget that is burnt stops what can wait and no repair; objectives are set and forgotten.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { acceptedSchema, dryRunSchema, list } from "../contract/control-api.ts";
import { sloSchema } from "../contract/slo-api.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { createMetrics } from "../runtime/metrics.ts";
import { callAgent, callRouter } from "./control.fixture.ts";
import { type MovesApi, refusal, startMovesApi } from "./moves.fixture.ts";
import { takeSeat } from "./store/leader.ts";
import { requireStillSafe } from "./store/safety.ts";
import { tidyCounts } from "./store/slo-counts.ts";
import { judgeBudgets, showBudgets } from "./work/slo.ts";

let api: MovesApi;
let router: JsonClient;
let term: number;
beforeAll(async () => {
  api = await startMovesApi();
  router = await api.control.client("router", "r1");
  term = (await takeSeat(api.control.database, "test", 600_000)) ?? 0;
});
afterAll(async () => {
  await api?.close();
});
beforeEach(async () => {
  await api.run("delete from cellfleet_control.slo_count");
  await api.run("delete from cellfleet_control.slo_source");
  await api.run("delete from cellfleet_control.slo_objective where id <> 'availability'");
});

type Count = readonly [cell: string, service: string, requests: number, failures: number];
const say = (instance: string, ...counts: readonly Count[]) =>
  callRouter(router, "r1", {
    instance,
    served: counts.map(([cell, service, requests, failures]) => ({
      ...{ cell, service, requests, failures },
    })),
  });
const tell = async (cell: string, outcomes: unknown) =>
  callAgent(await api.control.client("agent", cell), cell, { outcomes });
const sums = () =>
  api.run(`select cell, service, tier, sum(requests)::int as requests, sum(failures)::int as failures
             from cellfleet_control.slo_count group by 1, 2, 3 order by 1, 2, 3`);
const judge = () => judgeBudgets(api.control.database, term);
const worst = async (id = "availability") =>
  (await judge()).slos.find((one) => one.id === id)?.worst ?? undefined;
const put = (id: string, body: unknown) =>
  api.client.call({
    ...{ method: "PUT", path: `/v1/slos/${id}`, body, schema: acceptedSchema, timeoutMs: 30_000 },
  });
const remove = (id: string, body: object = { reason: "not sold any more" }) =>
  api.client.call({
    ...{ method: "DELETE", path: `/v1/slos/${id}`, body, schema: acceptedSchema },
    timeoutMs: 30_000,
  });
const now = (operation: Parameters<typeof requireStillSafe>[1], override: readonly string[] = []) =>
  requireStillSafe(api.control.database.read, operation, override);
const row = (cell: string, service: string, tier: string, requests: number, failures: number) => ({
  ...{ cell, service, tier, requests, failures },
});
/** So long ago that the whole window is counted. */
const monthAgo = (cell: string, requests: number, failures: number) =>
  api.run(`insert into cellfleet_control.slo_count
    values ('${cell}', 'default', '', 'hour', date_trunc('hour', now() - interval '30 days' + interval '2 hours'),
            ${requests}, ${failures})`);

test("totals of a router count once, however its calls are lost, repeated or late", async () => {
  await say("one", ["cell-01", "default", 100, 1]);
  await say("one", ["cell-01", "default", 100, 1]);
  // A call in between was lost.
  await say("one", ["cell-01", "default", 250, 4], ["cell-02", "shop", 5, 0]);
  // One that was on its way for long says less than is known.
  await say("one", ["cell-01", "default", 180, 2]);
  await say("one", ["cell-01", "default", 260, 4], ["cell-02", "shop", 5, 0]);
  expect(await sums()).toEqual([
    row("cell-01", "default", "", 260, 4),
    row("cell-02", "shop", "", 5, 0),
  ]);
  // Begun anew, it begins at nothing; cells that are not count for nobody.
  await say("two", ["cell-01", "default", 40, 0], ["cell-99", "default", 7, 7]);
  expect(await sums()).toMatchObject([{ requests: 300, failures: 4 }, { requests: 5 }]);
});

test("a batch of an agent counts once, by tier; an annex counts for its host", async () => {
  const tenants = [
    { keyspace: "default", tenant: "acme", service: "default", requests: 6, failures: 2 },
    { keyspace: "default", tenant: "hooli", service: "default", requests: 4, failures: 0 },
    { keyspace: "default", tenant: "nobody", service: "default", requests: 9, failures: 9 },
  ];
  await tell("cell-01", { number: 1, tenants });
  await tell("cell-01", { number: 1, tenants });
  await tell("cell-01", { number: 2, tenants: tenants.slice(0, 1) });
  expect(await sums()).toEqual([
    row("cell-01", "default", "gold", 4, 0),
    row("cell-01", "default", "standard", 12, 4),
  ]);
  await api.run(
    "update cellfleet_control.cell set annex_origin = 'cell-01', annex_host = 'cell-02' where id = 'cell-03'",
  );
  await tell("cell-03", { number: 1, tenants: tenants.slice(1, 2) });
  await api.run(
    "update cellfleet_control.cell set annex_origin = null, annex_host = null where id = 'cell-03'",
  );
  expect(await sums()).toContainEqual(row("cell-02", "default", "gold", 4, 0));
});

test("minutes become hours after a day, and say the same", async () => {
  await api.run(`insert into cellfleet_control.slo_count
    select 'cell-01', 'default', '', 'minute', date_trunc('minute', now()) - n * interval '1 minute', 10, 1
      from generate_series(0, 60 * 26) as n`);
  const before = await worst();
  for (let turn = 0; turn < 2; turn += 1) await api.control.database.transaction(tidyCounts);
  const after = await worst();
  expect(after).toMatchObject({ requests: 15_610, failures: 1561 });
  expect({ ...after?.burn, left: 0 }).toEqual({ ...before?.burn, left: 0 });
  const [left] = await api.run(`select
    count(*) filter (where grain = 'hour')::int as hours,
    count(*) filter (where grain = 'minute' and at < now() - interval '25 hours')::int as late,
    count(*) filter (where grain = 'minute')::int > 24 * 60 as day from cellfleet_control.slo_count`);
  expect(left).toMatchObject({ late: 0, day: true });
  expect([2, 3]).toContain(left?.["hours"]);
});

test("a burnt budget stops what can wait when it is asked for and when it takes effect, and no repair", async () => {
  await monthAgo("cell-02", 100_000, 140);
  await judge();
  const text = "cell-02 / availability: 140 % of the budget of 30 d is used";
  await expect(refusal(now({ kind: "rebalance.apply" }))).resolves.toMatchObject({
    ...{ code: "BUDGET_BURNT", message: expect.stringContaining(text) },
  });
  for (const kind of ["failover.planned", "rebalance.apply", "drill.run"] as const) {
    await expect(refusal(now({ kind }))).resolves.toMatchObject({ code: "BUDGET_BURNT" });
    await expect(now({ kind }, ["budget"])).resolves.toBeUndefined();
  }
  for (const kind of ["failover.unplanned", "cell.uncordon", "cell.start", "cell.wipe"] as const) {
    await expect(now({ kind, cell: "cell-02" })).resolves.toBeUndefined();
  }
  // Who moves tenants away from a cell that burns, or keeps new ones from it, is ending it.
  for (const kind of ["cell.cordon", "cell.drain", "move.start"] as const) {
    await expect(now({ kind, cell: "cell-02" })).resolves.toBeUndefined();
  }
  // A lower objective frees it at once.
  await put("availability", { target: 0.99, reason: "we were too proud" });
  await expect(now({ kind: "rebalance.apply" })).resolves.toBeUndefined();
  await put("availability", { target: 0.999 });
  await expect(refusal(now({ kind: "rebalance.apply" }))).resolves.toBeDefined();
});

test("the seconds of one failover of a young fleet stop nothing", async () => {
  await say("one", ["cell-01", "default", 4500, 0]);
  await say("one", ["cell-01", "default", 5250, 750]);
  expect(await worst()).toMatchObject({ requests: 5250, failures: 750, verdict: "ok" });
  await expect(now({ kind: "rebalance.apply" })).resolves.toBeUndefined();
});

test("what a cell failed by dying stops nothing once it was taken over, and what it fails afterwards does", async () => {
  await monthAgo("cell-02", 100_000, 140);
  await judge();
  await expect(refusal(now({ kind: "rebalance.apply" }))).resolves.toMatchObject({
    code: "BUDGET_BURNT",
  });
  const failedOver = async (state: string) => {
    await api.run(`insert into cellfleet_control.op (id, kind, object, state, step, headline, actor)
                   values ('op_gone', 'cell.failover', 'cell-02', '${state}', '${state}', '', 'auto')
                   on conflict (id) do update set state = excluded.state, step = excluded.step`);
    await api.run(`insert into cellfleet_control.failover (op, cell, region, mode, started_by, plan)
                   values ('op_gone', 'cell-02', 'local', 'unplanned', 'auto', '{}')
                   on conflict (op) do nothing`);
    await judge();
  };
  await failedOver("cancelled");
  await expect(refusal(now({ kind: "rebalance.apply" }))).resolves.toBeDefined();
  await failedOver("done");
  await expect(now({ kind: "rebalance.apply" })).resolves.toBeUndefined();
  // People are told of it as before.
  expect(await worst()).toMatchObject({ cell: "cell-02", failures: 140, verdict: "burnt" });
  await api.run("update cellfleet_control.op set updated_at = now() - interval '40 days'");
  await judge();
  await expect(refusal(now({ kind: "rebalance.apply" }))).resolves.toBeDefined();
  await api.run("delete from cellfleet_control.failover where op = 'op_gone'");
  await api.run("delete from cellfleet_control.op where id = 'op_gone'");
});

test("objectives are set, shown and forgotten; cells that are not are refused", async () => {
  const dry = { cell: "cell-01", tier: "gold", target: 0.9995, windowDays: 7, dryRun: true };
  const plan = await api.client.call({
    ...{ method: "PUT", path: "/v1/slos/gold", body: dry, schema: dryRunSchema },
    timeoutMs: 30_000,
  });
  expect(plan.plan.steps[0]?.text).toBe("hold cell-01, tier gold to 99.95 % of requests over 7 d");
  await put("gold", { ...dry, dryRun: false, reason: "as sold" });
  await put("gold", { windowDays: 14 });
  const { items } = await api.get("/v1/slos", list(sloSchema));
  expect(items.map(({ id }) => id)).toEqual(["availability", "gold"]);
  expect(await api.get("/v1/slos/gold", sloSchema)).toMatchObject({
    ...{ cell: "cell-01", service: "*", tier: "gold", target: 0.9995, windowDays: 14 },
    cells: [{ cell: "cell-01", verdict: "few" }],
  });
  await expect(refusal(put("other", { cell: "cell-99" }))).resolves.toMatchObject({
    code: "CELL_UNKNOWN",
  });
  await expect(refusal(remove("gold", {}))).resolves.toMatchObject({ code: "VALIDATION_FAILED" });
  await remove("gold");
  await expect(refusal(remove("gold"))).resolves.toMatchObject({ code: "NOT_FOUND" });
});

test("what is left is shown where there is enough to say, and nobody else's word is", async () => {
  await monthAgo("cell-01", 100_000, 25);
  const metrics = createMetrics();
  const show = showBudgets(metrics);
  show(await judge());
  expect(metrics.text()).toContain(
    'cellfleet_slo_budget_left{objective="availability",cell="cell-01"} 0.75',
  );
  const burntOne = 'cellfleet_slo_burnt{objective="availability",cell="cell-02"} 0';
  expect(metrics.text()).toContain(burntOne);
  expect(metrics.text()).not.toContain('left{objective="availability",cell="cell-02"');
  expect(await judgeBudgets(api.control.database, term + 1)).toEqual({
    ...{ slos: [], stopping: [] },
  });
});
