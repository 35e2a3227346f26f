/**
 * Pure: which tenant, in which keyspace, does a request name?
 *
 * The sources are asked in the order of the table. The first that is present names the tenant; every
 * other that is present must name the same one, and none may name it twice: a request that two
 * parties can read differently is refused, not guessed.
 *
 * A source with `alias` holds a name, which the caller looks up. A name that nobody has is no name: the
 * source counts as absent. One that stands for several tenants is settled by a source that names one
 * of them. No message says which tenants a name stands for.
 *
 * A token that is there and was not verified is refused, whatever else names a tenant: nobody gains by
 * a bad one, and a good one that cannot be judged is not passed over. Tokens are verified by whoever
 * calls; what an unverified one claims counts only as one more tenant that may have been meant.
 */
import type { AliasTarget } from "../../contract/alias-index.ts";
import type { ErrorCode } from "../../contract/errors.ts";
import {
  defaultKeyspace,
  type KeyspaceName,
  parseTenantId,
  type TenantId,
  tenantIdRule,
} from "../../contract/ids.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import {
  type TenantSource,
  type TokenSource,
  tokenSourceName,
} from "../../contract/tenant-source.ts";

export type Addressed = {
  /** Lower case, without port. */
  readonly hostname: string;
  /** Path and query, as sent. */
  readonly path: string;
  readonly headers: RawHeaders;
};

export type Identity = {
  readonly kind: "tenant";
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
  /** `header x-tenant-id`, `host {tenant}.example.com`: for people. */
  readonly source: string;
  /** The path that is passed on: without the tenant's prefix where the source says so. */
  readonly path: string;
};
export type Unidentified = {
  readonly kind: "refused";
  readonly code: ErrorCode;
  readonly message: string;
  /** Tenants that it names, or names stand for, as far as they can be read. */
  readonly named: readonly AliasTarget[];
};
export type Identified = Identity | Unidentified;

/** The tenants that a name stands for; from the routing table in memory. */
export type ResolveName = (namespace: string, name: string) => readonly AliasTarget[];

/** Does the table place this tenant? */
export type IsPlaced = (named: Pick<Identity, "keyspace" | "tenant">) => boolean;
const everybody: IsPlaced = () => true;

/** What a source says that reads a token. */
export type TokenFinding =
  | { readonly kind: "absent" }
  /** The claim of a verified token. */
  | { readonly kind: "claim"; readonly value: string }
  | { readonly kind: "several" }
  | {
      readonly kind: "refused";
      readonly code: ErrorCode;
      readonly message: string;
      /** What it claims, believed by nobody. */
      readonly claimed: string | undefined;
    };
export type FindToken = (source: TokenSource) => TokenFinding;
/** Where there are no requests, or no sources with tokens. */
export const noTokens: FindToken = () => ({ kind: "absent" });

/** What one source says: every value found, and the path without it. */
type Finding = {
  readonly name: string;
  readonly values: readonly string[];
  readonly path?: string;
};

export function identify(
  request: Addressed,
  sources: readonly TenantSource[],
  resolve: ResolveName,
  findToken: FindToken = noTokens,
  isPlaced: IsPlaced = everybody,
): Identified {
  const evidence = { request, sources, resolve, findToken, isPlaced };
  return refuseToken(evidence) ?? findIdentity(evidence);
}

function findIdentity({ request, sources, resolve, findToken, isPlaced }: Evidence): Identified {
  let identity: Identity | undefined;
  let path = request.path;
  const names: UnsettledName[] = [];
  for (const source of sources) {
    const finding = look(source, request, findToken);
    if (finding.values.length === 0) continue;
    const next = read(finding, source, request.path, resolve);
    if (next.kind === "refused") return next;
    if (next.kind !== "unknown") path = finding.path ?? path;
    if (next.kind !== "tenant") {
      names.push(next);
      continue;
    }
    const settled = agreed(identity ?? next, next, isPlaced);
    if (settled.kind === "refused") return settled;
    identity = settled;
  }
  if (identity === undefined) return refuseUnsettled(names, sources);
  return compareNames(identity, names) ?? { ...identity, path };
}

/**
 * One of two, when they name the same tenant; or when one of them is only the name of a host, such as
 * `api` in `api.example.com` beside `{tenant}.example.com`, and the other names a tenant that is placed.
 */
