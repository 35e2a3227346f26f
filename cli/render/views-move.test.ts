/** Moves as they are shown: golden pages of a plan and a move, lines of progress, and hostile names. */
import { describe, expect, test } from "vitest";
import { moveSteps } from "../../contract/move-api.ts";
import { batchLine, liveLine, logLine, moveName, phaseBar } from "../move-progress.ts";
import {
  createdAt,
  sampleMove,
  sampleMovePlan,
  sampleNowMs,
  samplePause,
  sampleVerification,
} from "../samples.fixture.ts";
import { isPrintable } from "./printable.ts";
import { createProgress } from "./progress.ts";
import { createTable, describe as describeObject } from "./table.ts";
import { moveView, plansView } from "./views-move.ts";

const plain = (_tone: unknown, text: string): string => text;
const page = (rows: ReturnType<typeof sampleMove>[], wide = false) =>
  createTable(moveView.columns, { wide, headers: true, nowMs: sampleNowMs, paint: plain }).page(
    rows,
  );
const inFull = (move: ReturnType<typeof sampleMove>) =>
  describeObject(moveView.details?.(move, sampleNowMs) ?? [], plain);
const planned = (...items: ReturnType<typeof sampleMovePlan>[]) =>
  describeObject(plansView.details?.({ items, next: null, skipped: [] }, sampleNowMs) ?? [], plain);

const soaking = sampleMove({
  ...{ step: "soaking", pause: samplePause, tries: 2, attempt: 2, asked: "complete" },
  soakUntil: new Date(sampleNowMs + 90_000).toISOString(),
  verifications: [
    sampleVerification(true),
    { ...sampleVerification(false), phase: "after-switch" },
  ],
});

describe("pages", () => {
  test("a list, narrow and wide", () => {
    const rows = [
      sampleMove(),
      sampleMove({ paused: true, keys: ["users/slot/7", "users/slot/8"] }),
      soaking,
    ];
    expect(page(rows)).toMatchSnapshot();
    expect(page(rows, true)).toMatchSnapshot();
  });

  test("one move in full", () => {
    expect(inFull(soaking)).toMatchSnapshot();
  });

  test("a plan, and what stands against it", () => {
    const check = { id: "drift", cell: "cell-02", store: "main" };
    const checks = [
      ...sampleMovePlan().checks,
      { ...check, verdict: "warning", text: "a long transaction", fix: "wait" },
      { ...check, verdict: "refused", text: "orders differs", fix: "cellctl schema check" },
    ];
    expect(planned(sampleMovePlan({ checks }))).toMatchSnapshot();
    expect(
      planned(sampleMovePlan(), sampleMovePlan({ checks, keys: ["default/tenant/globex"] })),
    ).toMatchSnapshot();
    expect(planned()).toContain("none");
  });
});

describe("progress", () => {
  test("of every step has a line, and the bar never shrinks on the way", () => {
    let last = 0;
    const offTheWay = ["releasing", "aborting", "cancelled", "failed", "diverged"];
    for (const step of moveSteps) {
      const move = sampleMove({ step });
      expect(liveLine(move, sampleNowMs)).toContain(step);
      expect(logLine(move)).toContain(step);
      if (offTheWay.includes(step)) continue;
      const full = [...phaseBar(move)].filter((part) => part === "█").length;
      expect(full).toBeGreaterThanOrEqual(last);
      last = full;
    }
    expect(last).toBe(12);
  });

  test("tells what matters then", () => {
    expect(liveLine(sampleMove(), sampleNowMs)).toBe(
      "acme  ███░░░░░░░░░  copying  62%  12k/20k rows  30MiB/48MiB  11MiB/s  eta 1.6s",
    );
    expect(liveLine(soaking, sampleNowMs)).toContain("pause 38ms  1m30s left  asked for: complete");
    const ready = sampleMove({
      step: "ready",
      progress: { ...sampleMove().progress, lagBytes: 2048 },
    });
    expect(liveLine(ready, sampleNowMs)).toContain(
      `lag 2KiB  waits for: cellctl move switch ${ready.id}`,
    );
    expect(logLine(sampleMove({ step: "fencing", tries: 2, paused: true }))).toBe(
      "op_0m5abcdefghij  acme  fencing  try 2  paused, goes on with: cellctl move resume op_0m5abcdefghij",
    );
    expect(
      batchLine(
        [sampleMove(), soaking, sampleMove({ step: "planned" })],
        ({ step }) => step === "soaking",
      ),
    ).toBe("1 of 3 moved · 1 under way (acme copying 62%) · 1 waiting");
  });

  test("an estimate that was too small does not run over", () => {
    const progress = { ...sampleMove().progress, bytesCopied: 99_000_000 };
    expect(liveLine(sampleMove({ progress }), sampleNowMs)).toContain("100%");
    const nothing = { ...progress, bytesTotal: 0, rowsTotal: 0 };
    expect(liveLine(sampleMove({ progress: nothing }), sampleNowMs)).toContain("0%");
  });
});

test("names, headlines and fixes that hold control characters reach no terminal as such", async () => {
  const attack = "\u001b]0;owned\u0007\u009b2J\r\n\u202egpj.exe";
  const move = sampleMove({
    ...{ keys: [`default/tenant/${attack}`], headline: attack, reason: attack, source: "cell-01" },
    error: { code: "OP_FAILED", message: attack, next_steps: [attack] },
    steps: [{ step: attack, at: createdAt, text: attack }],
    keyspace: "default",
  });
  const plan = sampleMovePlan({
    tables: [{ store: attack, table: attack, rows: 1, bytes: 1 }],
    checks: [
      { id: attack, cell: attack, store: attack, verdict: "refused", text: attack, fix: attack },
    ],
    steps: [{ step: "copying", text: attack }],
  });
  expect(moveName(move)).toContain("owned");
  for (const shown of [inFull(move), page([move], true), planned(plan), planned(plan, plan)]) {
    for (const line of shown.split("\n")) expect(isPrintable(line), line).toBe(true);
  }
  let written = "";
  const stderr = {
    write: async (text: string) => {
      written += text;
    },
    isTerminal: false,
    columns: () => 80,
  };
  const progress = createProgress({ stderr, paint: plain, quiet: false });
  await progress.now(logLine(move));
  await progress.now(liveLine(move, sampleNowMs));
  for (const line of written.split("\n")) expect(isPrintable(line), line).toBe(true);
});
