/** `cellctl move …` against a small real HTTP server: what is sent, printed, waited for and returned. */
import { stripVTControlCharacters } from "node:util";
import { afterEach, describe, expect, test, vi } from "vitest";
import { CellError } from "../contract/errors.ts";
import { movePlansSchema, startedMovesSchema } from "../contract/move-api.ts";
import {
  type Answers,
  cellctl,
  type RunOptions,
  type StubServer,
  startStub,
} from "./cli.fixture.ts";
import { sampleMove, sampleMovePlan, samplePause, sampleVerification } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

let stub: StubServer | undefined;
afterEach(async () => {
  await stub?.close();
  stub = undefined;
});

async function against(answers: Answers, command: string, options: RunOptions = {}) {
  await stub?.close();
  stub = await startStub(answers);
  const env = { ...stub.env, ...options.env };
  const ran = await cellctl(command.split(" "), { ...options, env });
  return { ...ran, asked: stub.asked, bodies: stub.asked.map(({ text }) => bodyOf(text)) };
}
const bodyOf = (text: string): unknown => (text === "" ? undefined : JSON.parse(text));

const id = "op_0m5abcdefghij";
const soaking = sampleMove({ step: "soaking", version: 9, pause: samplePause, tries: 1 });
const done = sampleMove({ step: "done", state: "done", version: 11, headline: "moved" });

const planning = (...plans: unknown[]): Answers => ({
  "POST /v1/moves/plan": () => ({ body: { items: plans, next: null, skipped: [] } }),
});
/** Each look finds the next of these; the last stays. */
function going(...moves: readonly unknown[]): Answers[string] {
  let at = 0;
  return () => {
    const body = moves[Math.min(at, moves.length - 1)];
    at += 1;
    return { body };
  };
}
const starting = (...moves: readonly unknown[]): Answers => ({
  "POST /v1/moves": () => ({
    status: 202,
    body: {
      items: [sampleMove({ step: "planned", headline: "waits for its turn" })],
      skipped: [],
      next_steps: [`cellctl move watch ${id}`],
    },
  }),
  [`GET /v1/moves/${id}`]: going(...moves),
});
const acting = (action: string, ...moves: readonly unknown[]): Answers => ({
  [`POST /v1/moves/${id}/${action}`]: () => ({
    status: 202,
    body: { move: sampleMove({ step: "ready" }), next_steps: [`cellctl move watch ${id}`] },
  }),
  [`GET /v1/moves/${id}`]: going(...moves),
});

describe("plan", () => {
  test("sends what was selected, shows it, and says how to begin", async () => {
    const { code, stdout, stderr, bodies } = await against(
      planning(sampleMovePlan()),
      "move plan acme --key users/slot/7 --selector tier=gold --from cell-01 --to cell-02 --together 10 --switch auto --soak 1h --pause-budget 250ms --tries 3 --rate 50MB/s",
    );
    expect(code).toBe(0);
    expect(bodies).toEqual([
      {
        ...{ to: "cell-02", tenants: ["acme"], keys: ["users/slot/7"], selector: "tier=gold" },
        ...{ from: "cell-01", together: 10 },
        options: {
          ...{ switch: "auto", soakMs: 3_600_000, pauseBudgetMs: 250 },
          ...{ switchTriesMax: 3, copyRateMax: 50_000_000 },
        },
      },
    ]);
    expect(stdout).toContain("ok        cell-02  placement");
    expect(stdout).toContain("1. copying: copy the rows as of one moment");
    expect(stderr).toContain(
      "Next: cellctl move start acme --key users/slot/7 --selector tier=gold --from cell-01 --together 10 --soak 1h --pause-budget 250ms --tries 3 --rate 50MB/s --to cell-02 --wait",
    );
  });

  test("is data with -o json, and fails with 4 where something stands against it", async () => {
    const check = { id: "drift", cell: "cell-02", store: "main", verdict: "refused" };
    const refused = { ...check, text: "orders differs", fix: "cellctl schema check" };
    const plan = sampleMovePlan({ checks: [refused] });
    const { code, stdout, stderr } = await against(
      planning(plan),
      "move plan acme --to cell-02 -o json",
    );
    expect(code).toBe(4);
    expect(movePlansSchema.parse(JSON.parse(stdout)).items).toHaveLength(1);
    expect(JSON.parse(stderr)).toMatchObject({
      error: { code: "MOVE_UNFIT", changed: false, next_steps: ["cellctl schema check"] },
    });
    const table = await against(planning(plan), "move plan acme --to cell-02");
    expect(table.stdout).toContain("refused   cell-02/main  drift: orders differs");
    expect(table.stdout).toContain("fix: cellctl schema check");
  });

  test.each([
    ["move plan --to cell-02", "nothing is selected"],
    ["move plan acme", "--to"],
    ["move plan acme --to c --together 0", "--together"],
    ["move plan acme --to c --soak soon", "--soak"],
    ["move plan acme --to c --pause-budget x", "--pause-budget"],
    ["move plan acme --to c --rate fast", "--rate"],
    ["move plan acme --to c --switch never", "auto or manual"],
    ["move start acme --to c --switch manual --wait", "--wait"],
    ["move ls --step nowhere", "--step"],
  ])("%s is no command", async (command, said) => {
    const { code, stderr, asked } = await against({}, command);
    expect({ code, asked }).toEqual({ code: 64, asked: [] });
    expect(stderr).toContain(said);
  });
});

