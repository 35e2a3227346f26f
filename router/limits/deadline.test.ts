/** What is read of a client's deadline, and what the cell is told. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { deadlineHeaders, leastDeadline, readClientDeadline, withoutDeadline } from "./deadline.ts";

const nowMs = 1_800_000_000_000;
const left = (...raw: string[]) => {
  const read = readClientDeadline(raw, nowMs);
  return read.kind === "ok" ? read.leftMs : read.message;
};

test.each([
  [["accept", "*/*"], undefined],
  [["x-request-deadline", String(nowMs + 250)], 250],
  [["X-Request-Deadline", String(nowMs - 5)], 0],
  // No time since 1970: it can only be what is left.
  [["x-request-deadline", "1500"], 1500],
  [["x-request-timeout-ms", "1500"], 1500],
  [["x-request-timeout-ms", "0"], 0],
  [["grpc-timeout", "2S"], 2000],
  [["grpc-timeout", "5M"], 300_000],
  [["grpc-timeout", "100m"], 100],
  [["grpc-timeout", "5000u"], 5],
  [["grpc-timeout", "3000000n"], 3],
  // Capped at an hour, whatever is asked for.
  [["grpc-timeout", "99999999H"], 3_600_000],
  [["x-request-timeout-ms", "999999999"], 3_600_000],
  [["x-request-deadline", "999999999999999"], 3_600_000],
  // The least of several wins.
  [["grpc-timeout", "2S", "x-request-timeout-ms", "700"], 700],
  [["x-request-timeout-ms", "700", "grpc-timeout", "2S"], 700],
])("%j leaves %s", (raw, wanted) => {
  expect(left(...raw)).toBe(wanted);
});

test.each([
  ["x-request-deadline", ""],
  ["x-request-deadline", "-1"],
  ["x-request-deadline", "1e3"],
  ["x-request-deadline", " 5"],
  ["x-request-deadline", "0x10"],
  ["x-request-deadline", "1234567890123456"],
  ["x-request-deadline", "2026-11-22T08:00:00Z"],
  ["x-request-timeout-ms", "5.5"],
  ["x-request-timeout-ms", "NaN"],
  ["grpc-timeout", "5"],
  ["grpc-timeout", "5s"],
  ["grpc-timeout", "123456789S"],
  ["grpc-timeout", "-5S"],
])("%s: %s is refused by name", (name, value) => {
  expect(left(name, value)).toMatch(new RegExp(`^The header ${name} must be `));
});

test("twice the same header is refused, and so is a second one in another spelling", () => {
  expect(left("grpc-timeout", "1S", "Grpc-Timeout", "9S")).toMatch(/is there twice/);
});

test("the least of client, route and router; 0 and nothing are none", () => {
  expect(leastDeadline(undefined, undefined, 0)).toBeUndefined();
  expect(leastDeadline(undefined, undefined, 900)).toBe(900);
  expect(leastDeadline(undefined, 500, 900)).toBe(500);
  expect(leastDeadline(300, 500, 900)).toBe(300);
  expect(leastDeadline(0, 500, 0)).toBe(0);
});

test("the cell is told what is left, in the client's words too, and never more", () => {
  expect(deadlineHeaders(99.9, nowMs, false)).toEqual([
    ...["x-request-deadline", String(nowMs + 99)],
    ...["x-request-timeout-ms", "99"],
  ]);
  expect(deadlineHeaders(99.9, nowMs, true).slice(4)).toEqual(["grpc-timeout", "99m"]);
  expect(deadlineHeaders(-5, nowMs, false)[3]).toBe("0");
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3_600_000 }), (ms) => {
      expect(left(...deadlineHeaders(ms, nowMs, false))).toBe(ms);
    }),
  );
});

test("what the client said is taken out", () => {
  const raw = ["Accept", "*/*", "Grpc-Timeout", "1S", "X-REQUEST-DEADLINE", "5", "a", "b"];
  expect(withoutDeadline(raw)).toEqual(["Accept", "*/*", "a", "b"]);
});

test("nothing that a client may send makes it throw or last longer than an hour", () => {
  const name = fc.constantFrom("x-request-deadline", "x-request-timeout-ms", "grpc-timeout");
  fc.assert(
    fc.property(name, fc.oneof(fc.string(), fc.bigInt().map(String)), (header, value) => {
      const read = readClientDeadline([header, value], nowMs);
      const ms = read.kind === "ok" ? read.leftMs : 0;
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(ms).toBeLessThanOrEqual(3_600_000);
    }),
  );
});
