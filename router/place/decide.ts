/**
 * Pure: where does a request go, by the table in memory? No network, no waiting, and never another cell
 * than the owner: what is unknown or unserved is a typed refusal. Only while one cell of the fleet is
 * named for it (`passThrough`), that cell takes what the table places nowhere.
 */
import type { AliasTarget } from "../../contract/alias-index.ts";
import type { ErrorCode } from "../../contract/errors.ts";
import type { CellId, KeyspaceName, TenantId } from "../../contract/ids.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { CellStage, RoutedCell } from "../../contract/routing-table.ts";
import {
  defaultService,
  type Fallback,
  matchRoute,
  type Priority,
  type RouteClass,
  type ServiceRoute,
} from "../../contract/service-route.ts";
import type { TableState } from "../../contract/table-state.ts";

/** What a router serves from. */
export type RoutingView = {
  readonly table: TableState;
  /** `none`: static mode; cells may be any HTTP server, so epochs are neither sent nor confirmed. */
  readonly protocol: "epoch" | "none";
  /** Takes every request that the table does not place: a cell before `enforce`, or named in static mode. */
  readonly passThrough: CellId | undefined;
};

/**
 * What is said to an endpoint and expected of it. `plain`: nothing of ours, to a server that knows
 * nothing of cells. Else by the stage of the cell: `pass-through` says the tenant and expects nothing,
 * `observe` speaks with a gate and counts what it should refuse, `enforce` refuses it.
 */
export type Wire = "plain" | CellStage;

/** What a request says of its tenant: one, or why none can be read. */
export type Subject =
  | { readonly kind: "tenant"; readonly keyspace: KeyspaceName; readonly tenant: TenantId }
  | {
      readonly kind: "refused";
      readonly code: ErrorCode;
      readonly message: string;
      /** Tenants that it may have meant. */
      readonly named: readonly AliasTarget[];
    };

export type Wanted = { readonly subject: Subject; readonly service: string };

export type Placed = {
  readonly kind: "proxy";
  /** Undefined: a service outside of all cells. */
  readonly cell: CellId | undefined;
  /** What people are told of it: of an annex the cell that it stands in. */
  readonly shown: CellId | undefined;
  /** Undefined where the table has no placement: passed through, or outside of all cells. */
  readonly route: FoundRoute | undefined;
  readonly wire: Wire;
  readonly service: string;
  readonly endpoints: readonly string[];
};
type Refused = {
  readonly kind: "refuse";
  readonly code: ErrorCode;
  readonly message: string;
  readonly route: FoundRoute | undefined;
};
export type Held = {
  readonly kind: "hold";
  readonly route: FoundRoute;
  /** For the end of a takeover, not for that of a move's switch. */
  readonly handover: boolean;
};
export type RouteDecision = Placed | Held | Refused;

export function decide(view: RoutingView | undefined, wanted: Wanted): RouteDecision {
  if (view === undefined) {
    return refuse("TABLE_NOT_LOADED", "The router has not received a routing table yet.");
  }
  const { subject, service } = wanted;
  const route = findRoute(view, subject);
  if (route === undefined) return passThrough(view, wanted);
  if (isHeld(view.table, route)) {
    return { kind: "hold", route, handover: isHalted(view.table, route.cell) };
  }
  switch (route.state) {
    case "active":
      return toCell(view, route.cell, route, service);
    case "hold":
      return refuseHalted(view.table, route);
    case "suspended":
      return refuse("TENANT_SUSPENDED", "This tenant is suspended by its operator.", route);
    case "unavailable":
      return refuse("PLACEMENT_UNAVAILABLE", "No cell may serve this tenant now.", route);
  }
}

/** The placement of the tenant, if the request names one and the table knows it. */
export const findRoute = ({ table }: RoutingView, subject: Subject): FoundRoute | undefined =>
  subject.kind === "tenant" ? table.lookup(subject.keyspace, subject.tenant) : undefined;

