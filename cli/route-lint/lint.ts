/**
 * Pure: does a request to each endpoint say whose it is? By the rules of routing: the first route that fits
 * gives the class; classes that carry requests of one tenant need one of the tenant sources.
 */
import { matchRoute, type RouteClass, type ServiceRoute } from "../../contract/service-route.ts";
import type { TenantSource } from "../../contract/tenant-source.ts";
import type { ApiEndpoint, Carried } from "./openapi.ts";

export const lintVerdicts = ["named", "no-tenant-needed", "may-be-missing", "missing"] as const;
export type LintVerdict = (typeof lintVerdicts)[number];

export type LintedEndpoint = {
  readonly id: string;
  readonly class: RouteClass;
  readonly service: string;
  readonly verdict: LintVerdict;
  /** The sources by which a request may name its tenant: `header x-tenant-id (optional)`. */
  readonly sources: readonly string[];
  readonly text: string;
};

export type LintRules = {
  readonly tenantSources: readonly TenantSource[];
  readonly serviceRoutes: readonly ServiceRoute[];
};

export const lintEndpoints = (
  endpoints: readonly ApiEndpoint[],
  rules: LintRules,
): LintedEndpoint[] => endpoints.map((endpoint) => lint(endpoint, rules));

/** A source in an endpoint: it is always there, may be there, or never is. */
type Presence = "always" | "sometimes" | "never";

function lint(endpoint: ApiEndpoint, { tenantSources, serviceRoutes }: LintRules): LintedEndpoint {
  const { id, path } = endpoint;
  const route = matchRoute(serviceRoutes, endpoint.host ?? "", filled(path));
  const { class: routeClass = "tenant", service = "default" } = route ?? {};
  const about = { id, class: routeClass, service };
  if (routeClass !== "tenant" && routeClass !== "read") {
    const text = `class ${routeClass}: no tenant is looked for`;
    return { ...about, verdict: "no-tenant-needed", sources: [], text };
  }
  const found = tenantSources
    .map((source) => ({ name: nameOf(source), presence: presenceOf(source, endpoint) }))
    .filter(({ presence }) => presence !== "never");
  const sources = found.map(({ name, presence }) =>
    presence === "always" ? name : `${name} (optional)`,
  );
  if (found.some(({ presence }) => presence === "always")) {
    return { ...about, verdict: "named", sources, text: `named by ${sources.join(", ")}` };
  }
  if (found.length > 0) {
    const text = `only ${sources.join(", ")}: without it the request is refused as TENANT_MISSING`;
    return { ...about, verdict: "may-be-missing", sources, text };
  }
  const text = "no tenant source finds anything: every request is refused as TENANT_MISSING";
  return { ...about, verdict: "missing", sources, text };
}

/** A path as a request would have it: prefixes are compared with real text. */
const filled = (path: string): string => path.replace(/\{[^}]*\}/g, "~");

function nameOf(source: TenantSource): string {
  if ("header" in source) return `header ${source.header}`;
  if ("host" in source) return `host ${source.host}`;
  if ("path" in source) return `path ${source.path}`;
  if ("cookie" in source) return `cookie ${source.cookie}`;
  if ("query" in source) return `query ${source.query}`;
  return `token claim ${source.jwt.claim}`;
}

function presenceOf(source: TenantSource, endpoint: ApiEndpoint): Presence {
  if ("header" in source) {
    return carried(endpoint, (one) => one.in === "header" && sameName(one.name, source.header));
  }
  if ("cookie" in source) {
    return carried(endpoint, (one) => one.in === "cookie" && one.name === source.cookie);
  }
  if ("query" in source) {
    return carried(endpoint, (one) => one.in === "query" && one.name === source.query);
  }
  if ("path" in source) return inPath(source.path, endpoint.path) ? "always" : "never";
  if ("host" in source) return inHost(source.host, endpoint.host);
  const { header = "authorization", cookie } = source.jwt;
  if (cookie !== undefined) {
    return carried(endpoint, (one) => one.in === "cookie" && one.name === cookie);
  }
  return carried(
    endpoint,
    (one) =>
      (one.in === "bearer" && sameName(header, "authorization")) ||
      (one.in === "header" && sameName(one.name, header)),
  );
}

const sameName = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();

function carried({ carries }: ApiEndpoint, fits: (one: Carried) => boolean): Presence {
  const found = carries.filter(fits);
  if (found.length === 0) return "never";
  return found.some(({ required }) => required) ? "always" : "sometimes";
}

const variable = /^\{[^}]*\}$/;

/** Segment by segment; the tenant's must be a variable, or every request would name the same one. */
function inPath(pattern: string, path: string): boolean {
  const wanted = pattern.split("/").filter((part) => part !== "");
  const have = path.split("/").filter((part) => part !== "");
  return wanted.every((part, at) => {
    const there = have[at] ?? "";
    return part.includes("{tenant}") ? variable.test(there) : part === there;
  });
}

/** A document that names no host does not say by which one it is called. */
function inHost(pattern: string, host: string | undefined): Presence {
  if (host === undefined) return "sometimes";
  const [before = "", after = ""] = pattern.toLowerCase().split("{tenant}");
  const fits = host.startsWith(before) && host.endsWith(after);
  const middle = fits ? host.slice(before.length, host.length - after.length) : "";
  return middle.includes("{") ? "always" : "never";
}