function agreed(one: Identity, other: Identity, isPlaced: IsPlaced): Identified {
  if (one.tenant === other.tenant && one.keyspace === other.keyspace) return one;
  if (isMereHost(one, isPlaced) && isPlaced(other)) return other;
  if (isMereHost(other, isPlaced) && isPlaced(one)) return one;
  return conflict(`${one.source} and ${other.source} name different tenants`, [one, other]);
}

const isMereHost = (identity: Identity, isPlaced: IsPlaced): boolean =>
  identity.source.startsWith(hostSource) && !isPlaced(identity);

/** Names that stand for others, if one does. */
function compareNames(
  identity: Identity,
  names: readonly UnsettledName[],
): Unidentified | undefined {
  const { tenant, keyspace, source } = identity;
  const other = names.find(
    ({ targets }) =>
      targets.length > 0 &&
      !targets.some((one) => one.tenant === tenant && one.keyspace === keyspace),
  );
  if (other === undefined) return undefined;
  const what = `${source} and ${other.source} name different tenants`;
  return conflict(what, [identity, ...other.targets]);
}

/** All that identification goes by. */
type Evidence = {
  readonly request: Addressed;
  readonly sources: readonly TenantSource[];
  readonly resolve: ResolveName;
  readonly findToken: FindToken;
  readonly isPlaced: IsPlaced;
};

/** Before anything else: the order of sources decides nothing about a bad token. */
function refuseToken(evidence: Evidence): Unidentified | undefined {
  const { sources, findToken } = evidence;
  if (findToken === noTokens) return undefined;
  for (const source of sources) {
    const token = "jwt" in source ? findToken(source) : undefined;
    if (token?.kind === "several") {
      const what = `the ${sourceName(source)} is given more than once`;
      return conflict(what, everyMeant(evidence));
    }
    if (token?.kind !== "refused") continue;
    const { code, message } = token;
    return { kind: "refused", code, message, named: everyMeant(evidence) };
  }
  return undefined;
}

/** A name that stands for no tenant, or for several. */
type UnsettledName = {
  readonly kind: "unknown" | "several";
  readonly source: string;
  readonly targets: readonly AliasTarget[];
};

function read(
  finding: Finding,
  source: TenantSource,
  path: string,
  resolve: ResolveName,
): Identified | UnsettledName {
  const [value = "", second] = finding.values;
  if (second !== undefined) {
    const named = finding.values.flatMap((one) => meantBy(one, source, resolve));
    return conflict(`${finding.name} names a tenant more than once`, named);
  }
  if (source.alias !== undefined) {
    return readName(finding.name, resolve(source.alias, value), source.keyspace, path);
  }
  const tenant = parseTenantId(value);
  if (tenant !== undefined) {
    const keyspace = source.keyspace ?? defaultKeyspace;
    return { kind: "tenant", keyspace, tenant, source: finding.name, path };
  }
  const message = `The tenant in ${finding.name} must be ${tenantIdRule}.`;
  return { kind: "refused", code: "TENANT_INVALID", message, named: [] };
}

function readName(
  source: string,
  all: readonly AliasTarget[],
  only: KeyspaceName | undefined,
  path: string,
): Identity | UnsettledName {
  const targets = only === undefined ? all : all.filter(({ keyspace }) => keyspace === only);
  const [first, second] = targets;
  if (first === undefined) return { kind: "unknown", source, targets };
  if (second !== undefined) return { kind: "several", source, targets };
  return { kind: "tenant", keyspace: first.keyspace, tenant: first.tenant, source, path };
}

function refuseUnsettled(
  names: readonly UnsettledName[],
  sources: readonly TenantSource[],
): Unidentified {
  const several = names.find(({ kind }) => kind === "several");
  if (several !== undefined) {
    const message = `The name in ${several.source} stands for several tenants; name one of them.`;
    const named = names.flatMap(({ targets }) => targets);
    return { kind: "refused", code: "TENANT_AMBIGUOUS", message, named };
  }
  const [unknown] = names;
  if (unknown !== undefined) {
    const message = `The name in ${unknown.source} belongs to no tenant.`;
    return { kind: "refused", code: "TENANT_UNKNOWN", message, named: [] };
  }
  const places = sources.map(sourceName).join(", ");
  const message = `The request names no tenant; this router looks in: ${places}.`;
  return { kind: "refused", code: "TENANT_MISSING", message, named: [] };
}

const conflict = (what: string, named: readonly AliasTarget[]): Unidentified => ({
  kind: "refused",
  code: "TENANT_CONFLICT",
  message: `${what}.`,
  named,
});

