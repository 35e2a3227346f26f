/**
 * Names of tenants: kinds of them, reserve, commit, release, look up. A name arrives in clear, becomes
 * its hash before anything else is done with the request, and is neither kept, audited nor logged.
 */
import type { z } from "zod";
import { hashAlias, normaliseAlias } from "../../contract/alias.ts";
import {
  checkClaimSchema,
  claimAcceptedSchema,
  claimCheckSchema,
  claimNamespaceSchema,
  claimSchema,
  commitNameSchema,
  commitReservationSchema,
  createClaimNamespaceSchema,
  releaseClaimSchema,
  reserveClaimSchema,
  reservedSchema,
} from "../../contract/claims-api.ts";
import { acceptedSchema, dryRunSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { keyspaceNameSchema, tenantIdSchema } from "../../contract/ids.ts";
import { aliasNamespacesMax } from "../../contract/routing-table.ts";
import { claimText, stateOf } from "../core/claims.ts";
import { onePlan } from "../core/ops/machine.ts";
import {
  insertNamespace,
  listNamespaces,
  namespaceExists,
  readSalt,
  requireNamespace,
} from "../store/claim-namespaces.ts";
import { type ClaimKey, holdersOf, listClaims, toClaim } from "../store/claims.ts";
import type { Tx } from "../store/database.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { mayUse } from "./auth.ts";
import { commitHeld, commitName, release, reserve } from "./change-claim.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { claimImportEndpoint } from "./import-claims.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";

const namespaceParam = claimNamespaceSchema.shape.name;

export function claimEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    ...namespaceEndpoints(context),
    listEndpoint(context),
    checkEndpoint(context),
    ...changeEndpoints(context),
    claimImportEndpoint(context),
  ];
}

const namespaceEndpoints = (context: ApiContext): Endpoint[] => [
  endpoint({
    method: "get",
    path: "/v1/claim-namespaces",
    role: "viewer",
    tag: "claims",
    summary: "List the kinds of names that tenants may have.",
    query: pageQuery,
    answers: { 200: list(claimNamespaceSchema) },
    serve: async ({ query }) => {
      const after = decodeCursor(query.cursor, "");
      const rows = (await listNamespaces(context.database.read)).filter(({ id }) => id > after);
      return { status: 200, body: page(rows, query.limit, ({ id }) => id) };
    },
  }),
  mutation(context, {
    method: "post",
    path: "/v1/claim-namespaces",
    role: "operator",
    tag: "claims",
    summary: "Create a kind of names; it never changes afterwards.",
    body: createClaimNamespaceSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "claim-namespace.create",
    object: ({ body }) => body.name,
    apply: (work, { body }) => createNamespace(context, work, body),
  }),
];

async function createNamespace(
  context: ApiContext,
  work: Work,
  wanted: z.output<typeof createClaimNamespaceSchema>,
): Promise<Answer> {
  const { tx } = work;
  const { name, cardinality, fold, routed } = wanted;
  await lockNormalFleet(tx);
  if (await namespaceExists(tx, name)) {
    throw new CellError("STATE_CONFLICT", `The namespace ${name} exists.`, {
      nextSteps: ["cellctl claim namespaces"],
    });
  }
  if (routed) await requireRoom(tx);
  const plan = onePlan("claim.change", [
    { action: "create", object: name, text: `a name belongs to ${cardinality} of the tenants` },
    ...(routed
      ? [{ action: "publish", object: "routers", text: "wait until all live routers know it" }]
      : []),
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  const row = { name, cardinality, fold, routed };
  await work.record(null, row);
  const revision = routed ? await changeRouting(tx, { config: true }) : undefined;
  await insertNamespace(tx, row);
  return accept(work, {
    id: freshOpId(context, work),
    kind: "claim.change",
    object: name,
    plan,
    input: row,
    headline: routed ? "the namespace is there; telling the routers" : "the namespace is there",
    ...(revision === undefined ? { done: true } : { revision }),
    nextSteps: [`cellctl claim reserve ${name}:NAME --tenant TENANT`],
  });
}

/** A table with more would not be one that routers read. */
async function requireRoom(tx: Tx): Promise<void> {
  const known = (await listNamespaces(tx)).filter(({ routed }) => routed).length;
  if (known < aliasNamespacesMax) return;
  throw new CellError("STATE_CONFLICT", `A fleet has at most ${aliasNamespacesMax} routed kinds.`, {
    details: { aliasNamespacesMax },
    nextSteps: ["cellctl claim namespaces", "a kind that is not routed has no such limit"],
  });
}

const listEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/claims",
    role: "viewer",
    tag: "claims",
    summary: "Names that are reserved or committed, as hashes.",
    query: {
      ...pageQuery,
      tenant: tenantIdSchema.optional(),
      keyspace: keyspaceNameSchema.optional(),
      namespace: namespaceParam.optional(),
    },
    answers: { 200: list(claimSchema) },
    serve: async ({ query }) => {
      const { limit, cursor, ...filter } = query;
      const after = cursor === undefined ? undefined : afterOf(decodeCursor(cursor, ""));
      const rows = await listClaims(context.database.read, { ...filter, after, limit: limit + 1 });
      const shown = page(rows, limit, (row) =>
        [row.namespace, row.hash, row.keyspace, row.tenant].join(" "),
      );
      return { status: 200, body: { items: shown.items.map(toClaim), next: shown.next } };
    },
  });

