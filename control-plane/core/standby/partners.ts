/**
 * Which cell may keep another one's standby, and why not: each rule is a reason with words, so that
 * what `standby ls` says of an unprotected cell is what was decided.
 */
import type { CellView } from "../fleet.ts";

/** What a host must be to keep a standby that it has; undefined: it may. */
export function keepObstacle(origin: CellView, host: CellView): string | undefined {
  if (host.id === origin.id) return "it is the cell itself";
  if (host.annex !== null) return "it is a standby itself";
  if (host.state === "retired" || host.goal === "retired") return "it leaves the fleet";
  if (host.state === "quarantined" || host.revoking) return "it is kept apart after a failover";
  if (host.provider !== origin.provider) return `it is run by the provider ${host.provider}`;
  return placeObstacle(origin, host);
}

/** Where it stands, and what it is for. */
function placeObstacle(origin: CellView, host: CellView): string | undefined {
  if (host.region !== origin.region) return `it stands in ${host.region}, not in ${origin.region}`;
  if (host.failureDomain === origin.failureDomain) {
    return `it would fail together with it (failure domain ${host.failureDomain})`;
  }
  if (!takesTiersOf(origin, host)) return `it takes only ${host.tiers.join(", ")}`;
  if (host.dedicated) return "it is dedicated";
  return isLeaving(host) ? `it is ${host.state} and empty: it is about to leave` : undefined;
}

/** What origin and host must be for a standby that an operator runs. */
export function handObstacle(origin: CellView, host: CellView): string | undefined {
  if (origin.annex !== null || host.annex !== null) return "one of the two is a standby itself";
  if (origin.id === host.id) return "it is the cell itself";
  if (origin.state === "retired" || host.state === "retired") return "one of the two is retired";
  if (origin.provider !== "none" && origin.provider === host.provider) {
    return `both are run by the provider ${host.provider}, whose standbys are made by themselves`;
  }
  return placeObstacle(origin, host);
}

/** What it must be to get a new one. */
export function takeObstacle(origin: CellView, host: CellView): string | undefined {
  const obstacle = keepObstacle(origin, host);
  if (obstacle !== undefined) return obstacle;
  if (host.state !== "active") return `it is ${host.state}`;
  return host.health === "healthy" ? undefined : `it is ${host.health}: ${host.healthReason}`;
}

const takesTiersOf = (origin: CellView, host: CellView): boolean =>
  host.tiers.length === 0 ||
  (origin.tiers.length > 0 && origin.tiers.every((tier) => host.tiers.includes(tier)));

/** Closed by a person, and its tenants are gone: what it keeps of others is taken elsewhere before it goes. */
const isLeaving = ({ state, usage }: CellView): boolean =>
  (state === "cordoned" || state === "draining") && usage.tenants === 0;

/** Cells whose keys are to have standbys that nobody makes by hand. */
export const isArranged = (cell: CellView): boolean =>
  cell.annex === null && cell.provider !== "none" && cell.stage.now === "enforce";
