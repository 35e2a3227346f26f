/** Tenants: list, read, create, and why they are where they are. */
import { z } from "zod";
import {
  acceptedSchema,
  createTenantSchema,
  dryRunSchema,
  list,
  resolutionSchema,
  tenantSchema,
  tiers,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { explanationSchema } from "../../contract/explanation.ts";
import {
  cellIdSchema,
  defaultKeyspace,
  keyspaceNameSchema,
  type TenantId,
  tenantIdSchema,
} from "../../contract/ids.ts";
import { explainPlacement } from "../core/explain.ts";
import type { Reader, Tx } from "../store/database.ts";
import { shownOwner } from "../store/failover/view.ts";
import { readCells } from "../store/fleet-store.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { inMotion } from "../store/moves/ask.ts";
import { findContainer, toPlacementView } from "../store/placements.ts";
import { candidateOf, findTenant, listTenants, tenantUnknown, toTenant } from "../store/tenants.ts";
import type { ApiContext } from "./context.ts";
import { createTenant } from "./create-tenant.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { mutation } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";

const idParams = { id: tenantIdSchema };
const keyspaceQuery = { keyspace: keyspaceNameSchema.optional() };

export function tenantEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    listEndpoint(context),
    mutation(context, {
      method: "post",
      path: "/v1/tenants",
      role: "operator",
      tag: "tenants",
      summary: "Create a tenant and place it.",
      body: createTenantSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "tenant.create",
      object: ({ body }) => body.id,
      apply: (work, { body }) => createTenant(context, work, body),
    }),
    getEndpoint(context),
    placementEndpoint(context),
    explainEndpoint(context),
  ];
}

const listEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/tenants",
    role: "viewer",
    tag: "tenants",
    summary: "List tenants, in order of id.",
    query: {
      ...pageQuery,
      cell: cellIdSchema.optional(),
      keyspace: keyspaceNameSchema.optional(),
      prefix: z.string().max(128).optional(),
      /** `name=value`. */
      label: z
        .string()
        .regex(/^[^=]{1,63}=.{0,200}$/, "must be NAME=VALUE")
        .optional(),
    },
    answers: { 200: list(tenantSchema) },
    serve: async ({ query }) => {
      const { limit, cursor, label, ...filter } = query;
      const [name = "", ...value] = (label ?? "").split("=");
      const rows = await listTenants(context.database.read, {
        ...filter,
        after: decodeCursor(cursor, ""),
        limit: limit + 1,
        label: label === undefined ? undefined : { name, value: value.join("=") },
      });
      return { status: 200, body: page(rows, limit, ({ id }) => id) };
    },
  });

const getEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/tenants/{id}",
    role: "viewer",
    tag: "tenants",
    summary: "One tenant, with its placement.",
    params: idParams,
    query: keyspaceQuery,
    answers: { 200: tenantSchema },
    serve: async ({ path, query }) => {
      const found = await findTenant(context.database.read, path.id, query.keyspace);
      if (found === undefined) throw await tenantUnknown(context.database.read, path.id);
      const move = await moveOf(context.database.read, found.placement.key);
      return { status: 200, body: { ...toTenant(found), ...move } };
    },
  });

const placementEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/tenants/{id}/placement",
    role: "viewer",
    tag: "tenants",
    summary: "Which cell owns a registered tenant.",
    params: idParams,
    query: keyspaceQuery,
    answers: { 200: resolutionSchema },
    serve: async ({ path, query }) => {
      const found = await findTenant(context.database.read, path.id, query.keyspace);
      if (found === undefined) throw await tenantUnknown(context.database.read, path.id);
      const { tenant, placement } = found;
      const { key, cell, epoch, state, revision } = placement;
      const owner = await shownOwner(context.database.read, { key, cell, state });
      const trace = [
        `${tenant.id} is registered in the keyspace ${tenant.keyspace}`,
        `${key} is owned by ${cell} at epoch ${epoch} (${state})`,
      ];
      return {
        status: 200,
        body: {
          tenant: tenant.id,
          keyspace: tenant.keyspace,
          ...{ key, epoch, state, revision },
          ...owner,
          ...(await moveOf(context.database.read, key)),
          trace,
        },
      };
    },
  });

/** The open move of a key, where there is one. */
async function moveOf(reader: Reader, key: string) {
  const [open] = await inMotion(reader, [key]);
  if (open === undefined) return {};
  const { id, step, source, target } = open;
  return { move: { id, step, source, target } };
}

/** What if: of a tenant that does not exist. */
const whatIfQuery = {
  ...keyspaceQuery,
  tier: z.enum(tiers).default("standard"),
  region: z.string().min(1).max(40).optional(),
  bytes: z.coerce.number().int().min(0).default(0),
  rps: z.coerce.number().min(0).default(0),
  cell: cellIdSchema.optional(),
};
type WhatIf = z.output<z.ZodObject<typeof whatIfQuery>>;

const explainEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/tenants/{id}/placement/explain",
    role: "viewer",
    tag: "tenants",
    summary: "Why a tenant is where it is; for one that does not exist, where it would go.",
    params: idParams,
    query: whatIfQuery,
    answers: { 200: explanationSchema },
    serve: ({ path, query }) =>
      context.database.snapshot(async (tx) => {
        const cells = await readCells(tx);
        const found = await findTenant(tx, path.id, query.keyspace);
        const about =
          found === undefined
            ? await aboutNobody(tx, path.id, query)
            : {
                keyspace: found.tenant.keyspace,
                current: toPlacementView(found.placement),
                container: found.placement.kind !== "tenant",
                wanted: candidateOf(found.tenant),
              };
        const { current } = about;
        const move = current === null ? {} : await moveOf(tx, current.key);
        const why = explainPlacement({ tenant: path.id, cells, ...about });
        const unserved = current === null ? undefined : (await shownOwner(tx, current)).unserved;
        const note = unserved === undefined ? {} : { unserved };
        return { status: 200, body: { ...why, ...move, ...note } };
      }),
  });

async function aboutNobody(tx: Tx, id: TenantId, query: WhatIf) {
  const name = query.keyspace ?? defaultKeyspace;
  const keyspace = await requireKeyspace(tx, name);
  const container = await findContainer(tx, keyspace, name, id);
  if (keyspace.strategy !== "directory" && container === undefined) {
    throw new CellError("TENANT_UNKNOWN", `No container of ${name} takes ${id}.`);
  }
  const { tier, bytes, rps, region = null, cell = null } = query;
  return {
    keyspace: name,
    current: container === undefined ? null : toPlacementView(container),
    container: container !== undefined,
    wanted: { tenant: id, tier, region, bytes, rps, cell },
  };
}
