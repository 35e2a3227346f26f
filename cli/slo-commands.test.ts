/** `cellctl slo …` against a small real HTTP server: what is sent, printed and returned. */
import { describe, expect, test, vi } from "vitest";
import { sloSchema } from "../contract/slo-api.ts";
import { against } from "./move.fixture.ts";
import { sampleOp } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const state = (cell: string, change: object = {}) => ({
  ...{ cell, requests: 1_200_000, failures: 300, budget: 1200, left: 0.75 },
  ...{ burn: { "5m": 0, "30m": 0.2, "1h": 0.34, "6h": 1.26 }, verdict: "ok" },
  ...{ text: "25 % of the budget of 30 d is used", ...change },
});
const burnt = state("cell-02", { failures: 1680, left: -0.4, verdict: "burnt" });
const few = state("cell-03", { requests: 12, failures: 0, budget: 0.01, left: 1, verdict: "few" });
const slo = sloSchema.parse({
  ...{ id: "availability", cell: "*", service: "*", tier: "*", target: 0.999, windowDays: 30 },
  ...{ by: "ada", reason: "as sold", since: "2026-11-01T00:00:00.000Z" },
  ...{ worst: burnt, cells: [state("cell-01"), burnt, few] },
});
const accepted = () => ({
  status: 202,
  body: {
    op: sampleOp({ kind: "safety.change", state: "done", step: "done", headline: "done" }),
    plan: { kind: "safety.change", steps: [], skipped: [] },
    next_steps: ["cellctl slo ls"],
  },
});

describe("ls and get", () => {
  test("show the cell that is worst off, and every cell", async () => {
    const answers = { "GET /v1/slos": () => ({ body: { items: [slo], next: null } }) };
    const { code, stdout } = await against(answers, "slo ls");
    expect(code).toBe(0);
    expect(stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      [
        ...["OBJECTIVE", "FOR", "TARGET", "WINDOW", "WORST", "REQUESTS", "FAILURES", "LEFT"],
        ...["BURN 1H", "BURN 6H", "VERDICT"],
      ],
      [
        ...["availability", "each cell", "99.9%", "30d", "cell-02", "1.2M", "1.7k", "-40%"],
        ...["0.3", "1.3", "burnt"],
      ],
      [""],
    ]);
    const one = await against(
      { "GET /v1/slos/availability": () => ({ body: slo }) },
      "slo get availability",
    );
    expect(one.stdout).toContain(
      "cell-01  ok  75% left: 300 failed, 1.2k allowed, of 1.2M requests; burn",
    );
    expect(one.stdout).toContain("cell-03  few  - left");
  });

  test("give scripts the API's own objects", async () => {
    const answers = { "GET /v1/slos": () => ({ body: { items: [slo], next: null } }) };
    const { stdout } = await against(answers, "slo ls -o json");
    expect(JSON.parse(stdout)).toEqual({ items: [slo], next: null });
  });
});

describe("set and rm", () => {
  test("send what was said and nothing else, a percentage as a share", async () => {
    const answers = { "PUT /v1/slos/gold": accepted };
    const command = "slo set gold --cell cell-01 --tier gold --target 99.95 --window 7d";
    const { code, bodies } = await against(answers, command);
    expect({ code, bodies }).toEqual({
      code: 0,
      bodies: [{ cell: "cell-01", tier: "gold", target: 0.9995, windowDays: 7 }],
    });
    const once = await against(answers, "slo set gold --target 99.9% --service shop");
    expect(once.bodies).toEqual([{ service: "shop", target: 0.999 }]);
    const gone = await against({ "DELETE /v1/slos/gold": accepted }, "slo rm gold --reason sold");
    expect(gone.bodies).toEqual([{ reason: "sold" }]);
  });

  test.each([
    ["slo set gold --target 0.999", "no percentage from 50 to 99.999"],
    ["slo set gold --target 100", "no percentage"],
    ["slo set gold --window 36h", "no number of whole days"],
  ])("%s is no command", async (command, said) => {
    const { code, stderr, asked } = await against({}, command);
    expect({ code, asked }).toEqual({ code: 64, asked: [] });
    expect(stderr).toContain(said);
  });
});
