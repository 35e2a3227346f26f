/** `cellctl move …` against a small real HTTP server: what is sent, printed, waited for and returned. */
import { describe, expect, test, vi } from "vitest";
import { CellError } from "../contract/errors.ts";
import { movePlansSchema, startedMovesSchema } from "../contract/move-api.ts";
import type { Answers } from "./cli.fixture.ts";
import { against, done, going, id, soaking } from "./move.fixture.ts";
import { sampleMove, sampleMovePlan, sampleVerification } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const planning = (...plans: unknown[]): Answers => ({
  "POST /v1/moves/plan": () => ({ body: { items: plans, next: null, skipped: [] } }),
});
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
    [
      "move plan acme --to c --pause-budget 800",
      `--pause-budget "800": the unit is missing; say 800ms`,
    ],
    ["move plan acme --to c --pause-budget 5ms", '--pause-budget "5ms": must be from 50ms to 60s'],
    ["move plan acme --to c --soak 5", `--soak "5": the unit is missing; say 30m`],
    ["move plan acme --to c --soak 31d", `--soak "31d": must be 30d at most`],
    ["move plan acme --to c --rate fast", "--rate"],
    ["move plan acme --to c --rate 5", `--rate "5": the unit is missing; say 50MB/s`],
    ["move plan acme --to c --rate 5B/s", `--rate "5B/s": must be 1KiB/s or more`],
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
