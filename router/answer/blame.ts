/** Of one attempt: did it go wrong inside the cell, so that it says something of whose request it was? */
import type { HopFailure, HopOutcome } from "../../runtime/http/forward.ts";
import type { Blame } from "../cells/blamed-keys.ts";

/** What the gate says when the application had the request, and the exchange did not come to its end. */
const openCodes: ReadonlySet<string> = new Set([
  ...["OUTCOME_UNKNOWN", "CELL_TIMEOUT", "CELL_PROTOCOL"],
]);
const cutOff: ReadonlySet<HopFailure> = new Set([
  "head-timeout",
  "body-timeout",
  "reset",
  "protocol",
]);
/** Nobody waited for the answer: who hung the application may have lost patience before it fell. */
const givenUp: ReadonlySet<HopFailure> = new Set(["client-gone", "deadline"]);

/** Undefined: it ended well, or was never let in, as everybody's is where nothing listens. */
export function blameOf(outcome: HopOutcome, gateCode: string | undefined): Blame | undefined {
  if (gateCode !== undefined) return openCodes.has(gateCode) ? "open" : undefined;
  if (outcome.kind === "answered") return outcome.status >= 500 ? "failed" : undefined;
  if (outcome.kind === "failed" && outcome.sent === "nothing") return undefined;
  if (outcome.kind === "failed" && givenUp.has(outcome.reason)) return "open";
  return cutOff.has(outcome.reason) ? "open" : undefined;
}