describe("start", () => {
  test("records, and says what to do next", async () => {
    const ran = await against(starting(), "move start acme --to cell-02 --reason rack");
    expect(ran.code).toBe(0);
    expect(ran.bodies).toEqual([{ to: "cell-02", tenants: ["acme"], options: {}, reason: "rack" }]);
    expect(ran.asked[0]?.headers["idempotency-key"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(ran.stdout).toContain(id);
    expect(ran.stderr).toContain(`Next: cellctl move watch ${id}`);
    const json = await against(starting(), "move start acme --to cell-02 -o json");
    expect(startedMovesSchema.parse(JSON.parse(json.stdout)).items).toHaveLength(1);
    const names = await against(starting(), "move start acme --to cell-02 -o name");
    expect(names.stdout).toBe(`${id}\n`);
  });

  test("--wait switches by itself, and ends when the target serves and is verified", async () => {
    const copying = sampleMove({ version: 5 });
    const ready = sampleMove({ step: "ready", version: 6, options: { switch: "auto" } });
    const { code, stdout, stderr, bodies } = await against(
      starting(copying, ready, soaking),
      "move start acme --to cell-02 --wait",
    );
    expect(code).toBe(0);
    expect(bodies[0]).toMatchObject({ options: { switch: "auto" } });
    expect(stderr.split("\n").filter((line) => line.startsWith(id))).toEqual([
      `${id}  acme  planned`,
      `${id}  acme  copying  60%`,
      `${id}  acme  ready`,
    ]);
    expect(stderr).toContain(
      "✔ acme: served by cell-02, after a pause of 38ms; the rows of both cells are the same",
    );
    expect(stderr).toContain(`Next: cellctl move complete ${id}`);
    expect(stdout).toContain("soaking");
  });

  test("--wait fails with what ended the move, and with 3 when rows differ", async () => {
    const error = { code: "FENCE_BLOCKED", message: "pid 7 holds it", next_steps: ["cellctl x"] };
    const failed = sampleMove({ step: "failed", state: "failed", version: 8, error });
    const blocked = await against(starting(failed), "move start acme --to cell-02 --wait -o json");
    expect(blocked.code).toBe(4);
    expect(JSON.parse(blocked.stderr.slice(blocked.stderr.indexOf("{")))).toMatchObject({
      error: { code: "FENCE_BLOCKED", next_steps: ["cellctl x", `cellctl move show ${id}`] },
    });
    const diverged = sampleMove({ step: "diverged", version: 8, headline: "rows differ" });
    const differing = await against(starting(diverged), "move start acme --to cell-02 --wait");
    expect(differing.code).toBe(3);
    expect(differing.stderr).toContain(`cellctl move reverse ${id}`);
  });

  test("of many tells each as it ends, and is as good as the worst of them", async () => {
    const other = "op_0m5zzzzzzzzzz";
    const two = (step: string, more = {}) =>
      sampleMove({ id: other, keys: ["default/tenant/globex"], step, ...more });
    const answers: Answers = {
      "POST /v1/moves": () => ({
        status: 202,
        body: {
          items: [sampleMove({ step: "planned" }), two("planned")],
          skipped: [
            {
              object: "default/tenant/hooli",
              reason: "there-already",
              text: "is in cell-02 already",
            },
          ],
          next_steps: [],
        },
      }),
      [`GET /v1/moves/${id}`]: going(soaking),
      [`GET /v1/moves/${other}`]: going(
        two("copying"),
        two("cancelled", { state: "cancelled", headline: "taken back" }),
      ),
    };
    const { code, stdout, stderr } = await against(
      answers,
      "move start --selector tier=gold --to cell-02 --wait",
    );
    expect(code).toBe(1);
    expect(stderr).toContain("• default/tenant/hooli is in cell-02 already");
    expect(stderr).toContain("0 of 2 moved · 0 under way · 2 waiting");
    expect(stderr).toContain("1 of 2 moved · 1 under way (globex copying 62%) · 0 waiting");
    expect(stderr).toContain("✔ acme: served by cell-02");
    expect(stderr).toContain("✘ globex: OP_FAILED");
    // What came of the others is not printed as if all had gone well.
    expect(stdout).toBe("");
  });

  test("--dry-run shows the plans and begins nothing", async () => {
    const answers: Answers = {
      "POST /v1/moves": () => ({ body: { items: [sampleMovePlan()], next: null, skipped: [] } }),
    };
    const { code, stdout, stderr, bodies } = await against(
      answers,
      "move start acme --to cell-02 --dry-run",
    );
    expect(code).toBe(0);
    expect(bodies[0]).toMatchObject({ dryRun: true });
    expect(stdout).toContain("20k rows, 48MiB");
    expect(stderr).toContain("dry run");
  });
});

describe("a move that runs", () => {
  test("is listed, filtered by the API", async () => {
    const answers: Answers = {
      "GET /v1/moves": () => ({ body: { items: [soaking], next: null } }),
    };
    const { stdout, asked } = await against(
      answers,
      "move ls --state running --step soaking --cell cell-01 --tenant acme --limit 5",
    );
    expect(asked[0]?.query).toMatchObject({
      state: "running",
      step: "soaking",
      cell: "cell-01",
      tenant: "acme",
      limit: "5",
    });
    expect(stdout).toContain("38ms");
  });

  test("is watched to its end; Ctrl-C leaves it alone and says how to come back", async () => {
    const watched = await against(
      { [`GET /v1/moves/${id}`]: going(sampleMove(), soaking, done) },
      `move watch ${id}`,
    );
    expect(watched.code).toBe(0);
    expect(watched.stderr).toContain("✔ acme: moved");
    const interrupt = new AbortController();
    const left = await against(
      { [`GET /v1/moves/${id}`]: going(sampleMove()) },
      `move watch ${id}`,
      {
        interrupted: interrupt.signal,
        onStderr: () => interrupt.abort(),
      },
    );
    expect(left.code).toBe(130);
    expect(left.stderr).toContain(`cellctl move watch ${id}`);
  });

  test("tells what stands in its way, what was taken back and why, and what it waits for", async () => {
    const begun = { step: "copying", at: "2026-01-01T00:00:00Z", text: "copying" };
    const tried = "copying, tried 5 times: connect ECONNREFUSED";
    const copying = sampleMove({ headline: "copying", steps: [begun] });
    const why = "fencing was not over when requests had waited for 801 ms of 800.";
    const back = { step: "releasing", at: "2026-01-01T00:00:01Z", text: why };
    const ready = { step: "ready", at: "2026-01-01T00:00:02Z", text: "try 1 of 5" };
    const { stderr } = await against(
      {
        [`GET /v1/moves/${id}`]: going(
          copying,
          sampleMove({ headline: tried, steps: [begun] }),
          sampleMove({
            step: "ready",
            version: 6,
            headline: "try 1 of 5",
            steps: [begun, back, ready],
          }),
          done,
        ),
      },
      `move watch ${id}`,
    );
    expect(stderr.split("\n").slice(0, 4)).toEqual([
      `${id}  acme  copying  60%`,
      `${id}  acme  copying  60%  ${tried}`,
      `• acme: the switch is taken back: ${why}`,
      `${id}  acme  ready  waits for: cellctl move switch ${id}`,
    ]);
  });

  test.each([
    ["copying", {}, ["cancel"]],
    ["ready", {}, ["switch", "cancel"]],
    ["copying", { paused: true }, ["resume", "cancel"]],
    ["draining", {}, ["cancel"]],
    ["routing", {}, []],
    ["soaking", {}, ["reverse", "complete"]],
  ])("left at %s %j it says %j", async (step, more, words) => {
    const left = await against(
      { [`GET /v1/moves/${id}`]: going(sampleMove({ step, ...more })) },
      `move watch ${id} --timeout 1s -o json`,
    );
    expect(JSON.parse(left.stderr.slice(left.stderr.indexOf("{"))).error.next_steps).toEqual(
      ["watch", ...words].map((word) => `cellctl move ${word} ${id}`),
    );
  });

  test("stays on one line of a terminal", async () => {
    const { stderr } = await against(
      { [`GET /v1/moves/${id}`]: going(sampleMove(), done) },
      `move watch ${id}`,
      {
        terminal: true,
        columns: 70,
      },
    );
    const frames = stderr.split("\r\u001b[K").map((frame) => frame.split("\n")[0] ?? "");
    expect(frames.some((frame) => frame.includes("acme  ███░░░░░░░░░  copying  62%"))).toBe(true);
    for (const frame of frames) expect(stripVTControlCharacters(frame).length).toBeLessThan(71);
  });

  test("gives up after --timeout and says that it goes on", async () => {
    const { code, stderr } = await against(
      { [`GET /v1/moves/${id}`]: going(sampleMove()) },
      `move watch ${id} --timeout 1s`,
    );
    expect(code).toBe(124);
    expect(stderr).toContain("it goes on");
  });

  test.each([
    ["switch", soaking, "acme: served by cell-02"],
    [
      "verify",
      sampleMove({ step: "ready", version: 7, verifications: [sampleVerification(true)] }),
      "20000 rows are the same",
    ],
    [
      "cancel",
      sampleMove({ step: "cancelled", state: "cancelled", version: 7 }),
      "acme stays in cell-01",
    ],
  ])("%s waits until it has come about", async (action, end, said) => {
    const { code, stderr, stdout } = await against(
      acting(action, end),
      `move ${action} ${id} --reason because`,
    );
    expect(code).toBe(0);
    expect(stderr).toContain(said);
    expect(stdout).toContain(id);
  });

  test("verify fails with 3 when the rows differ", async () => {
    const unequal = sampleMove({
      step: "failed",
      state: "failed",
      version: 7,
      verifications: [sampleVerification(false)],
      error: { code: "MOVE_MISMATCH", message: "orders differs", next_steps: [] },
    });
    expect((await against(acting("verify", unequal), `move verify ${id}`)).code).toBe(3);
  });

  test("reverse follows the move that it became", async () => {
    const back = "op_0m5backback00";
    const reversal = (step: string) =>
      sampleMove({ id: back, step, reverses: id, source: "cell-02", target: "cell-01" });
    const answers: Answers = {
      [`POST /v1/moves/${id}/reverse`]: () => ({
        status: 202,
        body: { move: reversal("planned"), next_steps: [] },
      }),
      [`GET /v1/moves/${back}`]: going(reversal("soaking")),
    };
    const { code, stderr } = await against(answers, `move reverse ${id}`);
    expect(code).toBe(0);
    expect(stderr).toContain("acme: served by cell-01");
  });

  test("complete wants to be confirmed by name; others do not", async () => {
    const silent = await against({}, `move complete ${id} --no-input`);
    expect({ code: silent.code, asked: silent.asked }).toEqual({ code: 64, asked: [] });
    const { code } = await against(acting("complete", done), `move complete ${id} --confirm ${id}`);
    expect(code).toBe(0);
  });

  test("pause and resume are done when the answer comes; --no-wait, --dry-run and refusals", async () => {
    for (const action of ["pause", "resume"]) {
      const { code, asked } = await against(acting(action), `move ${action} ${id}`);
      expect([code, asked.length]).toEqual([0, 1]);
    }
    const early = await against(acting("switch"), `move switch ${id} --no-wait`);
    expect([early.code, early.asked.length]).toEqual([0, 1]);
    const dry = await against(acting("switch"), `move switch ${id} --dry-run`);
    expect([dry.code, dry.bodies]).toEqual([0, [{ dryRun: true }]]);
    const refused = await against(
      {
        [`POST /v1/moves/${id}/cancel`]: () =>
          new CellError("STATE_CONFLICT", "cell-02 serves.", {
            nextSteps: [`cellctl move reverse ${id}`],
          }),
      },
      `move cancel ${id}`,
    );
    expect(refused.code).toBe(6);
    expect(refused.stderr).toContain(`cellctl move reverse ${id}`);
  });
});
