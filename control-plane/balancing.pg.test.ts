/**
 * Drains and rebalances over a real control plane: what is planned, begun, called off, refused. Moves that were
 * begun are ended by the test, as their executor would.
 */
import { afterEach, beforeEach, expect, test } from "vitest";
import { acceptedSchema, cellSchema, dryRunSchema, opSchema } from "../contract/control-api.ts";
import { rebalancePlanSchema } from "../contract/rebalance-api.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { eventually } from "./control.fixture.ts";
import { type MovesApi, refusal, startMovesApi, tenants } from "./moves.fixture.ts";
import { takeSeat } from "./store/leader.ts";
import { startBalancing } from "./work/balancing/balancer.ts";

let api: MovesApi;
let close: () => Promise<void>;
let troubles: unknown[];
beforeEach(async () => {
  api = await startMovesApi();
  troubles = [];
  // The creations of its tenants, which nobody carries out here.
  await api.run("update cellfleet_control.op set state = 'done'");
  const { database } = api.control;
  const term = await takeSeat(database, "test", 600_000);
  const loop = startBalancing({
    ...{ database, clock: systemClock, random: systemRandom, lead: { term: () => term } },
    onError: (error) => troubles.push(error),
  });
  close = async () => {
    await loop.close();
    await api.close();
  };
});
afterEach(async () => {
  await close?.();
  expect(troubles).toEqual([]);
});

const home = async (tenant: string) =>
  (await api.run(`select cell from cellfleet_control.placement where value = '${tenant}'`))[0]?.[
    "cell"
  ];
const moves = () =>
  api.run(
    "select m.op, m.source, m.target, o.state from cellfleet_control.move m join cellfleet_control.op o on o.id = m.op order by m.op",
  );
const cell = (id: string) => api.get(`/v1/cells/${id}`, cellSchema);
const op = (id: string) => api.get(`/v1/ops/${id}`, opSchema);

/** Everything that was begun arrives. */
const arrive = () =>
  api.run(`
    with open as (
      select k.key, m.op, m.target from cellfleet_control.move_key k join cellfleet_control.move m on m.op = k.op where k.open
    ), moved as (
      update cellfleet_control.placement p set cell = o.target, epoch = p.epoch + 1 from open o where p.key = o.key
    ), closed as (
      update cellfleet_control.move_key k set open = false from open o where k.op = o.op
    )
    update cellfleet_control.op set state = 'done', step = 'done', version = version + 1
     where id in (select op from open)`);

async function finish(id: string) {
  return eventually(
    async () => {
      await arrive();
      return op(id);
    },
    ({ state }) => state !== "running",
  );
}

test("a cell is drained to where placement would put its tenants, and is cordoned then", async () => {
  const dry = await api.post("/v1/cells/cell-01/drain", { dryRun: true }, dryRunSchema);
  expect([...new Set(dry.plan.steps.map(({ action }) => action))]).toEqual([
    "cordon",
    "move",
    "finish",
  ]);
  expect((await cell("cell-01")).state).toBe("active");
  const { op: started } = await api.post("/v1/cells/cell-01/drain", {}, acceptedSchema);
  expect((await cell("cell-01")).state).toBe("draining");
  expect(await finish(started.id)).toMatchObject({
    state: "done",
    headline: "cell-01 is empty and cordoned",
  });
  expect(await cell("cell-01")).toMatchObject({ state: "cordoned", goal: "cordoned" });
  expect(await Promise.all(tenants.map(home))).not.toContain("cell-01");
  await api.post("/v1/cells/cell-01/uncordon", {}, acceptedSchema);
});

test("a share goes by stable hash, and the cell is what it was; a target can be named", async () => {
  const self = api.post("/v1/cells/cell-01/drain", { to: "cell-01" }, acceptedSchema);
  await expect(refusal(self)).resolves.toMatchObject({ code: "VALIDATION_FAILED" });
  const half = { percent: 50, dryRun: true };
  const dry = await api.post("/v1/cells/cell-01/drain", half, dryRunSchema);
  expect(dry.plan.steps.at(-1)?.text).toMatch(
    /^\d+ keys? \(50 % of all, by a stable hash\) ha(s|ve) left: cell-01 is active$/,
  );
  const { op: started } = await api.post(
    "/v1/cells/cell-01/drain",
    { percent: 50, to: "cell-03" },
    acceptedSchema,
  );
  const over = await finish(started.id);
  expect(over.headline).toBe("50 % of the keys of cell-01 have left; it is active");
  expect((await cell("cell-01")).state).toBe("active");
  const homes = await Promise.all(tenants.map(home));
  const left = homes.filter((one) => one === "cell-01").length;
  expect(left).toBeGreaterThan(0);
  expect(new Set((await moves()).map(({ target }) => target))).toEqual(new Set(["cell-03"]));
  const idle = await api.post("/v1/cells/cell-01/drain", half, dryRunSchema);
  expect(idle.plan.steps.map(({ text }) => text).slice(1)).toEqual([
    "nothing would move: no key is to leave (50 % of all, by a stable hash)",
    "cell-01 is active",
  ]);
  const again = await api.post("/v1/cells/cell-01/drain", { percent: 50 }, acceptedSchema);
  expect(again.next_steps).toEqual([`cellctl op watch ${again.op.id}`, "cellctl cell get cell-01"]);
  expect((await finish(again.op.id)).state).toBe("done");
  expect((await Promise.all(tenants.map(home))).filter((one) => one === "cell-01")).toHaveLength(
    left,
  );
});

