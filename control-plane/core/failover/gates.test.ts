/** Gates: which close when, what a person may go past, and what the policy makes of it. */
import { describe, expect, test } from "vitest";
import { failoverModes } from "../../../contract/failover-api.ts";
import { parseCellId } from "../../../contract/ids.ts";
import type { LeaseMode } from "../../../contract/lease-mode.ts";
import { must } from "../../../runtime/assert.ts";
import { aCell, aStage } from "../fleet.fixture.ts";
import { refuseFailoverAction } from "./failover-actions.ts";
import { blockingGates, checkGates, type GateFacts, unknownOverrides } from "./gates.ts";
import { buildPlan, waitMsOf } from "./plan.ts";
import { decidePolicy, planCommand, startCommand, startCommands } from "./policy.ts";
import { aPartner, confirmedGone, gateFacts, wellSeen } from "./sight.fixture.ts";

const nothing = { override: [], allowDataLoss: false };
const closed = (change: Partial<GateFacts>) =>
  blockingGates(checkGates(gateFacts(change)), nothing).map(({ name }) => name);
const down = aCell("cell-01", { health: "down" });
const ofLeases = (mode: LeaseMode, number: number, acked: number) =>
  aCell("cell-01", { health: "down", leaseMode: { mode, number, acked } });

test("all are open for a cell that died alone, with everything ready", () => {
  expect(closed({})).toEqual([]);
  expect(checkGates(gateFacts()).every(({ text }) => text.length > 0)).toBe(true);
});

test("a partner that keeps two standbys is told with the buckets of each, and has room once", () => {
  const second = { annex: "sb-cell-01-cell-02-2", buckets: { lo: 128, hi: 255 }, lagSeconds: 1 };
  const partners = [aPartner("cell-02"), aPartner("cell-02", second)];
  const text = (name: string) =>
    checkGates(gateFacts({ partners })).find((gate) => gate.name === name)?.text;
  expect(text("lag")).toBe(
    "cell-02 (buckets 0-127) was 100 bytes and 0.5 s behind, cell-02 (buckets 128-255) was 100 bytes and 1.0 s behind",
  );
  expect(text("headroom")).toBe("cell-02 has room");
});

describe("closes", () => {
  test.each<[string, Partial<GateFacts>, boolean]>([
    ["fleet", { fleetMode: { name: "recovering", reason: "restored" } }, false],
    ["stage", { cell: { ...down, stage: aStage({ now: "observe" }) } }, false],
    ["stage", { cell: { ...down, stage: aStage({ applied: "observe" }) } }, false],
    ["operation", { open: [{ op: "op_1", cell: "cell-01", step: "revoking" }] }, false],
    ["operation", { busy: "cell.destroy of cell-01 is under way" }, false],
    ["one-at-a-time", { open: [{ op: "op_1", cell: "cell-09", step: "adopting" }] }, true],
    ["witnesses", { verdicts: [wellSeen("cell-01")] }, true],
    ["witnesses", { verdicts: [] }, true],
    ["observer", { verdicts: [confirmedGone("cell-01"), confirmedGone("cell-02")] }, true],
    ["rate", { lastAutomaticMs: 9 * 60_000 }, true],
    ["intent", { intended: new Map([["cell-01", "ann stopped cell-01"]]) }, true],
    ["power-off", { cell: ofLeases("manual", 1, 1) }, false],
    ["power-off", { cell: ofLeases("manual", 1, 0) }, false],
    ["power-off", { cell: ofLeases("timed", 2, 1) }, false],
    ["power-off", { cell: ofLeases("timed", 0, -1) }, false],
    // Nobody has said so who decides by himself.
    ["power-off", { cell: ofLeases("manual", 1, 1), provedDead: true }, false],
    ["lease", { leaseLeftMs: 60_001 }, false],
    ["standby", { partners: [], keys: { all: 20, unavailable: 20 } }, true],
    ["lag", { partners: [aPartner("cell-02", { lagBytes: 2_000_000 })] }, true],
    ["lag", { partners: [aPartner("cell-02", { lagSeconds: 11 })] }, true],
    ["lag", { partners: [aPartner("cell-02", { lagBytes: null, lagSeconds: null })] }, true],
    ["headroom", { partners: [aPartner("cell-02", { room: { tenants: 101, bytes: 0 } })] }, true],
  ])("%s", (name, change, overridable) => {
    expect(closed(change)).toEqual([name]);
    const past = { override: [name], allowDataLoss: false };
    const left = blockingGates(checkGates(gateFacts(change)), past).map((gate) => gate.name);
    expect(left).toEqual(overridable ? [] : [name]);
  });

  test("a rule of others too", () => {
    const refusal = {
      name: "lever",
      verdict: "block",
      text: "engaged",
      overridable: true,
    } as const;
    expect(closed({ refusals: [refusal] })).toEqual(["lever"]);
  });
});

