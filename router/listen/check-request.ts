/**
 * Pure: may this request head be carried at all, and what are its host and path?
 *
 * Node's parser refuses broken framing; here stands what it lets through and a router must not: two
 * Host lines, hosts that are none, transfer codings we cannot undo, versions we do not speak, targets
 * in other forms (RFC 9110 section 7, RFC 9112 sections 3 and 6). Routing looks at the same bytes that are
 * forwarded; nothing is normalised.
 */
import { METHODS } from "node:http";
import { isIPv6 } from "node:net";
import type { ErrorCode } from "../../contract/errors.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";

export type RequestHead = {
  readonly method: string;
  /** The request target, as it was sent. */
  readonly target: string;
  /** `1.1`, `1.0`; `2` for a stream of HTTP/2, never `2.0`, which is a request line that lies. */
  readonly version: string;
  readonly headers: RawHeaders;
};

export type CheckedRequest =
  | {
      readonly kind: "ok";
      /** Lower case, without port and without a dot at its end. */
      readonly hostname: string;
      /** As it was sent, with port. */
      readonly host: string;
      /** Origin form: path and query. */
      readonly path: string;
    }
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly message: string };

export type HeadLimits = { readonly fieldsMax: number; readonly targetBytesMax: number };

const refused = (code: ErrorCode, message: string): CheckedRequest & { kind: "refused" } => ({
  kind: "refused",
  code,
  message,
});
const invalid = (message: string) => refused("REQUEST_INVALID", message);

export function checkRequest(head: RequestHead, limits: HeadLimits): CheckedRequest {
  const problem =
    versionProblem(head) ??
    sizeProblem(head, limits) ??
    methodProblem(head) ??
    expectationProblem(head);
  if (problem !== undefined) return problem;
  const host = hostOf(head.headers);
  if (typeof host !== "string") return host;
  const target = originForm(head.target, host);
  if (typeof target !== "string") return target;
  const hostname = host.replace(/:\d*$/, "").replace(/\.$/, "").toLowerCase();
  return { kind: "ok", hostname, host, path: target };
}

function versionProblem({ version, headers }: RequestHead): CheckedRequest | undefined {
  if (version !== "1.1" && version !== "1.0" && version !== "2")
    return invalid(`HTTP/${version} is not spoken here`);
  const codings = headerValues(headers, "transfer-encoding");
  if (codings.length === 0) return undefined;
  if (version === "1.0") return invalid("HTTP/1.0 has no Transfer-Encoding");
  const [coding] = codings;
  if (codings.length > 1 || coding?.trim().toLowerCase() !== "chunked") {
    return invalid("the only Transfer-Encoding that is understood is chunked");
  }
  return headerValues(headers, "content-length").length > 0
    ? invalid("Content-Length beside Transfer-Encoding")
    : undefined;
}

function sizeProblem({ headers, target }: RequestHead, limits: HeadLimits) {
  if (headers.length / 2 > limits.fieldsMax) {
    return refused("HEADERS_TOO_LARGE", `more than ${limits.fieldsMax} header fields`);
  }
  if (target.length > limits.targetBytesMax) {
    return refused("URL_TOO_LONG", `the target is longer than ${limits.targetBytesMax} bytes`);
  }
  return undefined;
}

const knownMethods: ReadonlySet<string> = new Set(METHODS);

function methodProblem({ method, headers }: RequestHead): CheckedRequest | undefined {
  // Node's parser takes SOURCE from the protocol ICE, which nobody here speaks.
  if (method === "CONNECT" || method === "TRACE" || method === "SOURCE") {
    return refused("METHOD_NOT_ALLOWED", `${method} is not carried`);
  }
  // What HTTP/1's parser knows; HTTP/2 takes any text for a method.
  if (!knownMethods.has(method)) return invalid("the method is not known");
  if (
    method === "OPTIONS" &&
    headerValues(headers, "max-forwards").some((hops) => /^0+$/.test(hops))
  ) {
    return refused("METHOD_NOT_ALLOWED", "Max-Forwards is used up");
  }
  return undefined;
}

/** Node finds `100-continue` anywhere in the header; an expectation beside it would go unheard. */
function expectationProblem({ version, headers }: RequestHead): CheckedRequest | undefined {
  // HTTP/1.0 has no such thing and is served as if it were not there (RFC 9110 section 10.1.1).
  if (version === "1.0") return undefined;
  const expectations = headerValues(headers, "expect");
  const good =
    expectations.length === 0 ||
    (expectations.length === 1 && expectations[0]?.toLowerCase() === "100-continue");
  return good
    ? undefined
    : refused("EXPECTATION_FAILED", "only Expect: 100-continue is understood");
}

/** A registered name, an IPv4 address or an IPv6 literal, and a port (RFC 3986 section 3.2.2). */
const hostPattern = /^(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::\d{0,5})?$/;
const literalPattern = /^\[([0-9A-Fa-f:.]+)\](?::\d{0,5})?$/;
const portMax = 65_535;

function hostOf(headers: RawHeaders): string | CheckedRequest {
  const hosts = headerValues(headers, "host");
  const [host] = hosts;
  if (host === undefined) return invalid("the Host header is missing");
  if (hosts.length > 1) return invalid("there is more than one Host header");
  return isHost(host) ? host : invalid("the Host header is not a host");
}

function isHost(host: string): boolean {
  if (host.length > 260) return false;
  if (Number(host.slice(host.lastIndexOf(":") + 1)) > portMax && /:\d+$/.test(host)) return false;
  if (hostPattern.test(host)) return true;
  const literal = literalPattern.exec(host);
  return literal !== null && isIPv6(literal[1] ?? "");
}

function originForm(target: string, host: string): string | CheckedRequest {
  // Printable ASCII without a fragment: what RFC 3986 allows, and some more that does no harm.
  if (!/^[\x21-\x22\x24-\x7e]+$/.test(target)) {
    return invalid("the request target has characters that are not allowed");
  }
  if (target.startsWith("/")) return target;
  const absolute = /^https?:\/\/([^/?]+)(\/[^?]*)?(\?.*)?$/i.exec(target);
  if (absolute === null) return invalid("the request target is not a path");
  const [, authority, path, query] = absolute;
  // The target would win over Host (RFC 9112 section 3.2.2); refusing a conflict is the safer policy.
  if (authority?.toLowerCase() !== host.toLowerCase()) {
    return invalid("the request target and the Host header name different hosts");
  }
  return `${path ?? "/"}${query ?? ""}`;
}
