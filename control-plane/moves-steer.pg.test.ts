/** Moves that are begun, listed, steered and taken back, as the real API records it. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { auditEntrySchema, list, resolutionSchema, tenantSchema } from "../contract/control-api.ts";
import { explanationSchema } from "../contract/explanation.ts";
import {
  type Move,
  type MoveAction,
  type MoveCheck,
  type MoveStep,
  moveActions,
  movePlansSchema,
  moveSchema,
  moveSteps,
} from "../contract/move-api.ts";
import { must } from "../runtime/assert.ts";
import { refuseAction } from "./core/move/move-actions.ts";
import { fine, type MovesApi, refusal, resetMoves, seen, startMovesApi } from "./moves.fixture.ts";
import { codeOf } from "./plane.fixture.ts";

let api: MovesApi;
beforeAll(async () => {
  api = await startMovesApi();
});
afterAll(async () => {
  await api?.close();
});
beforeEach(() => resetMoves(api));

const override = (cell: string) => ({ tenant: "ann", keyspace: "users", cell });
const asDelete = { method: "DELETE", body: {}, schema: z.unknown(), timeoutMs: 20_000 } as const;

describe("a move that is begun", () => {
  test("is recorded with its audit entry, its keys and its room; asked again by its key it is the same", async () => {
    const body = {
      tenants: ["acme", "globex"],
      to: "cell-02",
      reason: "rack work",
      options: { soakMs: 0 },
    };
    const { items, next_steps } = await api.start(body, "key-1");
    expect(items.map(({ step, state, reason }) => [step, state, reason])).toEqual([
      ["planned", "running", "rack work"],
      ["planned", "running", "rack work"],
    ]);
    expect(items[0]).toMatchObject({
      options: { soakMs: 0, switch: "manual" },
      asked: null,
      version: 1,
    });
    expect(items[0]?.progress).toMatchObject({ rowsCopied: 0, lagBytes: null });
    expect(next_steps).toEqual(["cellctl move ls --state running"]);
    expect((await api.start(body, "key-1")).items).toEqual(items);
    expect([await api.count("move"), await api.usage("cell-02")]).toEqual([2, 2]);
    const { items: entries } = await api.get(
      "/v1/audit?action=move.start&limit=1000",
      list(auditEntrySchema),
    );
    const ours = entries.filter(({ reason }) => reason === "rack work");
    expect(ours).toMatchObject([{ action: "move.start", outcome: "accepted", object: "acme" }]);
    expect(JSON.stringify(ours[0]?.after)).toContain(must(items[1], "second").id);
  });

  test("is not begun by a dry run, which answers with the same plans", async () => {
    const body = { tenants: ["acme"], to: "cell-02" };
    const dry = await api.post("/v1/moves", { ...body, dryRun: true }, movePlansSchema);
    expect(dry).toEqual(await api.plan(body));
    expect([await api.count("move"), await api.usage("cell-02")]).toEqual([0, 0]);
  });

  test("is refused by what the preflight found, with all of it, and audited", async () => {
    const bad: MoveCheck = {
      ...fine,
      id: "drift",
      verdict: "refused",
      text: "orders differs",
      fix: "cellctl schema check",
    };
    api.looks.look = async ({ keys }) => ({
      ...seen,
      checks: keys[0]?.endsWith("globex") ? [bad] : [fine],
    });
    const unfit = await refusal(api.start({ tenants: ["acme", "globex"], to: "cell-02" }));
    expect(unfit.code).toBe("MOVE_UNFIT");
    expect(unfit.message).toContain("orders differs");
    expect(unfit.details).toMatchObject({
      checks: [{ id: "drift" }],
      keys: ["default/tenant/globex"],
    });
    expect(unfit.nextSteps).toEqual(["cellctl schema check"]);
    expect(await api.count("move")).toBe(0);
    const rows = await api.run(
      `select outcome from cellfleet_control.audit order by id desc limit 1`,
    );
    expect(rows[0]?.["outcome"]).toBe("MOVE_UNFIT");
  });

  test("holds its keys: no other move and nothing else begins on them", async () => {
    const { id } = await api.begin("acme", "globex");
    const moving = await refusal(api.start({ tenants: ["globex"], to: "cell-03" }));
    expect(moving.code).toBe("KEY_IN_MOTION");
    expect(moving.details).toMatchObject({ move: id, key: "default/tenant/globex" });
    expect(moving.nextSteps).toContain(`cellctl move cancel ${id}`);
  });

  test("keeps its keys from everything else, and its cells from being destroyed", async () => {
    const { placement } = await api.get("/v1/tenants/ann", tenantSchema);
    const { id } = await api.begin("acme");
    const container = must(
      (await api.start({ keys: [placement.key], to: "cell-02" })).items[0],
      "m",
    );
    const codes = [
      await codeOf(api.post("/v1/tenants/acme/suspend", {}, z.unknown())),
      await codeOf(api.client.call({ ...asDelete, path: "/v1/tenants/acme" })),
      await codeOf(api.post("/v1/overrides", override("cell-01"), z.unknown())),
    ];
    expect(codes).toEqual(["KEY_IN_MOTION", "KEY_IN_MOTION", "KEY_IN_MOTION"]);
    const destroyed = await refusal(api.post("/v1/cells/cell-02/destroy", {}, z.unknown()));
    expect([destroyed.code, destroyed.details["rule"]]).toEqual(["SAFETY_RULE", "open-moves"]);
    expect(destroyed.nextSteps).toEqual([`cellctl move show ${id}`, `cellctl move cancel ${id}`]);
    expect(await api.get("/v1/tenants/acme", tenantSchema)).toMatchObject({
      move: { id, step: "planned", source: "cell-01", target: "cell-02" },
    });
    const why = await api.get("/v1/tenants/ann/placement/explain", explanationSchema);
    expect(why.move?.id).toBe(container.id);
    const where = await api.get("/v1/tenants/acme/placement", resolutionSchema);
    expect(where.move?.id).toBe(id);
    expect((await api.get("/v1/tenants/hooli", tenantSchema)).move).toBeUndefined();
  });

  test("is what an override into another cell becomes: the commands are named", async () => {
    const elsewhere = await refusal(api.post("/v1/overrides", override("cell-02"), z.unknown()));
    expect([elsewhere.code, elsewhere.nextSteps]).toEqual([
      "STATE_CONFLICT",
      [
        "cellctl route override add ann --keyspace users --cell cell-01",
        "cellctl move start --key users/tenant/ann --to cell-02 --wait",
      ],
    ]);
  });

  test("is refused when what was looked at is not what there is any more", async () => {
    api.looks.look = async () => {
      await api.run(
        `update cellfleet_control.placement set epoch = epoch + 1 where value = 'acme'`,
      );
      return seen;
    };
    const raced = await refusal(api.start({ tenants: ["acme"], to: "cell-02" }));
    expect(raced.code).toBe("STATE_CONFLICT");
    expect(raced.message).toContain("while the cells were looked at");
  });
});

describe("moves as they are listed", () => {
  test("by state, step, cell, tenant and page; newest first", async () => {
    const first = await api.begin("acme");
    const second = must((await api.start({ tenants: ["globex"], to: "cell-03" })).items[0], "move");
    const { placement } = await api.get("/v1/tenants/ann", tenantSchema);
    const third = must(
      (await api.start({ keys: [placement.key], to: "cell-02" })).items[0],
      "move",
    );
    await api.setStep(first.id, "cancelled", "cancelled");
    const page = (query: string) => api.get(`/v1/moves?${query}`, list(moveSchema));
    const ids = async (query: string) => (await page(query)).items.map(({ id }) => id);
    const newest = (...moves: Move[]) => moves.map(({ id }) => id).sort((a, b) => (a < b ? 1 : -1));
    expect(await ids("")).toEqual(newest(first, second, third));
    expect(await ids("state=running")).toEqual(newest(second, third));
    expect(await ids("step=cancelled")).toEqual([first.id]);
    expect(await ids("cell=cell-03")).toEqual([second.id]);
    expect(await ids("tenant=acme")).toEqual([first.id]);
    expect(await ids("tenant=ann")).toEqual([third.id]);
    expect(await ids(`op=${second.id}`)).toEqual([second.id]);
    const { items, next } = await page("limit=2");
    expect(items).toHaveLength(2);
    expect(await ids(`limit=2&cursor=${next}`)).toHaveLength(1);
  });

  test("one is read as soon as it has changed", async () => {
    const { id, version } = await api.begin("acme");
    const waiting = api.get(`/v1/moves/${id}?after=${version}&waitMs=20000`, moveSchema);
    await api.run(
      `update cellfleet_control.op set version = version + 1, step = 'preflight' where id = '${id}'`,
    );
    await api.run(`select pg_notify('cellfleet_op', '${id}')`);
    expect((await waiting).step).toBe("preflight");
  });
});

/** Every action but `reverse` at every step: what was answered, and what the table says. */
async function ask(move: Move, step: MoveStep, action: MoveAction): Promise<void> {
  const { id } = move;
  await api.setStep(id, step);
  await api.run(
    `update cellfleet_control.move set wish = 'none', paused = false where op = '${id}'`,
  );
  const expected = refuseAction({ ...(await api.move(id)), reversal: undefined }, action);
  if (expected !== undefined) {
    const { code, message, nextSteps } = await refusal(api.act(id, action));
    expect({ code, text: message, nextSteps }).toEqual({ code: "STATE_CONFLICT", ...expected });
    return;
  }
  const now = (await api.act(id, action)).move;
  expect(action === "pause" ? now.paused : now.asked).toBe(action === "pause" ? true : action);
  // The executor's compare-and-set is not disturbed.
  expect(now.version).toBe(move.version);
}

