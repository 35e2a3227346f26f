/** What an attempt says to a cell: our own headers, by the stage of the cell and the table of this moment. */
import { headers as names } from "../../contract/headers.ts";
import type { RouteClass } from "../../contract/service-route.ts";
import type { Placed, RoutingView, Subject } from "../place/decide.ts";
import { flagsOf } from "../place/flags.ts";
import { gateHeaders, tenantHeaders } from "../receive/rewrite-headers.ts";
import type { SignRequest } from "../trust/trust.ts";

export type WireContext = {
  readonly view: () => RoutingView | undefined;
  readonly sign: SignRequest;
};

/** What a cell is told of whom a request is for. */
export type Addressed = {
  readonly placed: Placed;
  readonly subject: Subject;
  readonly routeClass: RouteClass;
};

export function wireHeaders(
  { placed, subject, routeClass }: Addressed,
  nonce: string,
  context: WireContext,
): string[] {
  const table = context.view()?.table;
  const { cell, wire, service, route } = placed;
  const named = subject.kind === "tenant" ? subject : undefined;
  const flags = flagsOf(table?.lists.policy, cell, named);
  const told = flags === "" ? [] : [names.flags, flags];
  if (wire === "plain" || cell === undefined) return told;
  if (wire === "pass-through") {
    return named === undefined ? told : [...tenantHeaders(named), ...told];
  }
  const own = gateHeaders({ cell, nonce, service, routeClass, named, route });
  const { fleet = "" } = table ?? {};
  const asked = { fleet, cell, tenant: named, placement: route, routeClass, service };
  const signature = context.sign(asked);
  if (signature !== undefined) own.push(names.signature, signature);
  return [...own, ...told];
}
