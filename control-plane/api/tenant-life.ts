/**
 * The life of a tenant after its creation: suspended and resumed, copied out, deleted with a receipt.
 * The API records; the leader's loop waits for cells and routers.
 */
import {
  receiptSchema,
  tenantActionSchema,
  tenantExportSchema,
} from "../../contract/adoption-api.ts";
import { acceptedSchema, dryRunSchema, type Plan } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { tenantIdSchema } from "../../contract/ids.ts";
import type { OpKind } from "../core/ops/kinds.ts";
import { planTenantDelete } from "../core/ops/tenant-delete.ts";
import { planTenantResume, planTenantSuspend } from "../core/ops/tenant-life.ts";
import type { Tx } from "../store/database.ts";
import { cellStores, readCells } from "../store/fleet-store.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { afterSwitch, requireAtRest } from "../store/moves/motion.ts";
import { moveKind } from "../store/moves/read.ts";
import { openOpOn } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { bury, isSpent, markPlacement, readReceipt } from "../store/tenant-end.ts";
import { findTenant, type PlacedTenant, tenantUnknown } from "../store/tenants.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

const idParams = { id: tenantIdSchema };
const answers = { 200: dryRunSchema, 202: acceptedSchema };

export function tenantLifeEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    changeEndpoint(context, "suspend", "Refuse a tenant everywhere, until it is resumed."),
    changeEndpoint(context, "resume", "Serve a suspended tenant again, where it was."),
    mutation(context, {
      method: "delete",
      path: "/v1/tenants/{id}",
      role: "operator",
      tag: "tenants",
      summary: "Delete a tenant for good: every row in every cell, its names, and its id.",
      params: idParams,
      body: tenantActionSchema,
      answers,
      action: "tenant.delete",
      object: ({ path }) => path.id,
      apply: (work, { path, body }) => deleteTenant(context, work, path.id, body.keyspace),
    }),
    mutation(context, {
      method: "post",
      path: "/v1/tenants/{id}/export",
      role: "operator",
      tag: "tenants",
      summary: "Where a tenant's rows stand, for whoever copies them out; goes to the audit log.",
      params: idParams,
      body: tenantActionSchema,
      answers: { 200: tenantExportSchema },
      action: "tenant.export",
      object: ({ path }) => path.id,
      apply: (work, { path, body }) => exportTenant(work, path.id, body.keyspace),
    }),
    endpoint({
      method: "get",
      path: "/v1/tenants/{id}/receipt",
      role: "viewer",
      tag: "tenants",
      summary: "What was removed where, of a tenant that is or is being deleted.",
      params: idParams,
      answers: { 200: receiptSchema },
      serve: async ({ path }) => {
        const receipt = await readReceipt(context.database.read, path.id);
        if (receipt === undefined) {
          throw new CellError("TENANT_UNKNOWN", `No tenant ${path.id} was deleted.`, {
            nextSteps: [`cellctl tenant get ${path.id}`],
          });
        }
        return { status: 200, body: receipt };
      },
    }),
  ];
}

const changeEndpoint = (
  context: ApiContext,
  action: "suspend" | "resume",
  summary: string,
): Endpoint =>
  mutation(context, {
    method: "post",
    path: `/v1/tenants/{id}/${action}`,
    role: "operator",
    tag: "tenants",
    summary,
    params: idParams,
    body: tenantActionSchema,
    answers,
    action: `tenant.${action}`,
    object: ({ path }) => path.id,
    apply: (work, { path, body }) =>
      action === "suspend"
        ? suspendTenant(context, work, path.id, body.keyspace)
        : resumeTenant(context, work, path.id, body.keyspace),
  });

async function suspendTenant(
  context: ApiContext,
  work: Work,
  id: string,
  keyspace: string | undefined,
): Promise<Answer> {
  const { tx } = work;
  const found = await requireChangeable(tx, { id, keyspace, action: "suspend" });
  const { placement } = found;
  if (placement.state === "suspended") {
    throw new CellError("STATE_CONFLICT", `${id} is suspended already.`, {
      nextSteps: [`cellctl tenant resume ${id}`],
    });
  }
  requireState(found, ["active", "unavailable"], "suspend");
  await requireEnforcing(tx, found, "suspend");
  const plan = planTenantSuspend(id, placement.cell);
  if (work.dryRun) return dryRunAnswer(plan);
  return record(context, work, found, {
    kind: "tenant.suspend",
    plan,
    state: "suspended",
    headline: `${id} is being suspended in ${placement.cell}`,
  });
}

async function resumeTenant(
  context: ApiContext,
  work: Work,
  id: string,
  keyspace: string | undefined,
): Promise<Answer> {
  const { tx } = work;
  const found = await requireChangeable(tx, { id, keyspace, action: "resume" });
  requireState(found, ["suspended"], "resume");
  const plan = planTenantResume(id, found.placement.cell);
  if (work.dryRun) return dryRunAnswer(plan);
  // Routers hold its requests until its cell serves it: nobody is refused on the way back.
  return record(context, work, found, {
    kind: "tenant.resume",
    plan,
    state: "hold",
    headline: `waiting until ${found.placement.cell} serves ${id} again`,
  });
}

