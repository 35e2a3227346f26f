import { expect, test } from "vitest";
import type { HopOutcome } from "../../runtime/http/forward.ts";
import { blameOf } from "./blame.ts";

const about = { bytesOut: 0, times: { queueMs: 0, connectMs: 0, firstByteMs: 0 } };
const answered = (status: number): HopOutcome => ({ kind: "answered", status, ...about });
const failed = (
  reason: "reset" | "connect" | "client-gone",
  sent: "nothing" | "maybe",
): HopOutcome => ({
  ...{ kind: "failed", reason, sent, error: undefined, status: undefined, cause: undefined },
  ...about,
});
const left: HopOutcome = {
  ...{ kind: "broken", status: 200, reason: "client-gone", cause: undefined, ...about },
};

test.each<readonly [string, HopOutcome, string | undefined, string | undefined]>([
  ["an answer", answered(200), undefined, undefined],
  ["a refusal of the application", answered(409), undefined, undefined],
  ["a failure of the application", answered(500), undefined, "failed"],
  ["the application died with it", answered(503), "OUTCOME_UNKNOWN", "open"],
  ["the application never answered", answered(504), "CELL_TIMEOUT", "open"],
  ["nothing listens behind the gate", answered(503), "APP_UNREACHABLE", undefined],
  ["the gate refuses", answered(503), "LEASE_EXPIRED", undefined],
  ["the gate died with it", failed("reset", "maybe"), undefined, "open"],
  ["its client gave up before any answer", failed("client-gone", "maybe"), undefined, "open"],
  ["its client gave up in the queue", failed("client-gone", "nothing"), undefined, undefined],
  ["its client left amid an answer", left, undefined, undefined],
  ["nobody saw a byte of it", failed("reset", "nothing"), undefined, undefined],
  ["nothing listens there", failed("connect", "nothing"), undefined, undefined],
])("%s", (_what, outcome, gateCode, blame) => {
  expect(blameOf(outcome, gateCode)).toBe(blame);
});
