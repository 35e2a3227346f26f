/**
 * Pure: the headers of a request on its way to a cell, and of an answer on its way to the client.
 *
 * What must always be true: nothing a client says under our names reaches a cell (also not in a
 * spelling that some server reads as ours), and the tenant a cell reads is the one the
 * router decided by. Headers of the connection are gone already; see runtime/http/hop-headers.ts.
 */
import {
  cellEpochHeader,
  cellHeader,
  internalPrefix,
  headers as names,
  positionHeader,
  requestIdHeader,
  tenantHeader,
  traceparentHeader,
} from "../../contract/headers.ts";
import type { CellId, KeyspaceName, TenantId } from "../../contract/ids.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import {
  byHeaderName,
  filterHeaders,
  foldHeaderName,
  headerValues,
  listElements,
  type RawHeaders,
} from "../../contract/raw-headers.ts";
import { defaultService, type RouteClass } from "../../contract/service-route.ts";

/** Names that only a router may speak: `x-cell`, `x-cell-epoch`, `x-cellfleet-…`, `x-router-…`. */
const reservedPrefixes = ["x-cell", "x-router-"];
/** Of the hop before: removed from untrusted peers, and set anew. */
const forwardedNames: ReadonlySet<string> = new Set([
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-proto",
  "x-forwarded-server",
  "x-real-ip",
]);
/** Always set by us. */
const setNames: ReadonlySet<string> = new Set([
  tenantHeader,
  requestIdHeader,
  traceparentHeader,
  "expect",
  "via",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
]);

export type Trace = {
  readonly requestId: string;
  readonly traceId: string;
  readonly spanId: string;
  /** The client's span; undefined where its trace does not go on. */
  readonly parentId: string | undefined;
  readonly flags: string;
  /** The client's own trace goes on, so its `tracestate` does too. */
  readonly continued: boolean;
};

const unparented = { parentId: undefined, flags: "00", continued: false } as const;

/**
 * A valid `traceparent` is continued with a span of ours, anything else is replaced (W3C Trace Context
 * section 3.2.2). The request id of a trusted peer is kept.
 */
export function traceOf(
  raw: RawHeaders,
  trusted: boolean,
  fresh: { readonly requestId: string; readonly traceId: string; readonly spanId: string },
): Trace {
  const [theirs] = headerValues(raw, requestIdHeader);
  const keep = trusted && theirs !== undefined && /^[\w.:+/=-]{1,128}$/.test(theirs);
  const requestId = keep ? theirs : fresh.requestId;
  const parents = headerValues(raw, traceparentHeader);
  if (parents.length === 0) {
    return { requestId, ...unparented, traceId: fresh.traceId, spanId: fresh.spanId };
  }
  const match = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(parents[0] ?? "");
  const [, traceId = "", parentId = "", flags = "00"] = match ?? [];
  const valid = parents.length === 1 && /[1-9a-f]/.test(traceId) && /[1-9a-f]/.test(parentId);
  return valid
    ? { requestId, traceId, spanId: fresh.spanId, parentId, flags, continued: true }
    : { requestId, ...unparented, traceId: fresh.traceId, spanId: fresh.spanId };
}

export type RewriteRequest = {
  /** Without headers of the connection. */
  readonly headers: RawHeaders;
  readonly method: string;
  readonly host: string;
  /** HTTP version of the request, for Via. */
  readonly version: string;
  readonly peer: string;
  /** The peer is one of the proxies in front of us: what it says about the hops before counts. */
  readonly trusted: boolean;
  /** Is this one of those proxies? What is no address is none. Absent: every hop that is named counts. */
  readonly trustsHop?: (address: string) => boolean;
  readonly scheme: "http" | "https";
  readonly viaName: string;
  /** Undefined: none could be read, or nobody looked for one. */
  readonly tenant: TenantId | undefined;
  /** What the client says in `x-tenant-id` goes on where there is no tenant to say in its place. */
  readonly keepsTenantHeader: boolean;
  /** `x-cell-position` goes on: it asks for answers that are new enough, and no more. */
  readonly keepsPosition: boolean;
  readonly trace: Trace;
  /** The client accepts trailers, and nothing else of TE passes a hop. */
  readonly trailers: boolean;
};

/** Set per attempt: what it goes under, and a nonce that only this attempt knows. */
export type AttemptHeaders = {
  readonly cell: CellId;
  readonly nonce: string;
  readonly service: string;
  readonly routeClass: RouteClass;
  /** Undefined: the request names no tenant that could be read. */
  readonly named: { readonly keyspace: KeyspaceName; readonly tenant: TenantId } | undefined;
  /** Undefined: the table has no placement. */
  readonly route: FoundRoute | undefined;
};

type RequestHeader =
  | "other"
  | "reserved"
  | "position"
  | "tenant"
  | "set"
  | "forwarded"
  | "tracestate"
  | "disguised";

const requestHeader = byHeaderName((name): RequestHeader => {
  const plain = foldHeaderName(name);
  if (reservedPrefixes.some((prefix) => plain.startsWith(prefix))) {
    return name === positionHeader ? "position" : "reserved";
  }
  if (name === tenantHeader) return "tenant";
  // A dashless spelling of a name of ours is a way around it, never a use of it.
  if (setNames.has(plain)) return "set";
  if (forwardedNames.has(plain)) return plain === name ? "forwarded" : "disguised";
  if (plain === "tracestate") return plain === name ? "tracestate" : "disguised";
  return "other";
});

