/**
 * Cells with manual leases, as operators and agents meet them: the word and its acknowledgement, how long a
 * lease is granted for, and that nobody takes such a cell's keys who has not seen it powered off.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { auditEntrySchema, cellSchema, dryRunSchema, list } from "../contract/control-api.ts";
import { failoverActedSchema, failoverDryRunSchema } from "../contract/failover-api.ts";
import { leaseModeSetSchema } from "../contract/lease-mode-api.ts";
import { readmittedSchema } from "../contract/recovery-api.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { callAgent } from "./control.fixture.ts";
import { cellOneDies, type FailoverApi, startFailoverApi } from "./failover.fixture.ts";
import { refusal } from "./moves.fixture.ts";
import { enterRecovery } from "./store/recovery-evidence.ts";

let api: FailoverApi;
let agent: JsonClient;
beforeAll(async () => {
  api = await startFailoverApi();
  agent = await api.control.client("agent", "cell-01");
  await api.run(`update cellfleet_control.leader set term = 1, holder = 'test'`);
});
afterAll(async () => {
  await api?.close();
});
beforeEach(() => cellOneDies(api));

const set = (mode: "timed" | "manual", more: object = {}) => {
  const body = { mode, reason: "we trust the switch of the rack", ...more };
  return api.send("POST", "/v1/cells/cell-01/lease-mode", body, leaseModeSetSchema);
};
const cell = () => api.get("/v1/cells/cell-01", cellSchema);
const start = (more: object = {}) =>
  api.send("POST", "/v1/failovers", { cell: "cell-01", ...more }, failoverActedSchema);
/** As its agent calls: what its database has of the mode, and with what it wants a lease. */
const call = (mode: "timed" | "manual", number: number, wantLease = false) =>
  callAgent(agent, "cell-01", { leaseMode: { mode, number }, wantLease });

describe("the mode", () => {
  test("is wanted with a reason, told to the agent, and counts as manual until timed is acknowledged", async () => {
    const bare = { mode: "manual" };
    const path = "/v1/cells/cell-01/lease-mode";
    expect((await refusal(api.send("POST", path, bare, z.any()))).code).toBe("VALIDATION_FAILED");
    const dry = { ...bare, reason: "a look", dryRun: true };
    const { plan } = await api.send("POST", path, dry, dryRunSchema);
    expect(plan.steps[0]?.text).toBe("leases of cell-01 are timed, and are to be manual");
    expect((await cell()).lease.mode).toBeUndefined();

    expect(await set("manual")).toMatchObject({ mode: "manual", settled: false });
    expect((await cell()).lease).toMatchObject({ mode: "manual", settled: false });
    expect((await call("timed", 0)).leaseMode).toEqual({ mode: "manual", number: 1 });
    // It does not end by itself any more; then a short one costs nothing, and is waited out.
    expect((await call("manual", 1, true)).lease?.ttlMs).toBe(10_000);
    expect(await set("manual")).toMatchObject({ mode: "manual", settled: true });

    expect(await set("timed")).toMatchObject({ mode: "timed", settled: false });
    expect((await call("manual", 1, true)).lease?.ttlMs).toBe(10_000);
    expect((await cell()).lease).toMatchObject({ mode: "timed", settled: false });
    await call("timed", 2);
    expect((await cell()).lease.mode).toBeUndefined();
    expect((await call("timed", 2, true)).lease?.ttlMs).toBe(1_200_000);
    const [entry] = (await api.get("/v1/audit?limit=1", list(auditEntrySchema))).items;
    expect(entry).toMatchObject({
      ...{ action: "cell.lease-mode", reason: "we trust the switch of the rack" },
      ...{ before: { mode: "manual" }, after: { mode: "timed" } },
    });
  });

  test("of annexes is that of the cell they stand in, and of nobody's own", async () => {
    await api.run(`update cellfleet_control.cell
                      set annex_origin = 'cell-02', annex_host = 'cell-01' where id = 'cell-04'`);
    await set("manual");
    const [row] = await api.run(
      `select lease_mode as mode from cellfleet_control.cell where id = 'cell-04'`,
    );
    expect(row).toEqual({ mode: "manual" });
    const body = { mode: "timed", reason: "no" };
    const annex = await refusal(api.send("POST", "/v1/cells/cell-04/lease-mode", body, z.any()));
    expect(annex.code).toBe("STATE_CONFLICT");
    expect(annex.nextSteps).toEqual(["cellctl cell get cell-01"]);
  });

  test("is nobody's to change while the cell is failed over, or the fleet recovers", async () => {
    await start();
    expect((await refusal(set("manual"))).message).toContain("fails cell-01 over");
    await api.run(`update cellfleet_control.fleet set mode = 'recovering'`);
    expect((await refusal(set("manual"))).code).toBe("RECOVERING");
  });

  test("is forgotten by a restored control plane until the cell has said what it has", async () => {
    await set("manual");
    await call("manual", 1);
    await api.run(`update cellfleet_control.cell
                      set lease_mode = 'timed', lease_mode_number = 0, lease_mode_acked = 0 where id = 'cell-01'`);
    const presented = { revision: 0, epoch: 0, grant: 0 };
    const evidence = { who: "this database", text: "it was restored", presented };
    await enterRecovery(api.control.database, evidence, Date.now());
    expect((await cell()).lease).toMatchObject({ mode: "timed", settled: false });
    await call("manual", 1);
    expect((await cell()).lease).toMatchObject({ mode: "manual", settled: true });
    await api.run(`delete from cellfleet_control.recovery_cell`);
  });
});

