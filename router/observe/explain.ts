/**
 * What would become of a request, in words: `GET /explain` on the admin port, for operators. The same
 * functions decide as for traffic; a request's tenant may also be given by a name that stands for it.
 */
import { CellError } from "../../contract/errors.ts";
import {
  type KeyspaceName,
  parseKeyspaceName,
  parseTenantId,
  type TenantId,
  tenantIdRule,
} from "../../contract/ids.ts";
import {
  chooseRoute,
  decide,
  isOfTenant,
  type RouteDecision,
  type RoutingView,
} from "../place/decide.ts";
import { identify, sourceName } from "../receive/identify.ts";

type Question = {
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
  readonly service: string;
};

/**
 * `?tenant=&keyspace=&service=`, `?alias=NAMESPACE:NAME&service=`, or `?host=&path=` as a request would
 * name it. Throws what a request would be refused with, as far as nobody takes it.
 */
export function explain(view: RoutingView, query: URLSearchParams): object {
  const trace: string[] = [];
  const question = readQuestion(view, query, trace);
  const { keyspace, tenant, service } = question;
  const { fleet, revision } = view.table;
  trace.push(`the table of fleet ${fleet} is at revision ${revision}`);
  const decision = decide(view, { subject: { kind: "tenant", keyspace, tenant }, service });
  const { route } = decision;
  const cell = decision.kind === "proxy" ? decision.cell : route?.cell;
  if (cell === undefined) {
    const { code, message } =
      decision.kind === "refuse" ? decision : { code: "INTERNAL" as const, message: "" };
    throw new CellError(code, message, { details: { trace } });
  }
  const { stage = "enforce", host } = view.table.cell(cell) ?? {};
  const shown = host ?? cell;
  const how =
    route === undefined
      ? `has no placement and is passed through to cell ${shown}`
      : `is decided by key ${route.key}: cell ${shown}, epoch ${route.epoch}, ${route.state}`;
  trace.push(`tenant ${tenant} ${how}`);
  if (host !== undefined) trace.push(`cell ${host} serves it from the standby ${cell}`);
  if (stage !== "enforce") trace.push(stageTexts[stage]);
  trace.push(consequence(decision));
  const placement =
    route === undefined
      ? { key: null, via: "pass-through", epoch: null, state: "active" }
      : { key: route.key, via: route.via, epoch: route.epoch, state: route.state };
  return {
    ...question,
    ...placement,
    cell: shown,
    stage,
    revision,
    decision: decision.kind,
    trace,
  };
}

const stageTexts = {
  "pass-through":
    "this cell is in stage pass-through: it is spoken to directly, nothing is checked",
  observe: "this cell is in stage observe: what would be refused is counted and passed",
} as const;

function consequence(decision: RouteDecision): string {
  if (decision.kind === "hold") {
    return decision.handover
      ? "requests wait for the new owner, at most --handover-ms from when the router heard of it; later ones are refused with PLACEMENT_UNAVAILABLE"
      : "requests wait for the next revision of this key";
  }
  if (decision.kind === "refuse") return `refused with ${decision.code}: ${decision.message}`;
  return `service ${decision.service} is forwarded to ${decision.endpoints.join(", ")}`;
}

/** Throws what is wrong with the question. */
function readQuestion(view: RoutingView, query: URLSearchParams, trace: string[]): Question {
  const service = query.get("service") ?? "default";
  const tenant = query.get("tenant");
  if (tenant !== null) return { ...readTenant(tenant, query.get("keyspace")), service };
  const alias = query.get("alias");
  if (alias !== null) return { ...readAlias(view, alias, trace), service };
  return readRequest(view, query, trace);
}

function readTenant(raw: string, rawKeyspace: string | null): Omit<Question, "service"> {
  const tenant = parseTenantId(raw);
  const keyspace = parseKeyspaceName(rawKeyspace ?? "default");
  if (tenant === undefined) {
    throw new CellError("TENANT_INVALID", `A tenant id is ${tenantIdRule}.`);
  }
  if (keyspace === undefined) {
    throw new CellError("VALIDATION_FAILED", "That is no name of a keyspace.");
  }
  return { tenant, keyspace };
}

function readAlias(
  { table }: RoutingView,
  alias: string,
  trace: string[],
): Omit<Question, "service"> {
  const colon = alias.indexOf(":");
  if (colon < 1) throw new CellError("VALIDATION_FAILED", "An alias is given as NAMESPACE:NAME.");
  const namespace = alias.slice(0, colon);
  const targets = table.resolve(namespace, alias.slice(colon + 1));
  const [first, second] = targets;
  if (first === undefined) {
    throw new CellError("TENANT_UNKNOWN", `This name in ${namespace} belongs to no tenant.`);
  }
  if (second !== undefined) {
    const shown = targets.slice(0, 20).map(({ keyspace, tenant }) => `${keyspace}/${tenant}`);
    throw new CellError("TENANT_AMBIGUOUS", `It stands for ${targets.length} tenants.`, {
      details: { tenants: shown },
    });
  }
  trace.push(`the name in ${namespace} stands for tenant ${first.tenant} of ${first.keyspace}`);
  return first;
}

function readRequest(view: RoutingView, query: URLSearchParams, trace: string[]): Question {
  const { table } = view;
  const { tenantSources, serviceRoutes } = table.lists;
  const hostname = (query.get("host") ?? "").toLowerCase();
  const path = query.get("path") ?? "/";
  const route = chooseRoute(serviceRoutes, hostname, path);
  if (!isOfTenant(route)) {
    const text = `This path is a route of class ${route.class} to service ${route.service}: no tenant is looked for.`;
    throw new CellError("TENANT_MISSING", text);
  }
  const resolve = (namespace: string, name: string) => table.resolve(namespace, name);
  for (const source of tenantSources) {
    if (!("jwt" in source)) continue;
    trace.push(`${sourceName(source)}: no token is verified here, so it counts as absent`);
  }
  const identity = identify({ hostname, path, headers: [] }, tenantSources, resolve);
  if (identity.kind === "refused") {
    throw new CellError(identity.code, identity.message, { details: { trace } });
  }
  trace.push(`${identity.source} names tenant ${identity.tenant} of keyspace ${identity.keyspace}`);
  const { tenant, keyspace } = identity;
  const ofTenant = serviceRoutes.filter(isOfTenant);
  return { tenant, keyspace, service: chooseRoute(ofTenant, hostname, identity.path).service };
}