async function deleteTenant(
  context: ApiContext,
  work: Work,
  id: string,
  keyspace: string | undefined,
): Promise<Answer> {
  const { tx } = work;
  const found = await requireChangeable(tx, { id, keyspace, action: "delete" });
  requireState(found, ["active", "suspended", "unavailable"], "delete");
  await requireEnforcing(tx, found, "delete");
  const cells = (await readCells(tx)).filter(
    ({ id: cell, state, agents }) =>
      state !== "retired" && (agents.length > 0 || cell === found.placement.cell),
  );
  const plan = planTenantDelete(
    id,
    found.placement.cell,
    cells.map((cell) => cell.id),
  );
  if (work.dryRun) return dryRunAnswer(plan);
  // A key of its own above a container stays fenced: dropped, the container would serve the tenant.
  const state = (await isOverride(tx, found)) ? "suspended" : "deleting";
  return record(context, work, found, {
    kind: "tenant.delete",
    plan,
    state,
    headline: `${id} is being fenced in ${found.placement.cell}`,
    bury: true,
  });
}

async function exportTenant(work: Work, id: string, keyspace: string | undefined): Promise<Answer> {
  const { tx } = work;
  const found = await findTenant(tx, id, keyspace);
  if (found === undefined) throw await unknown(tx, id);
  const { key, cell, epoch } = found.placement;
  const body = {
    tenant: id,
    keyspace: found.tenant.keyspace,
    ...{ key, cell, epoch },
    stores: await cellStores(tx, cell),
  };
  if (!work.dryRun) await work.record(null, { key, cell, epoch });
  return { status: 200, body };
}

async function record(
  context: ApiContext,
  work: Work,
  { tenant, placement }: PlacedTenant,
  what: {
    readonly kind: OpKind;
    readonly plan: Plan;
    readonly state: "suspended" | "hold" | "deleting";
    readonly headline: string;
    readonly bury?: boolean;
  },
): Promise<Answer> {
  const { tx } = work;
  const { key, cell, epoch } = placement;
  const id = freshOpId(context, work);
  await work.record({ key, cell, epoch, state: placement.state }, { key, state: what.state });
  const revision = await markPlacement(tx, key, what.state, id);
  if (what.bury === true) {
    await bury(tx, { keyspace: tenant.keyspace, tenant: tenant.id, op: id });
  }
  return accept(work, {
    id,
    kind: what.kind,
    object: tenant.id,
    plan: what.plan,
    input: { keyspace: tenant.keyspace, key, cell },
    revision,
    headline: what.headline,
  });
}

const unknown = async (tx: Tx, id: string): Promise<CellError> =>
  (await isSpent(tx, id)) ? tenantDeleted(id) : tenantUnknown(tx, id);

/** Ids are not used again: a late write or a restored backup of the old tenant would become the new one's. */
export const tenantDeleted = (id: string): CellError =>
  new CellError(
    "TENANT_DELETED",
    `A tenant with the id ${id} was deleted; ids are not used again.`,
    {
      nextSteps: [`cellctl tenant receipt ${id}`],
    },
  );

async function requireChangeable(
  tx: Tx,
  asked: {
    readonly id: string;
    readonly keyspace: string | undefined;
    readonly action: "suspend" | "resume" | "delete";
  },
): Promise<PlacedTenant> {
  await lockNormalFleet(tx);
  const { id, keyspace, action } = asked;
  const found = await findTenant(tx, id, keyspace);
  if (found === undefined) throw await unknown(tx, id);
  // Who has to be stopped cannot wait until a move has soaked.
  await requireAtRest(tx, [found.placement.key], action === "delete" ? [] : afterSwitch);
  const open = await openOpOn(tx, id, "tenant.", moveKind);
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${id} is running (${open.id}): ${open.headline}`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  const { tenant, placement } = found;
  if (placement.kind !== "tenant") {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is served under ${placement.key}, together with others; to ${action} it alone it needs a placement of its own.`,
      {
        nextSteps: [
          `cellctl route override add ${id} --keyspace ${tenant.keyspace} --cell ${placement.cell}`,
        ],
      },
    );
  }
  return found;
}

function requireState(
  { tenant, placement }: PlacedTenant,
  possible: readonly string[],
  action: string,
): void {
  if (possible.includes(placement.state)) return;
  throw new CellError(
    "STATE_CONFLICT",
    `${tenant.id} is ${placement.state}; ${action} is not possible.`,
    {
      nextSteps: [`cellctl tenant get ${tenant.id}`],
      details: { state: placement.state, possibleIn: possible },
    },
  );
}

/** Where nothing is refused, neither a suspension nor a deletion would hold. */
async function requireEnforcing(tx: Tx, found: PlacedTenant, action: string): Promise<void> {
  const cell = (await readCells(tx)).find(({ id }) => id === found.placement.cell);
  // A suspension that began in between would not be seen by the change of stage that looked before.
  const open = cell === undefined ? undefined : await openOpOn(tx, cell.id, "cell.stage");
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${open.object} is running (${open.id}): ${open.headline}. Until it is done, ${action} may not hold.`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  if (cell === undefined || cell.adopting === null) return;
  throw new CellError(
    "SAFETY_RULE",
    `${cell.adopting} is in stage ${cell.stage.now}: nothing is refused there, so ${action} would not hold.`,
    {
      details: { rule: "stage-enforce" },
      nextSteps: [`cellctl cell stage ${cell.adopting} enforce`],
    },
  );
}

const isOverride = async (tx: Tx, { tenant }: PlacedTenant): Promise<boolean> =>
  (await requireKeyspace(tx, tenant.keyspace)).strategy !== "directory";