test("uncordon calls it off: what has not switched stays", async () => {
  const { op: started } = await api.post("/v1/cells/cell-01/drain", {}, acceptedSchema);
  await eventually(moves, (begun) => begun.length > 0);
  await api.post("/v1/cells/cell-01/uncordon", { reason: "not today" }, acceptedSchema);
  expect(await op(started.id)).toMatchObject({ state: "cancelled", step: "cancelled" });
  expect((await cell("cell-01")).state).toBe("active");
  const wishes = await api.run("select wish from cellfleet_control.move");
  expect(wishes.every(({ wish }) => wish === "cancel")).toBe(true);
});

test("a dead cell is not drained, and neither is one under another operation", async () => {
  await api.run(
    "update cellfleet_control.cell set health = 'down', health_reason = 'no answer' where id = 'cell-01'",
  );
  await expect(
    refusal(api.post("/v1/cells/cell-01/drain", {}, acceptedSchema)),
  ).resolves.toMatchObject({
    code: "STATE_CONFLICT",
    nextSteps: ["cellctl failover plan cell-01", "cellctl cell start cell-01"],
  });
  await api.run("update cellfleet_control.cell set health = 'healthy' where id = 'cell-01'");
  await api.post("/v1/cells/cell-01/drain", {}, acceptedSchema);
  await expect(
    refusal(api.post("/v1/cells/cell-01/drain", {}, acceptedSchema)),
  ).resolves.toMatchObject({
    code: "STATE_CONFLICT",
  });
});

test("a drain waits while the lever is engaged, and goes on", async () => {
  const { op: started } = await api.post("/v1/cells/cell-01/drain", {}, acceptedSchema);
  await api.post("/v1/lever/engage", { reason: "month end" }, acceptedSchema);
  await eventually(
    () => op(started.id),
    ({ headline }) => headline.includes("month end"),
  );
  await api.post("/v1/lever/release", { reason: "over" }, acceptedSchema);
  expect((await finish(started.id)).state).toBe("done");
});

test("while a budget is burnt a rebalance that only mends is applied, and one for balance is not", async () => {
  await api.run("update cellfleet_control.tenant set size_bytes = 1000000000");
  const balance = await api.post("/v1/rebalance/plan", { goal: "tenants" }, rebalancePlanSchema);
  await api.run(`insert into cellfleet_control.slo_desk (one, burnt, at) values (true, '{"cell-01: burnt"}', now())
                 on conflict (one) do update set burnt = excluded.burnt, at = excluded.at`);
  const apply = (body: object) => api.post("/v1/rebalance/apply", body, acceptedSchema);
  await expect(refusal(apply({ plan: balance }))).resolves.toMatchObject({ code: "BUDGET_BURNT" });
  // It is looked at, not believed.
  const said = balance.moves.map((move) => ({ ...move, why: "repair" }));
  await expect(refusal(apply({ plan: { ...balance, moves: said } }))).resolves.toMatchObject({
    code: "BUDGET_BURNT",
  });
  const [first] = balance.moves;
  await api.run(`update cellfleet_control.tenant set labels = '{"cellfleet.apart":"rivals"}'
                  where placement_key in (select key from cellfleet_control.placement
                                           where cell = '${first?.from}' order by key limit 2)`);
  const mending = await api.post("/v1/rebalance/plan", { movesMax: 1 }, rebalancePlanSchema);
  expect(mending.moves.map(({ why }) => why)).toEqual(["repair"]);
  const { op } = await apply({ plan: mending });
  expect(await finish(op.id)).toMatchObject({ state: "done" });
  await api.run("update cellfleet_control.tenant set labels = '{}'");
  await api.run("delete from cellfleet_control.slo_desk");
});

test("a rebalance is planned, applied by live moves, and a stale plan is refused", async () => {
  await api.run("update cellfleet_control.tenant set size_bytes = 1000000000");
  const plan = await api.post("/v1/rebalance/plan", { goal: "tenants" }, rebalancePlanSchema);
  expect(plan.moves.length).toBeGreaterThan(0);
  expect(plan.summary.peakAfter).toBeLessThan(plan.summary.peakBefore);
  const what = { removeCells: ["cell-02"], addCells: ["cell-09"] };
  const whatIf = await api.post(
    "/v1/rebalance/plan",
    { ...what, goal: "tenants" },
    rebalancePlanSchema,
  );
  expect(whatIf).toMatchObject({ whatIf: true });
  for (const odd of [{ startAbove: 0.01, stopBelow: 0.02 }, { addCells: ["cell-02"] }]) {
    await expect(
      refusal(api.post("/v1/rebalance/plan", odd, rebalancePlanSchema)),
    ).resolves.toMatchObject({ code: "VALIDATION_FAILED" });
  }
  const apply = (body: object) => api.post("/v1/rebalance/apply", body, acceptedSchema);
  await expect(refusal(apply({ plan: whatIf }))).resolves.toMatchObject({
    code: "VALIDATION_FAILED",
  });
  const { op: started } = await apply({ plan });
  expect(await finish(started.id)).toMatchObject({ state: "done" });
  for (const { key, to } of plan.moves) expect(await home(key.split("/")[2] ?? "")).toBe(to);
  await expect(refusal(apply({ plan }))).resolves.toMatchObject({ code: "PLAN_STALE" });
  const other = { ...plan, fleet: "another" };
  await expect(refusal(apply({ plan: other }))).resolves.toMatchObject({ code: "PLAN_STALE" });
});
