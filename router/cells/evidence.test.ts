/** What counts against an endpoint, and what does not. */
import { expect, test } from "vitest";
import { type HopFailure, type HopOutcome, hopFailures } from "../../runtime/http/forward.ts";
import { evidenceOf } from "./evidence.ts";

const common = { bytesOut: 0, times: { queueMs: 0, connectMs: 0, firstByteMs: 0 } };
const answered = (status: number): HopOutcome => ({ kind: "answered", status, ...common });
const failed = (reason: HopFailure, status?: number): HopOutcome => ({
  ...{ kind: "failed", reason, sent: "maybe", error: undefined, status, cause: undefined },
  ...common,
});
const told = (outcome: HopOutcome, gateCode?: string) => {
  const evidence = evidenceOf(outcome, gateCode);
  return evidence.kind === "failed" ? evidence.reason : evidence.kind;
};

test.each([
  [answered(200), undefined, "answered"],
  [answered(500), undefined, "answered"],
  [answered(501), undefined, "answered"],
  [answered(505), undefined, "answered"],
  [answered(404), undefined, "answered"],
  [answered(502), undefined, "answer"],
  [answered(503), undefined, "answer"],
  [answered(504), undefined, "answer"],
  // The gate speaks of a placement, not of the endpoint.
  [answered(503), "GATE_CLOSED", "none"],
  [answered(503), "LEASE_MISSING", "none"],
  [answered(503), "KEY_NOT_ACTIVE", "none"],
  [answered(503), "APP_UNREACHABLE", "answer"],
  [answered(504), "CELL_TIMEOUT", "answer"],
  [answered(503), "nonsense", "answer"],
  [failed("replaced", 421), undefined, "answered"],
  [failed("replaced", 200), undefined, "answered"],
] as const)("%o %s is %s", (outcome, gateCode, wanted) => {
  expect(told(outcome, gateCode)).toBe(wanted);
});

test("of failures only those that a gateway would blame on the endpoint", () => {
  const blamed = hopFailures.filter((reason) => told(failed(reason)) !== "none");
  expect(new Set(blamed)).toEqual(
    new Set(["connect", "reset", "protocol", "head-timeout", "body-timeout"]),
  );
});
