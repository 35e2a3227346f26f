/** `cellctl failover …` against a small real HTTP server: what is sent, printed, waited for and returned. */
import { describe, expect, test, vi } from "vitest";
import { CellError } from "../contract/errors.ts";
import { detectionSchema, failoverSchema, rpoReportSchema } from "../contract/failover-api.ts";
import type { Answers } from "./cli.fixture.ts";
import {
  closedGate,
  failoverId as id,
  sampleFailover,
  sampleFailoverPlan,
  sampleReport,
} from "./failover-samples.fixture.ts";
import { against, going } from "./move.fixture.ts";
import { sampleCell } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const planning = (plan: unknown, ...steps: string[]): Answers => ({
  "POST /v1/failovers/plan": () => ({ body: { plan, next_steps: steps } }),
});
const begun = (mode = "unplanned") => ({
  status: 202,
  body: {
    failover: sampleFailover("confirmed", { mode }),
    next_steps: [`cellctl failover watch ${id}`, `cellctl failover abort ${id}`],
  },
});
const starting = (...later: readonly unknown[]): Answers => ({
  "POST /v1/failovers": () => begun(),
  [`GET /v1/failovers/${id}`]: going(...later),
});

describe("plan", () => {
  test("shows witnesses, gates, partners, the wait and the steps, and says how to begin", async () => {
    const { code, stdout, stderr, bodies } = await against(
      planning(sampleFailoverPlan(), "cellctl failover start cell-01"),
      "failover plan cell-01 --proved-dead",
    );
    expect(code).toBe(0);
    expect(bodies).toEqual([{ cell: "cell-01", provedDead: true }]);
    expect(stdout).toContain("gone     control-plane  4 probes missed");
    expect(stdout).toContain("cell-02  7 keys  ready  behind 400B, 300ms");
    expect(stdout).toContain("3.2s at most");
    expect(stderr).toContain("Next: cellctl failover start cell-01");
  });

  test("ends with 4 while a gate is closed, and says the way past it", async () => {
    const plan = sampleFailoverPlan({ gates: [closedGate] });
    const command = 'cellctl failover start cell-01 --allow-data-loss --reason "…"';
    const ran = await against(planning(plan, command), "failover plan cell-01 -o json");
    expect(ran.code).toBe(4);
    expect(JSON.parse(ran.stdout).plan.gates[0].name).toBe("lag");
    expect(JSON.parse(ran.stderr).error).toMatchObject({
      ...{ code: "FAILOVER_BLOCKED", next_steps: [command] },
    });
    const table = await against(planning(plan), "failover plan cell-01");
    expect(table.stdout).toContain(
      "CLOSED  lag            cell-02 was 9000000 bytes behind  (past it: --allow-data-loss)",
    );
  });

  test.each([
    ["failover plan cell-01 --mode sometimes", "--mode"],
    ["failover policy always", "must be one of off, suggest, auto"],
    ["failover policy auto --reset", "not both"],
  ])("%s is no command", async (command, said) => {
    const { code, stderr, asked } = await against({}, command);
    expect({ code, asked }).toEqual({ code: 64, asked: [] });
    expect(stderr).toContain(said);
  });
});

test("a refusal by a gate is explained as one that ends", async () => {
  const { code, stdout } = await against({}, "explain FAILOVER_BLOCKED");
  expect(code).toBe(0);
  expect(stdout).toContain("some open by themselves");
  expect(stdout).not.toContain("fail the same way");
});