/** Its ownership is being taken away: nothing goes there, and nothing comes from there. */
export const isHalted = (table: TableState, cell: CellId): boolean =>
  table.cell(cell)?.halted === true;

/** Its owner has certainly stopped, and its keys are given to others at this moment. */
const isHandedOver = (table: TableState, cell: CellId): boolean =>
  table.cell(cell)?.handover === true;

/**
 * Is the next owner near? In a switch of a move it is, and in the last moment of a takeover; before that a
 * takeover may last, also that of a cell that was switching.
 */
export function isHeld(
  table: TableState,
  { cell, state }: Pick<FoundRoute, "cell" | "state">,
): boolean {
  if (state !== "hold" && state !== "active") return false;
  return isHalted(table, cell) ? isHandedOver(table, cell) : state === "hold";
}

export const refuseHalted = (table: TableState, route: FoundRoute): Refused =>
  refuse("PLACEMENT_UNAVAILABLE", haltedText(table, route.cell), route);

/** An annex goes by the name of the cell that it stands in. */
export const shownCell = (table: TableState, cell: CellId): CellId =>
  table.cell(cell)?.host ?? cell;

const haltedText = (table: TableState, cell: CellId): string =>
  `Cell ${shownCell(table, cell)} is being taken out of service: what it owned waits for its new owner.`;

/** A service outside of all cells. */
export function decideGlobal({ table }: RoutingView, service: string): Placed | Refused {
  const found = table.lists.globalServices?.[service];
  if (found === undefined) {
    return refuse("SERVICE_UNKNOWN", `No service ${service} is registered outside of the cells.`);
  }
  const { endpoints } = found;
  const outside = { cell: undefined, shown: undefined, route: undefined } as const;
  return { kind: "proxy", ...outside, wire: "plain", service, endpoints };
}

/** The one cell that a route of class `public` names. */
export function decidePublic(view: RoutingView, cell: CellId, service: string): Placed | Refused {
  const { table } = view;
  const known = table.cell(cell);
  return known?.host !== undefined && !servesAnybody(table, known)
    ? refuse("PLACEMENT_UNAVAILABLE", `${cell} is a standby, which serves nobody.`)
    : toCell(view, cell, undefined, service);
}

/**
 * One of the cells that offer the service, for a route of class `any-cell`. `share` (from 0, below 1) says
 * which of them; those of which `isUsable` says no are passed over while there are others.
 */
export function decideAnyCell(
  view: RoutingView,
  service: string,
  share: number,
  isUsable: (endpoints: readonly string[]) => boolean,
): Placed | Refused {
  const { table } = view;
  const offering = table.lists.cells.filter(
    (cell) => Object.hasOwn(cell.services, service) && servesAnybody(table, cell),
  );
  const usable = offering.filter(({ services }) => isUsable(services[service]?.endpoints ?? []));
  const pool = usable.length > 0 ? usable : offering;
  const chosen = pool[Math.floor(share * pool.length)];
  return chosen === undefined
    ? refuse("SERVICE_UNKNOWN", `No cell offers a service ${service}.`)
    : toCell(view, chosen.id, undefined, service);
}

/** Not one that is being taken over, nor an annex that is a standby and nothing else. */
const servesAnybody = (table: TableState, { id, host, halted }: RoutedCell): boolean =>
  halted !== true && (host === undefined || table.owners().all.has(id));

/** A cell that a fan-out goes to, or one that it cannot go to although it owns tenants. */
export type FanOutTarget =
  | (Placed & { readonly cell: CellId })
  | { readonly missing: CellId; readonly halted: boolean };

