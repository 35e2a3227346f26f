/** Failovers as people plan and begin them: gates under the lock, the audit log, one of two that begin at once. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  acceptedSchema,
  auditEntrySchema,
  cellSchema,
  list,
  resolutionSchema,
  statusSchema,
} from "../contract/control-api.ts";
import {
  detectionSchema,
  failoverActedSchema,
  failoverDryRunSchema,
  failoverSchema,
} from "../contract/failover-api.ts";
import { must } from "../runtime/assert.ts";
import { cellOneDies, type FailoverApi, startFailoverApi, tenants } from "./failover.fixture.ts";
import { refusal } from "./moves.fixture.ts";
import { automatic } from "./store/failover/read.ts";
import { startFailover } from "./store/failover/start.ts";

let api: FailoverApi;
beforeAll(async () => {
  api = await startFailoverApi();
});
afterAll(async () => {
  await api?.close();
});
beforeEach(() => cellOneDies(api));

const plan = async (more: object = {}) =>
  api.send("POST", "/v1/failovers/plan", { cell: "cell-01", ...more }, failoverDryRunSchema);
const start = (more: object = {}, headers: Record<string, string> = {}) =>
  api.send("POST", "/v1/failovers", { cell: "cell-01", ...more }, failoverActedSchema, headers);
const closed = async (more: object = {}) =>
  (await plan(more)).plan.gates
    .filter(({ verdict }) => verdict === "block")
    .map(({ name }) => name);

describe("a plan", () => {
  test("tells witnesses, gates, partners with their keys, and the steps, and changes nothing", async () => {
    const audited = await api.count("audit");
    const { plan: found, next_steps } = await plan();
    expect(found.gates.filter(({ verdict }) => verdict === "block")).toEqual([]);
    expect(found.witnesses.map(({ says }) => says)).toEqual(["gone", "gone", "gone"]);
    const keys = found.partners.map((one) => one.keys);
    expect(keys.every((one) => one > 0)).toBe(true);
    expect(keys.reduce((sum, one) => sum + one, 0)).toBe(tenants.length);
    expect(found.unavailable).toEqual({ keys: 0, reason: "" });
    expect(found.steps[0]?.step).toBe("revoking");
    expect(next_steps).toEqual(["cellctl failover start cell-01"]);
    expect([await api.count("failover"), await api.count("op"), await api.count("audit")]).toEqual([
      ...[0, 0, audited],
    ]);
  });

  test("measures how far partners were behind when the cell was last alive, not how long it is dead", async () => {
    const { partners } = (await plan()).plan;
    for (const { lagSeconds } of partners) expect(must(lagSeconds, "lag")).toBeLessThan(1);
    await api.run(`update cellfleet_control.standby set heartbeat_age_ms = 60000`);
    expect(await closed()).toEqual(["lag"]);
  });

  test("counts keys that nobody holds a fit copy of, and says why", async () => {
    await api.run(
      `update cellfleet_control.standby set state = 'broken', reason = 'its slot is lost' where host = 'cell-03'`,
    );
    const { unavailable, partners } = (await plan()).plan;
    expect(unavailable.keys).toBe(partners.find(({ host }) => host === "cell-03")?.keys);
    expect(unavailable.reason).toContain("sb-cell-01-cell-03: it is broken: its slot is lost");
    expect(await closed()).toEqual([]);
    await api.run(`update cellfleet_control.cell set health = 'down' where id = 'cell-02'`);
    expect(await closed()).toEqual(["standby"]);
  });

  test("believes no verdict that is old, and no annex for a cell", async () => {
    await api.run(
      `update cellfleet_control.failover_desk set sights_at = clock_timestamp() - interval '6 s'`,
    );
    expect(await closed()).toEqual(["witnesses"]);
    await api.run(
      `update cellfleet_control.cell set annex_origin = 'cell-02', annex_host = 'cell-01' where id = 'cell-04'`,
    );
    const annex = await refusal(
      api.send("POST", "/v1/failovers/plan", { cell: "cell-04" }, z.any()),
    );
    expect([annex.code, annex.nextSteps[0]]).toEqual([
      ...["STATE_CONFLICT", "cellctl failover plan cell-01"],
    ]);
  });
});

describe("a failover", () => {
  test("is recorded with its plan, its audit entry and an event; another one of the cell is refused", async () => {
    const { failover, next_steps } = await start({ reason: "rack lost" });
    expect(failover).toMatchObject({ cell: "cell-01", step: "confirmed", mode: "unplanned" });
    expect(failover.by).toContain("admin");
    expect(failover.headline).toBe(`${tenants.length} keys to adopt`);
    expect(next_steps).toEqual([
      `cellctl failover watch ${failover.id}`,
      `cellctl failover abort ${failover.id}`,
    ]);
    const audit = await api.get("/v1/audit?limit=1", list(auditEntrySchema));
    expect(audit.items[0]).toMatchObject({ action: "failover.start", reason: "rack lost" });
    expect(await api.count("event", "kind = 'failover.started'")).toBe(1);
    expect(await api.run(`select evidence from cellfleet_control.failover`)).toEqual([
      { evidence: { goneForMs: 1500 } },
    ]);
    const again = await refusal(start());
    expect([again.code, again.nextSteps[0]]).toEqual(["FAILOVER_BLOCKED", "cellctl failover ls"]);
    const listed = await api.get("/v1/failovers?cell=cell-01&open=true", list(failoverSchema));
    expect(listed.items.map(({ id }) => id)).toEqual([failover.id]);
  });

  test("asked for twice with one key is one, and of two at once one begins", async () => {
    const key = { "idempotency-key": "once" };
    const first = await start({}, key);
    expect((await start({}, key)).failover.id).toBe(first.failover.id);
    await cellOneDies(api);
    const both = await Promise.allSettled([start(), start()]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(await api.count("failover")).toBe(1);
  });

  test("goes past a gate by name, with a reason, and past no other", async () => {
    await api.run(`truncate cellfleet_control.failover_desk`);
    const blocked = await refusal(start());
    expect(blocked.code).toBe("FAILOVER_BLOCKED");
    expect(blocked.nextSteps).toContain(
      'cellctl failover start cell-01 --override witnesses --reason "…"',
    );
    expect(blocked.nextSteps.join()).not.toContain("planned");
    const seen = await refusal(start({ provedDead: true, reason: "seen" }));
    expect(seen.nextSteps).toEqual([
      "cellctl failover plan cell-01 --proved-dead",
      'cellctl failover start cell-01 --proved-dead --override witnesses --reason "…"',
    ]);
    expect((await refusal(start({ override: ["lag"] }))).code).toBe("FAILOVER_BLOCKED");
    expect((await refusal(start({ override: ["gravity"] }))).code).toBe("VALIDATION_FAILED");
    expect((await refusal(start({ override: ["witnesses"] }))).code).toBe("VALIDATION_FAILED");
    await start({ override: ["witnesses"], reason: "seen with my own eyes" });
    const [entry] = (await api.get("/v1/audit?limit=1", list(auditEntrySchema))).items;
    expect(entry?.after).toMatchObject({ options: { override: ["witnesses"] } });
  });

  test("is not begun while a long lease is out, while the fleet recovers, or by a viewer", async () => {
    await api.run(`update cellfleet_control.cell
                      set lease_granted_at = clock_timestamp(), lease_ttl_ms = 1200000 where id = 'cell-01'`);
    const long = await refusal(start({ override: ["lease"], reason: "now" }));
    expect([long.code, long.nextSteps[0]]).toEqual([
      "LEASE_TOO_LONG",
      "cellctl cell start cell-01",
    ]);
    await cellOneDies(api);
    await api.run(`update cellfleet_control.fleet set mode = 'recovering'`);
    expect((await refusal(start())).code).toBe("RECOVERING");
    const viewer = await api.control.client("viewer");
    const call = viewer.call({
      ...{ method: "POST", path: "/v1/failovers", body: { cell: "cell-01" } },
      ...{ schema: z.any(), timeoutMs: 5000 },
    });
    expect((await refusal(call)).code).toBe("FORBIDDEN");
    expect(await api.count("failover")).toBe(0);
  });

  test("as a dry run is checked as a real one, and begins nothing", async () => {
    const dry = await api.send(
      ...(["POST", "/v1/failovers"] as const),
      { cell: "cell-01", dryRun: true, allowDataLoss: true },
      failoverDryRunSchema,
    );
    expect(dry.next_steps).toEqual([
      'cellctl failover start cell-01 --allow-data-loss --reason "…"',
    ]);
    expect(await api.count("failover")).toBe(0);
    await api.run(`truncate cellfleet_control.failover_desk`);
    expect((await refusal(start({ dryRun: true }))).code).toBe("FAILOVER_BLOCKED");
  });

  test("planned wants a healthy cell and no witnesses", async () => {
    expect((await refusal(start({ mode: "planned" }))).message).toContain("is down");
    await api.run(`truncate cellfleet_control.failover_desk`);
    await api.run(`update cellfleet_control.cell set health = 'healthy' where id = 'cell-01'`);
    const { failover } = await start({ mode: "planned" });
    expect(failover).toMatchObject({
      mode: "planned",
      headline: "cell-01 is emptied by live moves",
    });
    expect(failover.plan.steps.map(({ step }) => step)).toEqual(["evacuating"]);
  });

  test("lets its cell be started, but not destroyed", async () => {
    await start();
    await api.run(`update cellfleet_control.cell set provider = 'local' where id = 'cell-01'`);
    const act = (action: string) =>
      api.send("POST", `/v1/cells/cell-01/${action}`, { dryRun: true }, z.any());
    await act("start");
    expect((await refusal(act("destroy"))).code).toBe("STATE_CONFLICT");
    expect((await refusal(act("cordon"))).code).toBe("STATE_CONFLICT");
  });
});

describe("one that begins by itself", () => {
  const byItself = (cell: string, id: string) =>
    api.control.database.transaction((tx) =>
      startFailover(tx, {
        ...{ cell, id, mode: "unplanned", automatic: true, reason: "gone", nowMs: Date.now() },
        ...{ override: ["rate"], allowDataLoss: true, provedDead: false },
        actor: { name: automatic, role: "system" },
      }),
    );
  test("is one per region in ten minutes, whatever it says it may go past", async () => {
    await byItself("cell-01", "op_0000000000001");
    await api.run(`update cellfleet_control.failover set open = false`);
    const second = await refusal(byItself("cell-01", "op_0000000000002"));
    expect(second.message).toContain("the last automatic failover in region local began");
    await api.run(`update cellfleet_control.failover set created_at = now() - interval '11 min'`);
    await byItself("cell-01", "op_0000000000003");
    const [entry] = (await api.get("/v1/audit?limit=1", list(auditEntrySchema))).items;
    expect(entry).toMatchObject({ actor: "auto", action: "failover.start" });
  });

  test("is not begun for a cell that somebody stopped; one that was killed is a drill", async () => {
    const op = (kind: string, id: string) =>
      api.run(`insert into cellfleet_control.op (id, kind, object, state, step, headline, actor)
               values ('${id}', '${kind}', 'cell-01', 'done', 'done', '', 'ann')`);
    await op("cell.stop", "op_00000000a");
    const held = await refusal(byItself("cell-01", "op_0000000000004"));
    expect(held.message).toContain("ann stopped cell-01 on purpose");
    expect(await closed()).toEqual([]);
    await op("cell.kill", "op_00000000b");
    await byItself("cell-01", "op_0000000000005");
  });
});

describe("asked of one that runs", () => {
  const act = (id: string, action: string, body: object = {}) =>
    api.send("POST", `/v1/failovers/${id}/${action}`, body, failoverActedSchema);
  test("abort is a wish, while it is possible; resume only after a halt", async () => {
    const { id } = (await start()).failover;
    await act(id, "abort", { dryRun: true });
    expect(await api.count("failover", "wish = 'abort'")).toBe(0);
    expect((await refusal(act(id, "resume"))).code).toBe("STATE_CONFLICT");
    await act(id, "abort", { reason: "it is back" });
    expect(await api.count("failover", "wish = 'abort'")).toBe(1);
    await api.run(`update cellfleet_control.op set step = 'adopting' where id = '${id}'`);
    const late = await refusal(act(id, "abort"));
    expect([late.code, late.nextSteps]).toEqual([
      "STATE_CONFLICT",
      [`cellctl failover watch ${id}`],
    ]);
    await api.run(`update cellfleet_control.op set step = 'halted' where id = '${id}'`);
    expect((await act(id, "resume")).next_steps).toContain(`cellctl failover resume ${id}`);
    expect((await refusal(act("op_nowhere", "abort"))).code).toBe("FAILOVER_UNKNOWN");
  });
});

test("the policy is changed at runtime, audited, and given back", async () => {
  const set = (policy: string | null, reason: string) =>
    api.send("PUT", "/v1/failover-policy", { policy, reason }, detectionSchema);
  const before = await api.get("/v1/detection", detectionSchema);
  expect(before).toMatchObject({ policy: "suggest", policyFrom: "flag" });
  expect(before.cells.map(({ id, state }) => `${id} ${state}`)[0]).toBe("cell-01 gone");
  // Of the whole episode: it is gone for less, in a row.
  expect(before.cells[0]?.forMs).toBeGreaterThanOrEqual(2400);
  expect(await set("auto", "we trust it")).toMatchObject({ policy: "auto", policyFrom: "runtime" });
  expect(await api.get("/v1/detection", detectionSchema)).toMatchObject({
    policyReason: "we trust it",
  });
  const [entry] = (await api.get("/v1/audit?limit=1", list(auditEntrySchema))).items;
  expect(entry).toMatchObject({ action: "failover.policy", after: { policy: "auto" } });
  expect(await set(null, "")).toMatchObject({ policy: "suggest", policyFrom: "flag" });
});

describe("people are told", () => {
  const located = () => api.get("/v1/route/resolve?tenant=t-0", resolutionSchema);
  test("of a dead cell nobody has taken over, of the failover under way, and what became of a key", async () => {
    const key = "default/tenant/t-0";
    expect((await located()).unserved?.next_steps[0]).toBe("cellctl failover plan cell-01");
    const { id } = (await start()).failover;
    const during = await located();
    expect(during.unserved?.reason).toContain("cell-01 is being failed over (confirmed)");
    expect(during.unserved?.next_steps).toContain(`cellctl failover watch ${id}`);
    const cell = await api.get("/v1/cells/cell-01", cellSchema);
    expect(cell.failover).toEqual({ id, step: "confirmed", mode: "unplanned" });
    expect((await api.get("/v1/status", statusSchema)).failovers).toEqual([
      { cell: "cell-01", id, step: "confirmed", mode: "unplanned" },
    ]);
    await api.run(`insert into cellfleet_control.failover_key (failover, key, fate, wave, epoch, reason)
                   values ('${id}', '${key}', 'unavailable', 0, 1, 'no copy of it is fit')`);
    await api.run(
      `update cellfleet_control.placement set state = 'unavailable' where key = '${key}'`,
    );
    const lost = await located();
    expect(lost.unserved?.reason).toBe(
      `unavailable since the failover ${id} of cell-01: no copy of it is fit`,
    );
    expect(lost.unserved?.next_steps).toEqual([
      "cellctl cell start cell-01",
      "cellctl cell salvage cell-01 adopt",
      `cellctl failover report ${id}`,
    ]);
  });

  test("the host of an annex, not the annex", async () => {
    await api.run(
      `update cellfleet_control.cell set annex_origin = 'cell-01', annex_host = 'cell-03' where id = 'cell-04'`,
    );
    await api.run(
      `update cellfleet_control.placement set cell = 'cell-04', epoch = epoch + 1 where value = 't-0'`,
    );
    expect(await located()).toMatchObject({ cell: "cell-03", annex: "cell-04" });
    expect((await located()).unserved).toBeUndefined();
  });

  test("of a tenant that is suspected what lets it be served again, and that is so", async () => {
    const { id } = (await start()).failover;
    const state = async () => (await located()).state;
    await api.run(
      `update cellfleet_control.cell set annex_origin = 'cell-01', annex_host = 'cell-03' where id = 'cell-04'`,
    );
    await api.run(`insert into cellfleet_control.tenant
                     (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
                   values ('t-0', 'default', 'standard', 0, 0, '{}', 'default/tenant/t-0')`);
    const mark = `set cell = 'cell-04', epoch = 2, state = 'unavailable', op = '${id}'`;
    await api.run(`update cellfleet_control.placement ${mark} where value = 't-0'`);
    await api.run(`insert into cellfleet_control.failover_key (failover, key, fate, target, wave, epoch, reason)
                   values ('${id}', 'default/tenant/t-0', 'quarantined', 'cell-04', 0, 1, 'QUARANTINED: it fell ill')`);
    expect((await located()).unserved).toEqual({
      reason: `quarantined since the failover ${id} of cell-01: QUARANTINED: it fell ill`,
      next_steps: [
        `cellctl failover status ${id}`,
        "cellctl tenant suspend t-0",
        "cellctl tenant resume t-0",
      ],
    });
    const act = (action: string) =>
      api.send("POST", `/v1/tenants/t-0/${action}`, { reason: "it is innocent" }, acceptedSchema);
    const { op } = await act("suspend");
    expect(await state()).toBe("suspended");
    await api.run(`update cellfleet_control.op set state = 'done' where id = '${op.id}'`);
    await act("resume");
    expect(await state()).toBe("hold");
    await api.run(`delete from cellfleet_control.tenant`);
  });
});
