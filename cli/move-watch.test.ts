/** `cellctl move watch`: what is told of a move on its way, and where the watching is left. */
import { stripVTControlCharacters } from "node:util";
import { expect, test, vi } from "vitest";
import { against, done, going, id, soaking } from "./move.fixture.ts";
import { sampleMove } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

test("is watched to its end; Ctrl-C leaves it alone and says how to come back", async () => {
  const watched = await against(
    { [`GET /v1/moves/${id}`]: going(sampleMove(), soaking, done) },
    `move watch ${id}`,
  );
  expect(watched.code).toBe(0);
  expect(watched.stderr).toContain("✔ acme: moved");
  const interrupt = new AbortController();
  const left = await against({ [`GET /v1/moves/${id}`]: going(sampleMove()) }, `move watch ${id}`, {
    interrupted: interrupt.signal,
    onStderr: () => interrupt.abort(),
  });
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