describe("stays open", () => {
  test("to a person who has seen that a cell with manual leases is powered off", () => {
    const manual = { cell: ofLeases("manual", 1, 1), automatic: false };
    expect(closed(manual)).toEqual(["power-off"]);
    expect(closed({ ...manual, provedDead: true })).toEqual([]);
    expect(closed({ cell: ofLeases("timed", 2, 2) })).toEqual([]);
  });

  test.each<[string, Partial<GateFacts>]>([
    ["after ten minutes", { lastAutomaticMs: 10 * 60_000 }],
    [
      "for another failover that only brings tenants home",
      { open: [{ op: "op_1", cell: "cell-09", step: "reprotecting" }] },
    ],
    [
      "while one other cell was stopped on purpose",
      {
        verdicts: [
          confirmedGone("cell-01"),
          confirmedGone("cell-02"),
          wellSeen("cell-03"),
          wellSeen("cell-04"),
        ],
        intended: new Map([["cell-02", "ann stopped cell-02"]]),
      },
    ],
    ["for a person, whatever began by itself before", { automatic: false, lastAutomaticMs: 1 }],
    [
      "for a person who stopped it",
      { automatic: false, intended: new Map([["cell-01", "ann stopped it"]]) },
    ],
    [
      "where one of its partners died too: its keys are told",
      {
        partners: [
          aPartner("cell-02"),
          aPartner("cell-03", { unfit: "cell-03 is down", lagBytes: 9e9 }),
        ],
        keys: { all: 20, unavailable: 10 },
      },
    ],
    [
      "when bytes are not known of a dead origin, but its heartbeats were",
      {
        partners: [aPartner("cell-02", { lagBytes: null })],
      },
    ],
  ])("%s", (_what, change) => {
    expect(closed(change)).toEqual([]);
  });

  test("two of twelve cells are no fault of the observer", () => {
    const ids = Array.from({ length: 12 }, (_, index) => `cell-${index + 1}`);
    const verdicts = ["cell-01", ...ids.slice(1)].map((id, index) =>
      index < 2 ? confirmedGone(id) : wellSeen(id),
    );
    expect(closed({ cells: verdicts.map(({ cell }) => aCell(cell)), verdicts })).toEqual([]);
  });
});

describe("--allow-data-loss", () => {
  test("is the way past the lag, and past nothing else", () => {
    const behind = { partners: [aPartner("cell-02", { lagSeconds: 60 })], verdicts: [] };
    const gates = checkGates(gateFacts(behind));
    const left = blockingGates(gates, { override: [], allowDataLoss: true });
    expect(left.map(({ name }) => name)).toEqual(["witnesses"]);
    expect(unknownOverrides(gates, ["lag", "gravity"])).toEqual(["gravity"]);
  });
});

describe("a planned failover", () => {
  const planned = (change: Partial<GateFacts>) =>
    closed({ mode: "planned", automatic: false, cell: aCell("cell-01"), verdicts: [], ...change });
  test("wants a healthy cell and room elsewhere, no witnesses and no lease", () => {
    expect(planned({ leaseLeftMs: 1_200_000, partners: [] })).toEqual([]);
    expect(planned({ cell: down })).toEqual(["health"]);
    const full = aCell("cell-01", { usage: { tenants: 1000, bytes: 0, rps: 0 } });
    expect(planned({ cell: full })).toEqual(["room"]);
    expect(planned({ cells: [aCell("cell-01")] })).toEqual(["room"]);
  });
});

describe("the plan", () => {
  const facts = { ...gateFacts(), promiseLeftMs: 0, provedDead: false, unavailableReason: "" };
  const brand = (id: string) => must(parseCellId(id), "cell id");
  test("walks the table of steps in both modes, and says how long it waits", () => {
    for (const mode of failoverModes) {
      const plan = buildPlan({ ...facts, mode }, [], brand);
      expect(plan.steps.every(({ step, text }) => text !== step)).toBe(true);
    }
    const { steps, waitMs } = buildPlan(facts, [], brand);
    expect(steps.map(({ step }) => step)).toEqual([
      ...["revoking", "severing", "adopting", "routing", "verifying", "reprotecting"],
    ]);
    expect(waitMs).toBe(2000);
  });

  test("proof of death ends the wait for promises, never the wait for the last lease", () => {
    const promised = { ...facts, promiseLeftMs: 900_000 };
    expect(waitMsOf(promised)).toBe(900_000);
    expect(waitMsOf({ ...promised, provedDead: true })).toBe(2000);
  });
});

