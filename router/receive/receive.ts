/**
 * What is known of a request before anything is decided: its head is checked, its route chosen, its
 * tenant read, its headers rewritten. What HTTP or a limit forbids is refused here, whatever the
 * stage of any cell; a tenant that cannot be read is not, because a cell may take such requests.
 */
import type { IncomingMessage } from "node:http";
import { CellError } from "../../contract/errors.ts";
import { headerValues, listElements, type RawHeaders } from "../../contract/raw-headers.ts";
import { stripRequestHeaders } from "../../runtime/http/hop-headers.ts";
import { type CheckedRequest, checkRequest, type HeadLimits } from "../listen/check-request.ts";
import { securedBy } from "../listen/secured.ts";
import type { RequestRecord } from "../observe/record.ts";
import {
  type ChosenRoute,
  chooseRoute,
  isOfTenant,
  type RoutingView,
  type Subject,
} from "../place/decide.ts";
import { type FindToken, type Identified, type IsPlaced, identify } from "./identify.ts";
import type { TokenReader } from "./jwt-reader.ts";
import { passesOf, rewriteRequest } from "./rewrite-headers.ts";

export type Receiving = {
  readonly view: () => RoutingView | undefined;
  readonly headLimits: HeadLimits;
  readonly viaName: string;
  /** So often a request may have passed this router before. */
  readonly passesMax: number;
  readonly isTrusted: (peer: string) => boolean;
  /** Does the certificate that a handshake with this name got speak for the host? */
  readonly coversHost: (servername: string | undefined, hostname: string) => boolean;
  readonly tokens: TokenReader;
};

export type Arrival = {
  readonly route: ChosenRoute;
  /** Of routes that do not ask for a tenant: refused as TENANT_MISSING. */
  readonly subject: Subject;
  /** As it is passed on. */
  readonly path: string;
  /** For the cell, without those of an attempt. */
  readonly headers: RawHeaders;
};

type Checked = CheckedRequest & { readonly kind: "ok" };

/** Throws, or rejects with, what is refused. A promise only when a token has to be verified. */
export function receive(
  context: Receiving,
  req: IncomingMessage,
  record: RequestRecord,
): Arrival | Promise<Arrival> {
  const checked = checkHead(context, req);
  const secured = securedBy(req);
  if (secured !== undefined && !context.coversHost(secured.servername, checked.hostname)) {
    throw new CellError(
      "HOST_MISDIRECTED",
      "The certificate of this connection does not speak for the host that is asked for.",
      { nextSteps: ["Open a connection of its own for this host."] },
    );
  }
  const stripped = stripRequestHeaders(req.rawHeaders);
  if (stripped.kind === "refused")
    throw new CellError("REQUEST_INVALID", sentence(stripped.reason));
  if (passesOf(req.rawHeaders, context.viaName) > context.passesMax) {
    throw new CellError("LOOP_DETECTED", "The request has passed this router before.");
  }
  const view = context.view();
  if (view === undefined) {
    throw new CellError("TABLE_NOT_LOADED", "The router has not received a routing table yet.");
  }
  // The lists of this moment: the table may move on while a token is verified.
  const { lists } = view.table;
  const route = chooseRoute(lists.serviceRoutes, checked.hostname, checked.path);
  if (!isOfTenant(route) && climbs(checked.path)) {
    throw new CellError(
      "REQUEST_INVALID",
      "A path with dot segments has no place on a route that asks for no tenant.",
    );
  }
  const found = isOfTenant(route)
    ? context.tokens.read(lists.tenantSources, req.rawHeaders)
    : undefined;
  const scheme = secured === undefined ? "http" : "https";
  const received = { view, lists, route, checked, scheme, stripped: stripped.headers } as const;
  return found instanceof Promise
    ? found.then((findToken) => arrive(context, req, record, { ...received, findToken }))
    : arrive(context, req, record, { ...received, findToken: found });
}

type Received = {
  readonly view: RoutingView;
  readonly lists: RoutingView["table"]["lists"];
  readonly route: ChosenRoute;
  readonly checked: Checked;
  readonly scheme: "http" | "https";
  readonly stripped: RawHeaders;
  /** Undefined: the route speaks of no tenant. */
  readonly findToken: FindToken | undefined;
};

function arrive(
  context: Receiving,
  req: IncomingMessage,
  record: RequestRecord,
  received: Received,
): Arrival {
  const { checked } = received;
  const { route, identified } = addressee(received, req.rawHeaders);
  if (identified.kind === "tenant") record.identity = identified;
  record.service = route.service;
  record.routeClass = route.class;
  const trusted = context.isTrusted(record.peer);
  const headers = rewriteRequest({
    headers: received.stripped,
    method: req.method ?? "",
    host: checked.host,
    version: req.httpVersion,
    peer: record.peer,
    trusted,
    trustsHop: context.isTrusted,
    scheme: received.scheme,
    viaName: context.viaName,
    tenant: identified.kind === "tenant" ? identified.tenant : undefined,
    // An application that reads it today goes on to read it where the router could not.
    keepsTenantHeader: isOfTenant(route),
    keepsPosition: route.class === "read",
    trace: record.trace,
    trailers: wantsTrailers(req),
  });
  const path = identified.kind === "tenant" ? identified.path : checked.path;
  return { route, subject: identified, path, headers };
}

function checkHead({ headLimits }: Receiving, req: IncomingMessage): Checked {
  const checked = checkRequest(
    {
      method: req.method ?? "",
      target: req.url ?? "",
      version: req.httpVersion,
      headers: req.rawHeaders,
    },
    headLimits,
  );
  if (checked.kind === "refused") throw new CellError(checked.code, sentence(checked.message));
  return checked;
}

const noTenant: Identified = {
  kind: "refused",
  code: "TENANT_MISSING",
  message: "Routes of this class speak of no tenant.",
  named: [],
};

/** The route by the path as it was sent; a tenant's prefix may lead to another of the tenant's. */
function addressee(
  { view: { table }, lists, route, checked, findToken }: Received,
  headers: RawHeaders,
): { readonly route: ChosenRoute; readonly identified: Identified } {
  const { tenantSources, serviceRoutes } = lists;
  const { hostname, path } = checked;
  if (findToken === undefined) return { route, identified: noTenant };
  const resolve = (namespace: string, name: string) => table.resolve(namespace, name);
  const isPlaced: IsPlaced = ({ keyspace, tenant }) => table.lookup(keyspace, tenant) !== undefined;
  const request = { hostname, path, headers };
  const identified = identify(request, tenantSources, resolve, findToken, isPlaced);
  if (identified.kind === "refused" || identified.path === path) return { route, identified };
  // A request that names its tenant in the path stays with this tenant.
  const ofTenant = serviceRoutes.filter(isOfTenant);
  return { route: chooseRoute(ofTenant, hostname, identified.path), identified };
}

/**
 * A segment of one or two dots, in any spelling: what an application makes of it may lie outside of the
 * prefix by which the route was chosen.
 */
const dotSegment = /(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/\\;]|%2f|%5c|%3b)/i;
const climbs = (path: string): boolean => dotSegment.test(path.split("?", 1)[0] ?? "");

export const wantsTrailers = (req: IncomingMessage): boolean =>
  listElements(headerValues(req.rawHeaders, "te")).includes("trailers");

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
