/**
 * Pure: what the end of an attempt says about the endpoint. Only what a gateway would say counts against
 * it; refusals that a cell's gate makes about a placement, and what clients do, say nothing.
 */
import { type ErrorCode, isErrorCode } from "../../contract/errors.ts";
import type { HopFailure, HopOutcome } from "../../runtime/http/forward.ts";
import type { EjectionReason, Evidence } from "./breaker.ts";

const answered: Evidence = { kind: "answered" };
const none: Evidence = { kind: "none" };

/** What is missing is no matter of the endpoint. */
const failures: Readonly<Partial<Record<HopFailure, EjectionReason>>> = {
  connect: "connect",
  reset: "reset",
  "head-timeout": "timeout",
  "body-timeout": "timeout",
  protocol: "protocol",
};

/** The house's own words for an endpoint that does not work; its other 503s speak of a placement. */
const gateTroubles: ReadonlySet<ErrorCode> = new Set([
  "APP_UNREACHABLE",
  "CELL_UNREACHABLE",
  "CELL_TIMEOUT",
  "CELL_PROTOCOL",
]);

/** `gateCode`: what the answer's head says in `x-cellfleet-error`, where the cell speaks our protocol. */
export function evidenceOf(outcome: HopOutcome, gateCode: string | undefined): Evidence {
  const { status } = outcome;
  const reason = outcome.kind === "answered" ? undefined : failures[outcome.reason];
  if (reason !== undefined) return { kind: "failed", reason };
  if (status === undefined) return none;
  if (status < 502 || status > 504) return answered;
  const isOurs = gateCode !== undefined && isErrorCode(gateCode) && !gateTroubles.has(gateCode);
  return isOurs ? none : { kind: "failed", reason: "answer" };
}
