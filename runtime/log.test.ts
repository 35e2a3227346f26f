import { expect, test } from "vitest";
import { systemClock } from "./clock.ts";
import { createLog, errorFields } from "./log.ts";

type Events = {
  "move.done": { readonly moveId: string };
  "turn.failed": { readonly error: string };
};

function linesOf(
  level: "debug" | "info" | "warn",
  write: (log: ReturnType<typeof create>) => void,
) {
  const lines: string[] = [];
  write(create(level, (line) => lines.push(line)));
  return lines;
}

const create = (level: "debug" | "info" | "warn", write: (line: string) => void) =>
  createLog<Events>({ clock: { ...systemClock, nowMs: () => 0 }, part: "router", level, write });

test("an event is one line of JSON, whatever stands in its fields", () => {
  const [line = ""] = linesOf("info", (log) => log.event("move.done", { moveId: 'a"\n{b}' }));
  expect(line.endsWith("\n")).toBe(true);
  expect(line.trimEnd()).not.toContain("\n");
  expect(JSON.parse(line)).toEqual({
    time: "1970-01-01T00:00:00.000Z",
    level: "info",
    part: "router",
    event: "move.done",
    moveId: 'a"\n{b}',
  });
});

test("fields that are JSON already make the same line", () => {
  const [line = "", same = ""] = linesOf("info", (log) => {
    log.event("move.done", { moveId: "m-1" });
    log.written("move.done", '"moveId":"m-1"');
  });
  expect(same).toBe(line);
  expect(linesOf("warn", (log) => log.written("move.done", ""))).toEqual([]);
});

test("what is below the level is not written", () => {
  const lines = linesOf("warn", (log) => {
    log.event("move.done", { moveId: "m" });
    log.event("turn.failed", { error: "x" }, "error");
  });
  expect(lines).toHaveLength(1);
});

test("an error keeps its message, code and cause, and nothing else", () => {
  const error = Object.assign(new Error("outer", { cause: new Error("inner") }), { code: "EPIPE" });
  expect(errorFields(error)).toEqual({ error: "outer", code: "EPIPE", cause: "inner" });
  expect(errorFields("thrown text")).toEqual({ error: "thrown text" });
});