describe("what is asked of a move", () => {
  test("one that is cancelled, or over, is not paused", async () => {
    const { id } = await api.begin("acme");
    await api.act(id, "pause");
    expect((await api.act(id, "cancel")).move).toMatchObject({ paused: false, asked: "cancel" });
    await api.run(`update cellfleet_control.move set paused = true where op = '${id}'`);
    await api.setStep(id, "failed", "failed");
    expect((await api.move(id)).paused).toBe(false);
    expect((await api.get("/v1/moves?state=paused", list(moveSchema))).items).toEqual([]);
  });

  test("a list of moves of a cell that is not there says so", async () => {
    expect(await codeOf(api.get("/v1/moves?cell=nocell", list(moveSchema)))).toBe("CELL_UNKNOWN");
  });

  test("at each step: taken, or refused with what is possible", async () => {
    const move = await api.begin("acme");
    const actions = moveActions.filter((action) => action !== "reverse");
    for (const step of moveSteps) for (const action of actions) await ask(move, step, action);
  });

  test("a dry run asks for nothing; pause and resume; the reason goes to the audit log", async () => {
    const { id } = await api.begin("acme");
    expect((await api.act(id, "cancel", { dryRun: true })).move.asked).toBeNull();
    expect((await api.act(id, "pause", { reason: "peak" })).move.paused).toBe(true);
    const paused = await api.get("/v1/moves?state=paused", list(moveSchema));
    expect(paused.items.map((one) => one.id)).toEqual([id]);
    expect((await api.act(id, "resume")).move.paused).toBe(false);
    expect((await api.get("/v1/moves?state=paused", list(moveSchema))).items).toEqual([]);
    const rows = await api.run(
      `select action, reason from cellfleet_control.audit order by id desc limit 2`,
    );
    expect(rows).toEqual([
      { action: "move.resume", reason: "" },
      { action: "move.pause", reason: "peak" },
    ]);
  });
});