describe("a failover of a cell with manual leases", () => {
  test("wants a person who has seen it powered off, by name of no gate", async () => {
    await set("manual");
    const { plan, next_steps } = await api.send(
      ...(["POST", "/v1/failovers/plan", { cell: "cell-01" }, failoverDryRunSchema] as const),
    );
    const gate = plan.gates.find(({ name }) => name === "power-off");
    expect(gate).toMatchObject({ verdict: "block", overridable: false });
    expect(next_steps).toEqual(['cellctl failover start cell-01 --proved-dead --reason "…"']);
    for (const more of [{}, { override: ["power-off"], reason: "it must be" }]) {
      expect((await refusal(start(more))).code).toBe("FAILOVER_BLOCKED");
    }
    expect((await refusal(start({ provedDead: true }))).code).toBe("VALIDATION_FAILED");
    const { failover } = await start({ provedDead: true, reason: "I pulled the plug" });
    expect(failover.cell).toBe("cell-01");
    const [entry] = (await api.get("/v1/audit?limit=1", list(auditEntrySchema))).items;
    expect(entry).toMatchObject({
      ...{ action: "failover.start", reason: "I pulled the plug" },
      after: { options: { provedDead: true } },
    });
  });

  test("wants it too while the cell has not acknowledged that its leases are timed again", async () => {
    await set("manual");
    await call("manual", 1);
    await set("timed");
    const closed = await refusal(start());
    expect(closed.message).toContain("it has not acknowledged yet that its leases are timed");
    await call("timed", 2);
    await cellDiesAgain();
    await start();
  });

  test("planned empties a cell that lives, and wants nothing", async () => {
    await set("manual");
    await api.run(`update cellfleet_control.cell set health = 'healthy' where id = 'cell-01'`);
    expect((await start({ mode: "planned" })).failover.mode).toBe("planned");
  });
});

test("a copy of it is let back only when every other one is off", async () => {
  await set("manual");
  await api.run(`update cellfleet_control.cell set state = 'quarantined' where id = 'cell-01'`);
  const back = (more: object) => {
    const body = { reason: "looked at", ...more };
    return api.send("POST", "/v1/cells/cell-01/readmit", body, readmittedSchema);
  };
  expect((await refusal(back({}))).code).toBe("SAFETY_RULE");
  expect(await back({ otherCopiesOff: true })).toMatchObject({ state: "cordoned" });
});

/** Its agent's call has made a living cell of it. */
const cellDiesAgain = () =>
  api.run(`update cellfleet_control.agent set seen_at = clock_timestamp() - interval '2 s'
            where cell = 'cell-01'`);
