/** Routing rules, and what they make of a request. */
import { eq } from "drizzle-orm";
import { z } from "zod";
import {
  acceptedSchema,
  dryRunSchema,
  resolutionSchema,
  routingSchema,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  defaultKeyspace,
  keyspaceNameSchema,
  parseTenantId,
  type TenantId,
  tenantIdRule,
} from "../../contract/ids.ts";
import { tenantKey } from "../../contract/placement-key.ts";
import { serviceRouteSchema, tenantSourceSchema } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import { onePlan } from "../core/ops/machine.ts";
import { nameTenant } from "../core/resolve.ts";
import type { Reader } from "../store/database.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { findContainer, findPlacement } from "../store/placements.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { fleet } from "../store/schema.ts";
import { tenantUnknown } from "../store/tenants.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

const storedRules = z.object({
  tenantSources: z.array(tenantSourceSchema),
  serviceRoutes: z.array(serviceRouteSchema),
});
type Rules = z.output<typeof storedRules>;

export function routingEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/routing",
      role: "viewer",
      tag: "routing",
      summary: "Where requests name their tenant, and which service they are for.",
      answers: { 200: routingSchema },
      serve: async () => ({ status: 200, body: await readRules(database.read) }),
    }),
    mutation(context, {
      method: "put",
      path: "/v1/routing",
      role: "operator",
      tag: "routing",
      summary: "Replace both lists.",
      body: routingSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "routing.update",
      object: () => "routing",
      apply: (work, { body }) => replaceRules(context, work, body),
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
          const rules = await readRules(tx);
          const named = nameTenant({ tenant, keyspace, host, path }, rules.tenantSources);
          return { status: 200, body: await resolve(tx, named) };
        }),
    }),
  ];
}

async function readRules(reader: Reader): Promise<Rules> {
  const [row] = await reader
    .select({ tenantSources: fleet.tenantSources, serviceRoutes: fleet.serviceRoutes })
    .from(fleet);
  return storedRules.parse(must(row, "fleet row"));
}

async function replaceRules(
  context: ApiContext,
  work: Work,
  wanted: z.output<typeof routingSchema>,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const { tenantSources, serviceRoutes } = wanted;
  for (const source of tenantSources) {
    if (source.keyspace !== undefined) await requireKeyspace(tx, source.keyspace);
  }
  const plan = onePlan("routing.update", [
    {
      action: "replace",
      object: "routing",
      text: `replace the rules by ${tenantSources.length} tenant sources and ${serviceRoutes.length} service routes`,
    },
    { action: "publish", object: "routers", text: "wait until all live routers apply them" },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(await readRules(tx), { tenantSources, serviceRoutes });
  const revision = await changeRouting(tx, { config: true });
  await tx.update(fleet).set({ tenantSources, serviceRoutes }).where(eq(fleet.one, true));
  return accept(work, {
    id: freshOpId(context, work),
    kind: "routing.update",
    object: "routing",
    plan,
    input: {},
    revision,
    headline: "the rules are recorded; telling the routers",
  });
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
  return { tenant, keyspace: name, key: container.key, cell, epoch, state, revision, trace };
}

function requireTenant(named: Named): TenantId {
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