/** The tenants of one of several values. */
function meantBy(
  value: string,
  source: TenantSource,
  resolve: ResolveName,
): readonly AliasTarget[] {
  if (source.alias !== undefined) return resolve(source.alias, value);
  // Headers of a name that are there twice may also come joined by a comma.
  return value.split(",").flatMap((part) => {
    const tenant = parseTenantId(part.trim());
    return tenant === undefined ? [] : [{ keyspace: source.keyspace ?? defaultKeyspace, tenant }];
  });
}

/** All that any source names, for whoever must not carry a request to another's cell. */
function everyMeant({ request, sources, resolve, findToken }: Evidence): readonly AliasTarget[] {
  return sources.flatMap((source) => {
    const token = "jwt" in source ? findToken(source) : undefined;
    const claimed = token?.kind === "refused" ? token.claimed : undefined;
    const { values } = look(source, request, findToken);
    const all = claimed === undefined ? values : [claimed];
    return all.flatMap((value) => meantBy(value, source, resolve));
  });
}

function look(source: TenantSource, request: Addressed, findToken: FindToken): Finding {
  const name = sourceName(source);
  if ("jwt" in source) {
    const token = findToken(source);
    return { name, values: token.kind === "claim" ? [token.value] : [] };
  }
  if ("header" in source) {
    return { name, values: headerValues(request.headers, source.header.toLowerCase()) };
  }
  if ("host" in source) return { name, values: hostValues(source.host, request.hostname) };
  if ("cookie" in source) return { name, values: cookieValues(source.cookie, request.headers) };
  if ("query" in source) return { name, values: queryValues(source.query, request.path) };
  return { name, ...pathFinding(source.path, source.strip === true, request.path) };
}

export function sourceName(source: TenantSource): string {
  if ("header" in source) return `header ${source.header}`;
  if ("host" in source) return `${hostSource}${source.host}`;
  if ("cookie" in source) return `cookie ${source.cookie}`;
  if ("query" in source) return `query ${source.query}`;
  if ("jwt" in source) return tokenSourceName(source.jwt);
  return `path ${source.path}`;
}

const hostSource = "host ";
const placeholder = "{tenant}";

/** Text before and after the placeholder. */
function around(pattern: string): readonly [string, string] {
  const at = pattern.indexOf(placeholder);
  return [pattern.slice(0, at), pattern.slice(at + placeholder.length)];
}

function hostValues(pattern: string, hostname: string): string[] {
  const [before, after] = around(pattern.toLowerCase());
  const room = hostname.length - before.length - after.length;
  const matches = room > 0 && hostname.startsWith(before) && hostname.endsWith(after);
  return matches ? [hostname.slice(before.length, before.length + room)] : [];
}

function pathFinding(pattern: string, strip: boolean, path: string): Omit<Finding, "name"> {
  const [before, after] = around(pattern);
  const end = path.indexOf("?");
  const plain = end < 0 ? path : path.slice(0, end);
  if (!plain.startsWith(before)) return { values: [] };
  const rest = plain.slice(before.length);
  const segment = /^[^/]+/.exec(rest)?.[0];
  if (segment === undefined) return { values: [] };
  const beyond = rest.slice(segment.length);
  const matches = beyond.startsWith(after) && (beyond === after || isBoundary(beyond, after));
  if (!matches) return { values: [] };
  const values = [decoded(segment)];
  if (!strip) return { values };
  const left = path.slice(before.length + segment.length + after.length);
  return { values, path: left.startsWith("/") ? left : `/${left}` };
}

/** The pattern ends where a segment ends. */
const isBoundary = (beyond: string, after: string): boolean =>
  after.endsWith("/") || beyond.charAt(after.length) === "/";

export function cookieValues(name: string, headers: RawHeaders): string[] {
  return headerValues(headers, "cookie")
    .flatMap((line) => line.split(";"))
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${name}=`))
    .map((pair) => decoded(pair.slice(name.length + 1)));
}

function queryValues(name: string, path: string): string[] {
  const at = path.indexOf("?");
  if (at < 0) return [];
  return path
    .slice(at + 1)
    .split("&")
    .map((pair) => {
      const equals = pair.indexOf("=");
      return equals < 0 ? [pair, ""] : [pair.slice(0, equals), pair.slice(equals + 1)];
    })
    .filter(([key]) => decoded(key ?? "") === name)
    .map(([, value]) => decoded(value ?? ""));
}

/** Percent-decoded; a broken escape stays as it is, and `%` is in no tenant id, so it is refused as invalid. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