function afterOf(cursor: string): ClaimKey {
  const [namespace, hash, keyspace, tenant, ...rest] = cursor.split(" ");
  if (tenant === undefined || rest.length > 0) {
    throw new CellError("VALIDATION_FAILED", "cursor: is not one that a list has answered");
  }
  return { namespace: namespace ?? "", hash: hash ?? "", keyspace: keyspace ?? "", tenant };
}

const checkEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "post",
    path: "/v1/claims/check",
    role: "viewer",
    tag: "claims",
    summary: "Is a name taken? A POST, so that no log of addresses holds the name.",
    body: checkClaimSchema,
    answers: { 200: claimCheckSchema },
    serve: async ({ body, caller }) => {
      const { namespace, value: hash } = await hidden(context, body);
      const rows = await holdersOf(context.database.read, namespace, hash);
      const state = stateOf(rows);
      const claims = rows.map(toClaim);
      const [first] = claims;
      const sole = claims.length === 1 && first !== undefined ? { tenant: first.tenant } : {};
      // Whoever may only look is told that a name is taken: a form of sign-up shows that much.
      const owners = mayUse(caller.role, "operator") ? { ...sole, claims } : {};
      return { status: 200, body: { namespace, taken: state !== "free", state, ...owners } };
    },
  });

type Named = { readonly namespace: string; readonly value: string };

/** From here on `value` is the hash. Throws VALIDATION_FAILED, or NOT_FOUND for the namespace. */
async function hidden<T extends Named>(context: ApiContext, body: T): Promise<T> {
  const { read } = context.database;
  const namespace = await requireNamespace(read, body.namespace);
  const name = normaliseAlias(body.value, namespace.fold);
  if (name === undefined) {
    throw new CellError("VALIDATION_FAILED", "value: must be a name of visible characters");
  }
  return { ...body, value: hashAlias(await readSalt(read), namespace.name, name) };
}

const changeEndpoints = (context: ApiContext): Endpoint[] => [
  mutation(context, {
    method: "post",
    path: "/v1/claims/reserve",
    role: "operator",
    tag: "claims",
    summary: "Reserve a name for a tenant, for a bounded time.",
    body: reserveClaimSchema,
    answers: { 200: dryRunSchema, 201: reservedSchema },
    action: "claim.reserve",
    conceal: (body) => hidden(context, body),
    object: ({ body }) => claimText(body.namespace, body.value),
    apply: (work, { body }) => reserve(context, work, { ...body, hash: body.value }),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/claims/commit",
    role: "operator",
    tag: "claims",
    summary: "Make a reservation final.",
    body: commitReservationSchema,
    answers: { 200: dryRunSchema, 202: claimAcceptedSchema },
    action: "claim.commit",
    object: ({ body }) => nameOf(body.reservation),
    recorded: (body) => ({ ...body, reservation: nameOf(body.reservation) }),
    apply: (work, { body }) => commitHeld(context, work, body.reservation),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/claims",
    role: "operator",
    tag: "claims",
    summary: "Reserve a name and commit it at once.",
    body: commitNameSchema,
    answers: { 200: dryRunSchema, 202: claimAcceptedSchema },
    action: "claim.commit",
    conceal: (body) => hidden(context, body),
    object: ({ body }) => claimText(body.namespace, body.value),
    apply: (work, { body }) => commitName(context, work, { ...body, hash: body.value }),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/claims/release",
    role: "operator",
    tag: "claims",
    summary: "Give a name back, or a reservation.",
    body: releaseClaimSchema,
    answers: { 200: dryRunSchema, 202: claimAcceptedSchema },
    action: "claim.release",
    conceal: async (body) => ("reservation" in body ? body : hidden(context, body)),
    object: ({ body }) =>
      "reservation" in body ? nameOf(body.reservation) : claimText(body.namespace, body.value),
    recorded: (body) =>
      "reservation" in body ? { ...body, reservation: nameOf(body.reservation) } : body,
    apply: (work, { body }) =>
      release(context, work, "reservation" in body ? body : { ...body, hash: body.value }),
  }),
];

/** A reservation's id without what makes it a secret. */
function nameOf(reservation: string): string {
  const [namespace = "", hash = ""] = reservation.split(".");
  return claimText(namespace, hash);
}