describe("start", () => {
  test("waits until tenants are served again, not until they are in whole cells", async () => {
    const { code, stdout, stderr, bodies } = await against(
      starting(
        sampleFailover("revoking", { version: 2 }),
        sampleFailover("adopting", { version: 3 }),
        sampleFailover("reprotecting", { version: 4 }),
      ),
      "failover start cell-01 --yes --override witnesses --override rate --allow-data-loss --reason rack",
    );
    expect(code).toBe(0);
    expect(bodies[0]).toEqual({
      ...{ cell: "cell-01", override: ["witnesses", "rate"] },
      ...{ allowDataLoss: true, reason: "rack" },
    });
    expect(stderr).toContain(`${id}  cell-01  adopting  12/16 keys`);
    expect(stderr).toContain("✔ 12 keys of cell-01 served again after 3.3s");
    expect(stderr).toContain(`Next: cellctl failover report ${id}`);
    expect(stdout).toContain("reprotecting");
  });

  test("wants to be confirmed by name, and --no-wait returns at once", async () => {
    const silent = await against({}, "failover start cell-01 --no-input");
    expect({ code: silent.code, asked: silent.asked }).toEqual({ code: 64, asked: [] });
    expect(silent.stderr).toContain("what was not replicated is lost");
    const { code, stdout, stderr } = await against(
      starting(),
      "failover start cell-01 --confirm cell-01 --no-wait -o json",
    );
    expect(code).toBe(0);
    expect(failoverSchema.parse(JSON.parse(stdout).failover).id).toBe(id);
    expect(stderr).toContain(`cellctl failover abort ${id}`);
  });

  test("planned waits until the cell is empty", async () => {
    const empty = sampleFailover("done", { mode: "planned", version: 9 });
    const answers: Answers = {
      "POST /v1/failovers": () => begun("planned"),
      [`GET /v1/failovers/${id}`]: going(
        sampleFailover("evacuating", { mode: "planned", version: 3 }),
        empty,
      ),
    };
    const { code, stderr, bodies } = await against(
      answers,
      "failover start cell-01 --mode planned --yes",
    );
    expect([code, bodies[0]]).toEqual([0, { cell: "cell-01", mode: "planned" }]);
    expect(stderr).toContain("✔ cell-01 is empty");
  });

  test("fails where it stands still, and says what is suspected and how to go on", async () => {
    const halted = sampleFailover("halted", {
      version: 5,
      headline: "acme and globex are suspected",
    });
    const { code, stderr } = await against(starting(halted), "failover start cell-01 --yes");
    expect(code).toBe(1);
    expect(stderr).toContain("acme and globex are suspected");
    expect(stderr).toContain(`cellctl failover resume ${id}`);
  });

  test("--dry-run shows the plan and begins nothing; a refusal keeps its code", async () => {
    const dry = await against(
      { "POST /v1/failovers": () => ({ body: { plan: sampleFailoverPlan(), next_steps: [] } }) },
      "failover start cell-01 --dry-run",
    );
    expect([dry.code, dry.bodies]).toEqual([0, [{ cell: "cell-01", dryRun: true }]]);
    expect(dry.stderr).toContain("dry run");
    const closed = { ...closedGate, name: "witnesses", text: "nobody says so" };
    const plan = sampleFailoverPlan({ gates: [...sampleFailoverPlan().gates.slice(1), closed] });
    const past = await against(
      { "POST /v1/failovers": () => ({ body: { plan, next_steps: [] } }) },
      "failover start cell-01 --dry-run --override witnesses",
    );
    expect(past.stdout).toContain("open        lag            cell-02 was 400 bytes behind");
    expect(past.stdout).toContain("overridden  witnesses      nobody says so\n");
    const refusal = new CellError("FAILOVER_BLOCKED", "a gate is closed", {
      nextSteps: ["cellctl failover plan cell-01"],
    });
    const refused = await against(
      { "POST /v1/failovers": () => refusal },
      "failover start cell-01 -y",
    );
    expect(refused.code).toBe(4);
  });
});

