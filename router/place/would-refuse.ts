/**
 * What this router would have refused, had the cell that took it been in stage `enforce`: by code, as
 * a metric and as what the control plane is told, so that nobody turns refusals on unawares.
 */
import type { ErrorCode } from "../../contract/errors.ts";
import type { Counter } from "../../runtime/metrics.ts";

/** Of identification; and of rule R2, for an answer that no gate confirmed. */
export const wouldRefuseCodes = [
  "TENANT_MISSING",
  "TENANT_INVALID",
  "TENANT_CONFLICT",
  "TENANT_AMBIGUOUS",
  "TENANT_UNKNOWN",
  "TENANT_TOKEN_INVALID",
  "TENANT_KEYS_UNAVAILABLE",
  "ROUTER_OVERLOADED",
  "OUTCOME_UNKNOWN",
] as const satisfies readonly ErrorCode[];

export class WouldRefuse {
  readonly #counter: Counter;
  readonly #counts = new Map<ErrorCode, number>();

  constructor(counter: Counter) {
    this.#counter = counter;
  }

  note(code: ErrorCode): void {
    this.#counter.inc({ code });
    this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
  }

  /** Since the start of this process. */
  counts(): Record<string, number> {
    return Object.fromEntries(this.#counts);
  }
}