describe("a move that is taken back", () => {
  test("is a move of the same keys on the open stream; the first is left alone from then on", async () => {
    const first = await api.begin("acme", "globex");
    await api.switchKeys(first, "soaking");
    await api.run(
      `update cellfleet_control.cell set capacity_tenants = 1, state = 'cordoned' where id = 'cell-01'`,
    );
    const dry = await api.act(first.id, "reverse", { dryRun: true });
    expect(dry.move.id).toBe(first.id);
    const { move: back, next_steps } = await api.act(first.id, "reverse", {
      options: { soakMs: 5 },
    });
    expect(back).toMatchObject({
      reverses: first.id,
      source: "cell-02",
      target: "cell-01",
      keys: first.keys,
    });
    expect(back.options).toEqual({ ...first.options, switch: "auto", soakMs: 5 });
    expect(back.plan.steps.map(({ step }) => step)).not.toContain("copying");
    expect(next_steps).toEqual([`cellctl move watch ${back.id}`]);
    const now = await api.move(first.id);
    // Who has just decided that the soak is over loses the race.
    expect(now.version).toBeGreaterThan(first.version);
    expect(now.headline).toContain(back.id);
    const again = await refusal(api.act(first.id, "reverse"));
    expect([again.code, again.nextSteps]).toEqual([
      "STATE_CONFLICT",
      [`cellctl move watch ${back.id}`],
    ]);
    expect(await codeOf(api.start({ tenants: ["acme"], to: "cell-03" }))).toBe("KEY_IN_MOTION");
    const rows = await api.run(`select op from cellfleet_control.move_key where open`);
    expect(rows).toEqual([{ op: back.id }, { op: back.id }]);
  });

  test("a tenant is suspended and resumed while its move soaks; it goes back only when it is served", async () => {
    const first = await api.begin("acme");
    const suspend = () => api.post("/v1/tenants/acme/suspend", {}, z.unknown());
    for (const step of ["ready", "routing", "reversing", "cleaning"] as const) {
      await api.setStep(first.id, step);
      expect(await codeOf(suspend())).toBe("KEY_IN_MOTION");
    }
    await api.switchKeys(first, "soaking");
    const destroyed = await refusal(api.post("/v1/cells/cell-02/destroy", {}, z.unknown()));
    expect(destroyed.nextSteps).toEqual([
      `cellctl move complete ${first.id}`,
      `cellctl move reverse ${first.id}`,
    ]);
    const deleted = await refusal(api.client.call({ ...asDelete, path: "/v1/tenants/acme" }));
    expect([deleted.code, deleted.nextSteps[0]]).toEqual([
      "KEY_IN_MOTION",
      `cellctl move complete ${first.id}`,
    ]);
    await suspend();
    const back = await refusal(api.act(first.id, "reverse"));
    expect([back.code, back.nextSteps[0]]).toEqual([
      "STATE_CONFLICT",
      "cellctl tenant resume acme",
    ]);
    await api.run(`update cellfleet_control.op set state = 'done' where kind = 'tenant.suspend'`);
    await api.setStep(first.id, "diverged");
    await api.post("/v1/tenants/acme/resume", {}, z.unknown());
    expect(await codeOf(api.act(first.id, "reverse"))).toBe("STATE_CONFLICT");
    await api.run(`update cellfleet_control.op set state = 'done' where kind = 'tenant.resume'`);
    await api.run(`update cellfleet_control.placement set state = 'active' where value = 'acme'`);
    const { move: reversal } = await api.act(first.id, "reverse");
    expect(await codeOf(suspend())).toBe("KEY_IN_MOTION");
    expect(reversal.reverses).toBe(first.id);
  });

  test("not while the old cell is down, nor when it does not soak", async () => {
    const first = await api.begin("acme");
    expect(await codeOf(api.act(first.id, "reverse"))).toBe("STATE_CONFLICT");
    await api.switchKeys(first, "soaking");
    await api.run(`update cellfleet_control.cell set health = 'down' where id = 'cell-01'`);
    const down = await refusal(api.act(first.id, "reverse"));
    expect(down.message).toContain("cell-01 is down");
    expect(await api.count("move")).toBe(1);
  });
});
