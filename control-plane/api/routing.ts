/** Routing rules, and what they make of a request. */
import { z } from "zod";
import { hashAlias, normaliseAlias } from "../../contract/alias.ts";
import { acceptedSchema, dryRunSchema, resolutionSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  defaultKeyspace,
  keyspaceNameSchema,
  parseTenantId,
  type TenantId,
  tenantIdRule,
} from "../../contract/ids.ts";
import { tenantKey } from "../../contract/placement-key.ts";
import { routingSchema } from "../../contract/routing-api.ts";
import { type AskedName, namesIn, nameTenant, type Owner, type OwnersOf } from "../core/resolve.ts";
import { readSalt, requireNamespace } from "../store/claim-namespaces.ts";
import { holdersOf } from "../store/claims.ts";
import type { Reader } from "../store/database.ts";
import { shownOwner } from "../store/failover/view.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { findContainer, findPlacement } from "../store/placements.ts";
import { tenantUnknown } from "../store/tenants.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { mutation } from "./mutation.ts";
import { changeRules, type Rules, readRules } from "./routing-rules.ts";

export function routingEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/routing",
      role: "viewer",
      tag: "routing",
      summary:
        "Where requests name their tenant, which service they are for, services outside of cells.",
      answers: { 200: routingSchema },
      serve: async () => ({ status: 200, body: await readRules(database.read) }),
    }),
    mutation(context, {
      method: "put",
      path: "/v1/routing",
      role: "operator",
      tag: "routing",
      summary:
        "Replace the lists; global services and policy stay as they are where none are given.",
      body: routingSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "routing.update",
      object: () => "routing",
      apply: (work, { body }) => changeRules(context, work, replaced(body), "replace the rules"),
    }),
    endpoint({
      method: "get",
      path: "/v1/route/resolve",
      role: "viewer",
      tag: "routing",
      summary: "The cell that a request would go to, and how that was found.",
      query: {
        tenant: z.string().min(1).max(128).optional(),
        keyspace: keyspaceNameSchema.optional(),
        host: z.string().min(1).max(260).optional(),
        path: z.string().startsWith("/").max(2000).optional(),
      },
      answers: { 200: resolutionSchema },
      serve: ({ query }) =>
        database.snapshot(async (tx) => {
          const { tenant, keyspace, host, path } = query;
          const question = { tenant, keyspace, host, path };
          const { tenantSources } = await readRules(tx);
          const ownersOf = await lookUp(tx, namesIn(question, tenantSources));
          const named = nameTenant(question, tenantSources, ownersOf);
          return { status: 200, body: await resolve(tx, named) };
        }),
    }),
  ];
}

/** What is not given stays as it is. */
const replaced =
  (wanted: z.output<typeof routingSchema>) =>
  (before: Rules): Rules => {
    const { tenantSources, serviceRoutes } = wanted;
    const { globalServices = before.globalServices, policy = before.policy } = wanted;
    return { tenantSources, serviceRoutes, globalServices, policy };
  };

const nameText = ({ namespace, name }: AskedName): string => `${namespace}:${name}`;

/** As routers do it: the committed names alone count. */
async function lookUp(reader: Reader, asked: readonly AskedName[]): Promise<OwnersOf> {
  const owners = new Map<string, readonly Owner[]>();
  for (const one of asked) {
    const { fold } = await requireNamespace(reader, one.namespace);
    const name = normaliseAlias(one.name, fold);
    if (name === undefined) continue;
    const hash = hashAlias(await readSalt(reader), one.namespace, name);
    const rows = await holdersOf(reader, one.namespace, hash);
    owners.set(
      nameText(one),
      rows.filter(({ state }) => state === "committed"),
    );
  }
  return (one) => owners.get(nameText(one)) ?? [];
}

type Named = ReturnType<typeof nameTenant>;

async function resolve(reader: Reader, named: Named): Promise<z.input<typeof resolutionSchema>> {
  const tenant = requireTenant(named);
  const name = keyspaceNameSchema.parse(named.keyspace ?? defaultKeyspace);
  const keyspace = await requireKeyspace(reader, name);
  const trace = [...named.trace, `keyspace ${name}, strategy ${keyspace.strategy}`];
  const key = tenantKey(name, tenant);
  const own = await findPlacement(reader, key);
  const override = own === undefined || own.deleted ? undefined : own;
  const container = override ?? (await findContainer(reader, keyspace, name, tenant));
  if (container === undefined) throw await tenantUnknown(reader, tenant);
  const { cell, epoch, state, revision } = container;
  if (keyspace.strategy !== "directory") {
    trace.push(
      override === undefined
        ? `no override; its container is ${container.key}`
        : "an override stands above its container",
    );
  }
  trace.push(`${container.key} is owned by ${cell} at epoch ${epoch} (${state})`);
  const owner = await shownOwner(reader, container);
  const placed = { tenant, keyspace: name, key: container.key, epoch, state, revision, trace };
  return { ...placed, ...owner };
}

function requireTenant(named: Named): TenantId {
  if (named.tenant === undefined && named.ambiguous.length > 0) {
    throw new CellError(
      "TENANT_AMBIGUOUS",
      `The name in this request stands for ${named.ambiguous.length} tenants.`,
      { details: { tenants: named.ambiguous, trace: named.trace } },
    );
  }
  if (named.tenant === undefined) {
    throw new CellError("TENANT_MISSING", "No configured source names a tenant in this request.", {
      details: { trace: named.trace },
      nextSteps: ["cellctl routing get"],
    });
  }
  const tenant = parseTenantId(named.tenant);
  if (tenant === undefined)
    throw new CellError("TENANT_INVALID", `A tenant id is ${tenantIdRule}.`);
  return tenant;
}
