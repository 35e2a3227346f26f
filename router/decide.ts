/**
 * Pure: where does a tenant's request go, by the table in memory? No network, no waiting, and never
 * another cell than the owner: what is unknown or unserved is a typed refusal.
 */
import type { ErrorCode } from "../contract/errors.ts";
import type { CellId, KeyspaceName, TenantId } from "../contract/ids.ts";
import { epochOne } from "../contract/ids.ts";
import type { FoundRoute } from "../contract/keyspace-routes.ts";
import { tenantKey } from "../contract/placement-key.ts";
import { defaultService, type serviceRouteSchema } from "../contract/routing-table.ts";
import type { TableState } from "../contract/table-state.ts";

/** What a router serves from. */
export type RoutingView = {
  readonly table: TableState;
  /** `none`: static mode; cells may be any HTTP server, so epochs are neither sent nor confirmed. */
  readonly protocol: "epoch" | "none";
  /** Tenants that are not in the table go to this cell; only static mode can name one. */
  readonly passThrough: CellId | undefined;
};

export type RouteDecision =
  | {
      readonly kind: "proxy";
      readonly route: FoundRoute;
      readonly service: string;
      readonly endpoints: readonly string[];
    }
  | { readonly kind: "hold"; readonly route: FoundRoute }
  | {
      readonly kind: "refuse";
      readonly code: ErrorCode;
      readonly message: string;
      readonly route: FoundRoute | undefined;
    };

export type Wanted = {
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
  readonly service: string;
};

export function decide(view: RoutingView | undefined, wanted: Wanted): RouteDecision {
  if (view === undefined) {
    return refuse("TABLE_NOT_LOADED", "The router has not received a routing table yet.");
  }
  const route = findRoute(view, wanted);
  if (route === undefined) {
    const where = wanted.keyspace === "default" ? "" : ` of keyspace ${wanted.keyspace}`;
    return refuse("TENANT_UNKNOWN", `No placement exists for tenant ${wanted.tenant}${where}.`);
  }
  if (route.state === "hold") return { kind: "hold", route };
  if (route.state === "unavailable") {
    const message = `Tenant ${wanted.tenant} has no cell that may serve it now.`;
    return refuse("PLACEMENT_UNAVAILABLE", message, route);
  }
  const service = view.table.cell(route.cell)?.services[wanted.service];
  if (service === undefined) {
    const message = `Cell ${route.cell} offers no service ${wanted.service}.`;
    return refuse("PLACEMENT_UNAVAILABLE", message, route);
  }
  return { kind: "proxy", route, service: wanted.service, endpoints: service.endpoints };
}

/** The placement of a tenant, or the pass-through cell's as if it were one. */
export function findRoute(view: RoutingView, wanted: Wanted): FoundRoute | undefined {
  const { keyspace, tenant } = wanted;
  const found = view.table.lookup(keyspace, tenant);
  if (found !== undefined || view.passThrough === undefined) return found;
  const key = tenantKey(keyspace, tenant);
  return { key, via: "tenant", cell: view.passThrough, epoch: epochOne, state: "active" };
}

const refuse = (
  code: ErrorCode,
  message: string,
  route: FoundRoute | undefined = undefined,
): RouteDecision => ({ kind: "refuse", code, message, route });

type ServiceRoute = (typeof serviceRouteSchema)["_output"];

/** The service of a request: the first route whose host and path prefix both fit, else `default`. */
export function chooseService(
  routes: readonly ServiceRoute[],
  hostname: string,
  path: string,
): string {
  const fits = ({ host, pathPrefix }: ServiceRoute) =>
    (host === undefined || hostFits(host.toLowerCase(), hostname)) &&
    (pathPrefix === undefined || prefixFits(pathPrefix, path));
  return routes.find(fits)?.service ?? defaultService;
}

/** `*.example.com` fits every name below it. */
const hostFits = (pattern: string, hostname: string): boolean =>
  pattern.startsWith("*.") ? hostname.endsWith(pattern.slice(1)) : hostname === pattern;

/** `/api` fits `/api`, `/api/x` and `/api?x`, not `/apis`. */
function prefixFits(prefix: string, path: string): boolean {
  if (!path.startsWith(prefix)) return false;
  const next = path.charAt(prefix.length);
  return prefix.endsWith("/") || next === "" || next === "/" || next === "?";
}
