/** The whole verdict on second attempts; promise 7 as a table and as a property. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { decideRetry, type FailedAttempt, refusedMax } from "./retry.ts";

const failed: FailedAttempt = {
  attempt: 1,
  refused: 0,
  method: "POST",
  failure: "other",
  sent: "maybe",
  notAdmitted: false,
  answered: false,
  bodyIntact: true,
  endpoints: 2,
};

test.each([
  ["no connection, another endpoint", { failure: "connect", sent: "nothing" }, "again connect"],
  [
    "no connection, no other endpoint",
    { failure: "connect", sent: "nothing", endpoints: 1 },
    "keep no-other-endpoint",
  ],
  [
    "refused by the gate with our nonce",
    { notAdmitted: true, answered: true },
    "decide not-admitted",
  ],
  ["refused by the gate, body gone", { notAdmitted: true, bodyIntact: false }, "keep body-gone"],
  [
    "refused by the gate a second time",
    { notAdmitted: true, attempt: 2, refused: 1 },
    "decide not-admitted",
  ],
  [
    "refused by the gate more often than any switch is tried",
    { notAdmitted: true, attempt: refusedMax + 1, refused: refusedMax },
    "keep refused-often",
  ],
  [
    "refused by the gate after one that may have acted",
    { notAdmitted: true, attempt: 2 },
    "keep second-attempt",
  ],
  [
    "no connection after a refusal of the gate",
    { failure: "connect", sent: "nothing", attempt: 2, refused: 1 },
    "again connect",
  ],
  ["a GET reset", { failure: "reset", method: "GET" }, "again reset-idempotent"],
  ["a DELETE reset", { failure: "reset", method: "DELETE" }, "again reset-idempotent"],
  ["a PUT reset, its body at hand", { failure: "reset", method: "PUT" }, "again reset-idempotent"],
  [
    "a PUT reset, its body gone",
    { failure: "reset", method: "PUT", bodyIntact: false },
    "keep body-gone",
  ],
  ["a POST reset", { failure: "reset" }, "keep may-have-acted"],
  ["an unknown method reset", { failure: "reset", method: "FROB" }, "keep may-have-acted"],
  [
    "a reset after an answer began",
    { failure: "reset", method: "GET", answered: true },
    "keep may-have-acted",
  ],
  ["a timeout", { method: "GET" }, "keep not-repeatable"],
] as const)("%s", (_name, change, wanted) => {
  const verdict = decideRetry({ ...failed, ...change });
  expect(`${verdict.kind} ${verdict.reason}`).toBe(wanted);
});

test("nothing is sent twice unless the first provably did nothing", () => {
  const any: fc.Arbitrary<FailedAttempt> = fc.record({
    attempt: fc.integer({ min: 1, max: 12 }),
    refused: fc.nat({ max: 11 }),
    method: fc.constantFrom("GET", "POST", "PUT", "PATCH", "DELETE", "X"),
    failure: fc.constantFrom("connect", "reset", "other"),
    sent: fc.constantFrom("nothing", "maybe"),
    notAdmitted: fc.boolean(),
    answered: fc.boolean(),
    bodyIntact: fc.boolean(),
    endpoints: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(any, (one) => {
      fc.pre(one.refused < one.attempt);
      const verdict = decideRetry(one);
      if (verdict.kind === "keep") return;
      // Nobody but gates that admitted nothing has seen it before.
      expect(one.attempt - one.refused).toBe(1);
      expect(one.refused).toBeLessThan(one.notAdmitted ? refusedMax : one.attempt);
      expect(one.bodyIntact).toBe(true);
      const harmless =
        ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].includes(one.method) && !one.answered;
      expect(one.sent === "nothing" || one.notAdmitted || harmless).toBe(true);
      expect(verdict.kind === "decide").toBe(one.notAdmitted);
    }),
  );
});