describe("a failover", () => {
  test("is shown, listed and watched to its end", async () => {
    const shown = await against(
      { [`GET /v1/failovers/${id}`]: going(sampleFailover("adopting")) },
      `failover status ${id}`,
    );
    expect(shown.stdout).toContain("12 of 16 keys adopted");
    expect(shown.stdout).toContain("revoking 3.1s, adopting 240ms");
    const listed = await against(
      { "GET /v1/failovers": () => ({ body: { items: [sampleFailover("done")], next: null } }) },
      "failover ls --cell cell-01 --open",
    );
    expect(listed.asked[0]?.query).toMatchObject({ cell: "cell-01", open: "true" });
    expect(listed.stdout).toContain("12/16");
    const watched = await against(
      {
        [`GET /v1/failovers/${id}`]: going(
          sampleFailover("reprotecting", { version: 2 }),
          sampleFailover("done", { version: 3 }),
        ),
      },
      `failover watch ${id}`,
    );
    expect(watched.code).toBe(0);
    expect(watched.stderr).toContain("served again");
  });

  test("tells what it lost, as a page and as data; before that it says why not", async () => {
    const done = sampleFailover("done", { report: sampleReport });
    const answers = { [`GET /v1/failovers/${id}`]: going(done) };
    const page = await against(answers, `failover report ${id}`);
    expect(page.stdout).toContain("req-17");
    expect(page.stdout).toContain(
      "acme  nothing acknowledged before 11:59:59.5Z is lost (0.4 s before it was fenced)  1 lost",
    );
    expect(page.stdout).toContain("as of the takeover");
    const json = await against(answers, `failover report ${id} -o json`);
    expect(rpoReportSchema.parse(JSON.parse(json.stdout)).totals.lost).toBe(1);
    const early = await against(
      { [`GET /v1/failovers/${id}`]: going(sampleFailover("adopting")) },
      `failover report ${id}`,
    );
    expect(early.code).toBe(6);
    expect(early.stderr).toContain(`cellctl failover watch ${id}`);
  });

  test("is called off and resumed, and waited for", async () => {
    const acted = (step: "revoking" | "halted") => ({
      status: 202,
      body: { failover: sampleFailover(step, { version: 4 }), next_steps: [] },
    });
    const aborted = await against(
      {
        [`POST /v1/failovers/${id}/abort`]: () => acted("revoking"),
        [`GET /v1/failovers/${id}`]: going(
          sampleFailover("restoring", { version: 5 }),
          sampleFailover("cancelled", { version: 6 }),
        ),
      },
      `failover abort ${id} --reason back`,
    );
    expect(aborted.code).toBe(0);
    expect(aborted.stderr).toContain("✔ cell-01 serves as before");
    const resumed = await against(
      {
        [`POST /v1/failovers/${id}/resume`]: () => acted("halted"),
        [`GET /v1/failovers/${id}`]: going(
          sampleFailover("halted", { version: 4 }),
          sampleFailover("adopting", { version: 5 }),
          sampleFailover("reprotecting", { version: 6 }),
        ),
      },
      `failover resume ${id}`,
    );
    expect(resumed.code).toBe(0);
  });

  test("left by Ctrl-C goes on, and says how to come back", async () => {
    const interrupt = new AbortController();
    const left = await against(
      { [`GET /v1/failovers/${id}`]: going(sampleFailover("adopting")) },
      `failover watch ${id}`,
      { interrupted: interrupt.signal, onStderr: () => interrupt.abort() },
    );
    expect(left.code).toBe(130);
    expect(left.stderr).toContain(`cellctl failover watch ${id}`);
  });
});

describe("restore", () => {
  test("asks nobody to confirm while its cell is quarantined, and says what comes first", async () => {
    const cell = sampleCell("cell-01", { state: "quarantined" });
    const { code, stderr, asked } = await against(
      { "GET /v1/cells/cell-01": () => ({ body: cell }) },
      "failover restore cell-01 --no-input",
    );
    expect([code, asked.length]).toEqual([6, 1]);
    expect(stderr).toContain("[STATE_CONFLICT]");
    expect(stderr).toContain("cellctl cell salvage cell-01");
    expect(stderr).toContain("cellctl cell wipe cell-01");
  });
});

describe("detection", () => {
  const detection = detectionSchema.parse({
    ...{ policy: "auto", policyFrom: "runtime", policyBy: "ann", policyReason: "we trust it" },
    ...{ policyAt: null, ageMs: 120 },
    cells: [
      {
        ...{ id: "cell-01", state: "suspect", text: "2 probes missed", forMs: 700 },
        witnesses: [{ class: "partners", says: "alive", text: "cell-02 hears from it" }],
      },
    ],
  });
  test("is what status shows without an id, with failovers that are under way", async () => {
    const { stdout, stderr } = await against(
      {
        "GET /v1/detection": () => ({ body: detection }),
        "GET /v1/failovers": () => ({ body: { items: [sampleFailover("adopting")], next: null } }),
      },
      "failover status",
    );
    expect(stdout).toContain("auto (set by ann: we trust it)");
    expect(stdout).toContain("cell-01  suspect  for 700ms  2 probes missed");
    expect(stdout).toContain("alive    partners       cell-02 hears from it");
    expect(stderr).toContain(`cellctl failover watch ${id}`);
  });

  test("and its policy is set, given back, or shown", async () => {
    const answers: Answers = {
      "GET /v1/detection": () => ({ body: detection }),
      "PUT /v1/failover-policy": () => ({ body: detection }),
    };
    expect((await against(answers, "failover policy")).stdout).toContain("auto");
    const set = await against(answers, "failover policy auto --reason trust");
    expect(set.bodies).toEqual([{ policy: "auto", reason: "trust" }]);
    expect((await against(answers, "failover policy --reset")).bodies).toEqual([{ policy: null }]);
  });
});
