/** Metrics of what the router believes of tokens, and of what cells believe of the router. */
import type { Counter, Metrics } from "../../runtime/metrics.ts";
import { tokenResults } from "../receive/jwt-reader.ts";
import { tokenRefusals } from "../receive/jwt-verify.ts";

export type TrustMetrics = {
  readonly tokens: Counter;
  readonly jwksReads: Counter;
  readonly signatures: Counter;
};

export const createTrustMetrics = (metrics: Metrics): TrustMetrics => ({
  tokens: metrics.counter(
    "cellfleet_router_tokens_total",
    "Tokens that were to name a tenant, by what was found.",
    [...tokenResults, ...tokenRefusals].map((result) => ({ result })),
  ),
  jwksReads: metrics.counter(
    "cellfleet_router_jwks_reads_total",
    "Readings of issuers' keys, by result.",
    [{ result: "ok" }, { result: "failed" }],
  ),
  signatures: metrics.counter(
    "cellfleet_router_signatures_made_total",
    "Signatures made for cells; most requests use one that is there.",
    [{}],
  ),
});