describe("the policy", () => {
  const blockedBy = (change: Partial<GateFacts>) =>
    blockingGates(checkGates(gateFacts(change)), nothing);
  test("off says nothing, suggest says the command, auto does it", () => {
    expect(decidePolicy("off", "cell-01", "gone", []).kind).toBe("nothing");
    expect(decidePolicy("suggest", "cell-01", "gone by 2", [])).toEqual({
      ...{
        kind: "suggest",
        text: "cell-01 is gone by 2",
        command: "cellctl failover start cell-01",
      },
    });
    expect(decidePolicy("auto", "cell-01", "gone", []).kind).toBe("start");
  });

  test("says again what was given, and sends nobody to empty a cell that nobody sees alive", () => {
    const given = {
      mode: "unplanned",
      provedDead: true,
      override: ["observer"],
      allowDataLoss: true,
    } as const;
    const blocked = blockedBy({ verdicts: [] });
    const command =
      'cellctl failover start cell-01 --proved-dead --override observer --allow-data-loss --override witnesses --reason "…"';
    const { witnesses: dead } = confirmedGone("cell-01");
    expect(startCommands("cell-01", blocked, { witnesses: dead, given })).toEqual([command]);
    const { witnesses: alive } = wellSeen("cell-01");
    expect(startCommands("cell-01", blocked, { witnesses: alive, given })).toEqual([
      "cellctl failover start cell-01 --mode planned   (a cell that lives)",
      command,
    ]);
    const planned = {
      ...given,
      mode: "planned",
      provedDead: false,
      override: [],
      allowDataLoss: false,
    } as const;
    const lever = [{ name: "lever", verdict: "block", text: "", overridable: true } as const];
    expect(startCommands("cell-01", lever, { witnesses: alive, given: planned })).toEqual([
      'cellctl failover start cell-01 --mode planned --override lever --reason "…"',
    ]);
    expect(planCommand("cell-01", given)).toBe("cellctl failover plan cell-01 --proved-dead");
  });

  test("auto never goes past a gate, and says which and how a person would", () => {
    const held = decidePolicy("auto", "cell-01", "gone", blockedBy({ lastAutomaticMs: 1000 }));
    expect(held).toMatchObject({
      kind: "held",
      command: "cellctl failover start cell-01",
    });
    const meant = blockedBy({ intended: new Map([["cell-01", "ann stopped cell-01"]]) });
    expect(decidePolicy("auto", "cell-01", "gone", meant).kind).toBe("suggest");
    const manual = blockedBy({ cell: ofLeases("manual", 1, 1), lastAutomaticMs: 1000 });
    expect(decidePolicy("auto", "cell-01", "gone", manual)).toMatchObject({
      kind: "suggest",
      command: 'cellctl failover start cell-01 --proved-dead --reason "…"',
    });
    const behind = { partners: [aPartner("cell-02", { lagSeconds: 60 })] };
    expect(startCommand("cell-01", blockedBy(behind))).toBe(
      'cellctl failover start cell-01 --allow-data-loss --reason "…"',
    );
    expect(startCommand("cell-01", blockedBy({ leaseLeftMs: 100_000 }))).toBe(
      "cellctl failover plan cell-01",
    );
  });
});

describe("asked of a failover that runs", () => {
  const at = (step: "confirmed" | "revoking" | "severing" | "halted" | "done") => ({
    ...{ id: "op_1", cell: "cell-01", step },
  });
  test.each([
    ["confirmed", "abort", undefined],
    ["revoking", "abort", undefined],
    ["severing", "abort", "only the way forward"],
    ["done", "abort", "is over"],
    ["halted", "resume", undefined],
    ["revoking", "resume", "only one that was halted"],
  ] as const)("at %s: %s", (step, action, why) => {
    const refusal = refuseFailoverAction(at(step), action);
    if (why === undefined) expect(refusal).toBeUndefined();
    else expect(refusal?.text).toContain(why);
  });
});