/** Every cell that offers the service and owns something, or takes what nobody owns. */
export function decideFanOut(
  view: RoutingView,
  service: string,
): { readonly kind: "fan-out"; readonly targets: readonly FanOutTarget[] } | Refused {
  const { table } = view;
  if (!table.lists.cells.some(({ services }) => services[service] !== undefined)) {
    return refuse("SERVICE_UNKNOWN", `No cell offers a service ${service}.`);
  }
  const owners = new Set(table.owners().all);
  if (view.passThrough !== undefined) owners.add(view.passThrough);
  const targets = [...owners].flatMap((cell): FanOutTarget[] => {
    const placed = toCell(view, cell, undefined, service);
    // One that owns tenants and does not offer the service holds a part of the answer all the same.
    return placed.kind === "proxy"
      ? [{ ...placed, cell }]
      : [{ missing: cell, halted: isHalted(table, cell) }];
  });
  return { kind: "fan-out", targets };
}

/** How requests are carried to a cell. */
export const wireOf = ({ protocol }: RoutingView, cell: RoutedCell | undefined): Wire =>
  protocol === "none" ? "plain" : (cell?.stage ?? "enforce");

function passThrough(view: RoutingView, { subject, service }: Wanted): RouteDecision {
  const { table, passThrough: taker } = view;
  if (taker !== undefined && !isOwnedElsewhere(table, taker, subject)) {
    return toCell(view, taker, undefined, service);
  }
  if (subject.kind === "refused") return refuse(subject.code, subject.message);
  // Without its id: the client may have said no more than a name that stands for it.
  const where = subject.keyspace === "default" ? "" : ` of keyspace ${subject.keyspace}`;
  return refuse("TENANT_UNKNOWN", `No placement exists for this tenant${where}.`);
}

/** A request that may mean a tenant of another cell is not carried to this one: no guesses. */
const isOwnedElsewhere = (table: TableState, taker: CellId, subject: Subject): boolean =>
  subject.kind === "refused" &&
  subject.named.some(({ keyspace, tenant }) => {
    const route = table.lookup(keyspace, tenant);
    return route !== undefined && route.cell !== taker;
  });

function toCell(
  view: RoutingView,
  cell: CellId,
  route: FoundRoute | undefined,
  service: string,
): Placed | Refused {
  const known = view.table.cell(cell);
  const shown = known?.host ?? cell;
  if (known?.halted === true) {
    return refuse("PLACEMENT_UNAVAILABLE", haltedText(view.table, cell), route);
  }
  const offered = known?.services[service];
  if (offered === undefined) {
    const message = `Cell ${shown} offers no service ${service}.`;
    return refuse("PLACEMENT_UNAVAILABLE", message, route);
  }
  const { endpoints } = offered;
  return { kind: "proxy", cell, shown, route, wire: wireOf(view, known), service, endpoints };
}

const refuse = (
  code: ErrorCode,
  message: string,
  route: FoundRoute | undefined = undefined,
): Refused => ({ kind: "refuse", code, message, route });

export type ChosenRoute = {
  readonly service: string;
  readonly class: RouteClass;
  /** Of class `public`. */
  readonly cell: CellId | undefined;
  /** From the request's head to the answer's. */
  readonly deadlineMs: number | undefined;
  readonly priority: Priority;
  /** Says what a request is answered with when no cell can; the route itself, so that it can be told from others. */
  readonly fallback: Fallback | undefined;
};
const defaultRoute: ChosenRoute = {
  service: defaultService,
  class: "tenant",
  cell: undefined,
  deadlineMs: undefined,
  priority: "normal",
  fallback: undefined,
};

/** The first route whose host and path prefix both fit, else the tenant's `default` service. */
export function chooseRoute(
  routes: readonly ServiceRoute[],
  hostname: string,
  path: string,
): ChosenRoute {
  const route = matchRoute(routes, hostname, path);
  if (route === undefined) return defaultRoute;
  const { service, class: routeClass = "tenant", cell, deadlineMs, fallback } = route;
  const { priority = "normal" } = route;
  return { service, class: routeClass, cell, deadlineMs, priority, fallback };
}

/** Of a route that carries requests of one tenant. */
export const isOfTenant = ({ class: routeClass = "tenant" }: Pick<ServiceRoute, "class">) =>
  routeClass === "tenant" || routeClass === "read";
