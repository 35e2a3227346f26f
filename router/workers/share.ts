/**
 * Pure: what one worker may use of what the settings and the table's policy allow the router. Totals are
 * divided, rounded up, so that all workers together keep them, give or take one per worker; rates are
 * divided as they are. The system spreads connections, not requests: one worker may reach its share
 * while others have room.
 */
import type { TenantLimit } from "../../contract/traffic-policy.ts";
import type { RouterConfig } from "../config.ts";

const totals = [
  ...(["heldMax", "heldPerKeyMax", "heldBytesMax", "heldBytesPerKeyMax"] as const),
  ...(["fanOutsMax", "inflightMax"] as const),
  ...(["pendingMax", "connectionsMax", "cellInflightMax", "cellPendingMax"] as const),
  ...(["clientsMax", "clientsPerIpMax", "wsMax", "wsPerTenantMax"] as const),
  ...(["explainRequestsMax", "explainBytesMax", "staleBytesMax"] as const),
  ...(["ackedMax", "ackedTotalMax"] as const),
] satisfies readonly (keyof RouterConfig)[];

/** For one of `config.workers`. */
export function shareOfConfig(config: RouterConfig): RouterConfig {
  const { workers } = config;
  const shares = totals.map((name) => [name, shareOf(config[name], workers)] as const);
  return { ...config, ...Object.fromEntries(shares) };
}

export function shareOfLimit(limit: TenantLimit, workers: number): TenantLimit {
  const { inFlightMax, perSecond, burst } = limit;
  return {
    ...(inFlightMax === undefined ? {} : { inFlightMax: shareOf(inFlightMax, workers) }),
    ...(perSecond === undefined ? {} : { perSecond: perSecond / workers }),
    ...(burst === undefined ? {} : { burst: shareOf(burst, workers) }),
  };
}

const shareOf = (total: number, workers: number): number => Math.ceil(total / workers);