export function rewriteRequest(request: RewriteRequest): string[] {
  const { headers: raw, trusted, trace } = request;
  const keeps: Readonly<Record<RequestHeader, boolean>> = {
    other: true,
    reserved: false,
    position: request.keepsPosition,
    tenant: request.tenant === undefined && request.keepsTenantHeader,
    set: false,
    forwarded: trusted,
    tracestate: trace.continued,
    disguised: false,
  };
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    if (keeps[requestHeader(name)]) kept.push(name, raw[at + 1] ?? "");
  }
  const via = `${request.version} ${request.viaName}`;
  const vias = headerValues(raw, "via");
  if (request.tenant !== undefined) kept.push(tenantHeader, request.tenant);
  kept.push(requestIdHeader, trace.requestId);
  kept.push(traceparentHeader, `00-${trace.traceId}-${trace.spanId}-${trace.flags}`);
  kept.push("x-forwarded-for", trusted ? chain(raw, request) : request.peer);
  kept.push("x-forwarded-proto", before(raw, "x-forwarded-proto", trusted) ?? request.scheme);
  kept.push("x-forwarded-host", before(raw, "x-forwarded-host", trusted) ?? request.host);
  kept.push("via", vias.length === 0 ? via : [...vias, via].join(", "));
  if (request.trailers) kept.push("te", "trailers");
  return request.method === "OPTIONS" ? countHop(kept) : kept;
}

/**
 * The hops that somebody we trust has seen: from the right, up to and with the first that is not trusted.
 * What stands left of it is that one's own word, and anybody can say anything.
 */
function chain(raw: RawHeaders, { peer, trustsHop }: RewriteRequest): string {
  const hops = headerValues(raw, "x-forwarded-for")
    .flatMap((value) => value.split(","))
    .map((hop) => hop.trim())
    .filter((hop) => hop !== "");
  const known = [peer];
  for (const hop of hops.reverse()) {
    known.unshift(hop);
    if (trustsHop !== undefined && !trustsHop(hop)) break;
  }
  return known.join(", ");
}

/** What the hop before said, if it is believed. */
const before = (raw: RawHeaders, name: string, trusted: boolean): string | undefined =>
  trusted ? headerValues(raw, name)[0] : undefined;

/** Max-Forwards counts down; at 0 the request was answered here (RFC 9110 section 7.6.2). */
function countHop(headers: readonly string[]): string[] {
  const hops = headerValues(headers, "max-forwards");
  const left = Number(hops[0]);
  if (hops.length !== 1 || !Number.isSafeInteger(left) || left < 1) return [...headers];
  return [
    ...filterHeaders(headers, (name) => name !== "max-forwards"),
    "max-forwards",
    `${left - 1}`,
  ];
}

/** The headers by which the gate of a cell knows an attempt. */
export function gateHeaders(attempt: AttemptHeaders): string[] {
  const { cell, nonce, service, routeClass, named, route } = attempt;
  const own: string[] = [names.cell, cell, names.nonce, nonce];
  if (named !== undefined) own.push(...tenantHeaders(named));
  if (route !== undefined) own.push(names.key, route.key, names.epoch, String(route.epoch));
  if (service !== defaultService) own.push(names.service, service);
  if (routeClass !== "tenant" && routeClass !== "global") own.push(names.routeClass, routeClass);
  return own;
}

/** What an application may believe of a request's tenant. */
export const tenantHeaders = ({
  tenant,
  keyspace,
}: {
  readonly tenant: TenantId;
  readonly keyspace: KeyspaceName;
}): string[] => [names.tenant, tenant, names.keyspace, keyspace];

/** How often the request has passed a router of this name. */
export function passesOf(raw: RawHeaders, viaName: string): number {
  const vias = headerValues(raw, "via");
  if (vias.length === 0) return 0;
  const ours = viaName.toLowerCase();
  return listElements(vias).filter((element) => element.split(/\s+/)[1] === ours).length;
}

export type RewriteResponse = {
  /** Without headers of the connection. */
  readonly headers: RawHeaders;
  readonly requestId: string;
  /** Undefined: the answer does not tell who gave it. */
  readonly from: { readonly cell: CellId; readonly epoch: number | undefined } | undefined;
  /** The cell speaks the epoch protocol, so its gate's error headers are the house's and stay. */
  readonly gated: boolean;
};

const answerHeader = byHeaderName((name): "other" | "ours" | "gate" => {
  if (name === names.error || name === names.answeredBy) return "gate";
  const ours = name.startsWith(internalPrefix) || name === cellHeader || name === cellEpochHeader;
  return ours ? "ours" : "other";
});

export function rewriteResponse({
  headers: raw,
  requestId,
  from,
  gated,
}: RewriteResponse): string[] {
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const kind = answerHeader(name);
    if (kind === "other" || (gated && kind === "gate")) kept.push(name, raw[at + 1] ?? "");
  }
  if (headerValues(raw, requestIdHeader).length === 0) kept.push(requestIdHeader, requestId);
  if (from !== undefined) kept.push(cellHeader, from.cell);
  if (from?.epoch !== undefined) kept.push(cellEpochHeader, String(from.epoch));
  return kept;
}
