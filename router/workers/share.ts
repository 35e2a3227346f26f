/**
 * Pure: what one worker may use of what the settings allow the router. Totals are divided, rounded up,
 * so that all workers together keep them, give or take one per worker. The system spreads connections,
 * not requests: one worker may reach its share while others have room.
 */
import type { RouterConfig } from "../config.ts";

/** The share of one in `workers` of a total. */
export const shareOf = (total: number, workers: number): number => Math.ceil(total / workers);

const totals = [
  "heldMax",
  "heldPerKeyMax",
  "fanOutsMax",
  "pendingMax",
  "connectionsMax",
  "clientsMax",
  "explainRequestsMax",
  "explainBytesMax",
  "staleBytesMax",
  "wsMax",
  "wsPerTenantMax",
] as const satisfies readonly (keyof RouterConfig)[];

export function shareOfConfig(config: RouterConfig, workers: number): RouterConfig {
  const shares = totals.map((name) => [name, shareOf(config[name], workers)] as const);
  return { ...config, ...Object.fromEntries(shares) };
}
