/**
 * Overrides: a tenant of slots or ranges placed on its own. In its container's cell that is a split of
 * ownership. In another cell it is refused: first the split, then a move, which brings its rows along.
 */
import type { z } from "zod";
import {
  acceptedSchema,
  createOverrideSchema,
  dryRunSchema,
  intentSchema,
  list,
  overrideSchema,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { parseKeyspaceName, parseTenantId } from "../../contract/ids.ts";
import { parsePlacementKey, placementKeySchema, tenantKey } from "../../contract/placement-key.ts";
import { must } from "../../runtime/assert.ts";
import { planOverride, planOverrideDelete } from "../core/ops/override.ts";
import type { Reader } from "../store/database.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { requireAtRest } from "../store/moves/motion.ts";
import { openOpOn } from "../store/ops.ts";
import { listOverrides } from "../store/overrides.ts";
import {
  findContainer,
  findPlacement,
  insertPending,
  type PlacementRow,
  tombstone,
} from "../store/placements.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { isSpent } from "../store/tenant-end.ts";
import { findTenant, setPlacementKey } from "../store/tenants.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { tenantDeleted } from "./tenant-life.ts";

type Wanted = z.output<typeof createOverrideSchema>;

export function overrideEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/overrides",
      role: "viewer",
      tag: "overrides",
      summary: "List overrides.",
      query: pageQuery,
      answers: { 200: list(overrideSchema) },
      serve: async ({ query }) => {
        const after = decodeCursor(query.cursor, "");
        const rows = await listOverrides(database.read, after, query.limit + 1);
        const shown = page(rows, query.limit, ({ key }) => key);
        const items = await Promise.all(shown.items.map((row) => toOverride(database.read, row)));
        return { status: 200, body: { items, next: shown.next } };
      },
    }),
    mutation(context, {
      method: "post",
      path: "/v1/overrides",
      role: "operator",
      tag: "overrides",
      summary: "Place a tenant of slots or ranges on its own.",
      body: createOverrideSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "override.create",
      object: ({ body }) => tenantKey(body.keyspace, body.tenant),
      apply: (work, { body }) => createOverride(context, work, body),
    }),
    mutation(context, {
      method: "delete",
      path: "/v1/overrides/{id}",
      role: "operator",
      tag: "overrides",
      summary: "Give a tenant back to its container.",
      params: { id: placementKeySchema },
      body: intentSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "override.delete",
      object: ({ path }) => path.id,
      apply: (work, { path }) => deleteOverride(context, work, path.id),
    }),
  ];
}

async function toOverride(reader: Reader, row: PlacementRow) {
  const name = must(parseKeyspaceName(row.keyspace), "keyspace of an override");
  const tenant = must(parseTenantId(row.value), "tenant of an override");
  const keyspace = await requireKeyspace(reader, row.keyspace);
  const container = await findContainer(reader, keyspace, name, tenant);
  const { cell, epoch } = row;
  return { id: row.key, keyspace: name, tenant, cell, epoch, container: container?.key ?? row.key };
}

async function containerOf(reader: Reader, wanted: Pick<Wanted, "keyspace" | "tenant">) {
  const keyspace = await requireKeyspace(reader, wanted.keyspace);
  if (keyspace.strategy === "directory") {
    throw new CellError(
      "STATE_CONFLICT",
      `${wanted.keyspace} is a directory: each tenant has a placement of its own, and no override.`,
    );
  }
  const container = await findContainer(reader, keyspace, wanted.keyspace, wanted.tenant);
  if (container === undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${wanted.keyspace} has no container for ${wanted.tenant}.`,
    );
  }
  return container;
}

async function createOverride(context: ApiContext, work: Work, wanted: Wanted): Promise<Answer> {
  const { tx, dryRun } = work;
  await lockNormalFleet(tx);
  // As a tenant of its own it would be served again, from whatever rows there are.
  if (await isSpent(tx, wanted.tenant)) throw tenantDeleted(wanted.tenant);
  const container = await containerOf(tx, wanted);
  await requireCell(tx, wanted.cell);
  const key = tenantKey(wanted.keyspace, wanted.tenant);
  await requireAtRest(tx, [container.key, key]);
  const existing = await findPlacement(tx, key);
  if (existing !== undefined && !existing.deleted) {
    throw new CellError(
      "STATE_CONFLICT",
      `${key} is placed on its own already, in ${existing.cell}.`,
      {
        nextSteps: ["cellctl route override ls"],
      },
    );
  }
  requireSplittable(wanted, container);
  const plan = planOverride(key, wanted.cell, container.key);
  if (dryRun) return dryRunAnswer(plan);
  await work.record(
    { key: container.key, cell: container.cell, epoch: container.epoch },
    { key, cell: wanted.cell },
  );
  const id = freshOpId(context, work);
  const revision = await changeRouting(tx, { config: false });
  const row = { key, keyspace: wanted.keyspace, kind: "tenant", value: wanted.tenant } as const;
  // Above the container's epoch: routers then hold the tenant while its cell splits it off.
  const epochMin = container.epoch + 1;
  await insertPending(tx, [{ ...row, cell: wanted.cell, op: id, revision, epochMin }]);
  if ((await findTenant(tx, wanted.tenant, wanted.keyspace)) !== undefined) {
    await setPlacementKey(tx, wanted.tenant, key);
  }
  return accept(work, {
    id,
    kind: "override.create",
    object: key,
    plan,
    input: { cell: wanted.cell, container: container.key },
    headline: `waiting until ${wanted.cell} splits ${key} off`,
  });
}

function requireSplittable(wanted: Wanted, container: PlacementRow): void {
  if (container.state !== "active") {
    throw new CellError(
      "STATE_CONFLICT",
      `${container.key} is ${container.state}; try again when it is active.`,
    );
  }
  if (wanted.cell === container.cell) return;
  throw new CellError(
    "STATE_CONFLICT",
    `${wanted.tenant} is served by ${container.cell}, which owns ${container.key}; placing it in ${wanted.cell} takes two steps: a placement of its own where it is, then a move of its data.`,
    {
      details: { container: container.key, cell: container.cell },
      nextSteps: [
        `cellctl route override add ${wanted.tenant} --keyspace ${wanted.keyspace} --cell ${container.cell}`,
        `cellctl move start --key ${tenantKey(wanted.keyspace, wanted.tenant)} --to ${wanted.cell} --wait`,
      ],
    },
  );
}

async function deleteOverride(context: ApiContext, work: Work, id: string): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const parts = parsePlacementKey(id);
  const row = parts?.kind === "tenant" ? await findPlacement(tx, id) : undefined;
  if (row === undefined || row.deleted || parts?.kind !== "tenant") {
    throw new CellError("NOT_FOUND", `There is no override ${id}.`, {
      nextSteps: ["cellctl route override ls"],
    });
  }
  const container = await containerOf(tx, parts);
  await requireAtRest(tx, [container.key, id]);
  const open = await openOpOn(tx, id, "override.");
  if (open !== undefined || row.state !== "active" || container.cell !== row.cell) {
    throw new CellError(
      "STATE_CONFLICT",
      open === undefined
        ? `${id} is ${row.state} in ${row.cell}, and its container is in ${container.cell}: its data would have to move.`
        : `${open.kind} of ${id} is running (${open.id}).`,
      {
        nextSteps:
          open === undefined && container.cell !== row.cell
            ? [
                `cellctl move start --key ${id} --to ${container.cell} --wait`,
                `cellctl route override rm ${id}`,
              ]
            : ["cellctl op ls"],
      },
    );
  }
  const plan = planOverrideDelete(id, container.key);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record({ key: id, cell: row.cell, epoch: row.epoch }, { key: container.key });
  const op = freshOpId(context, work);
  const revision = await changeRouting(tx, { config: false });
  await tombstone(tx, [id], { revision, op, attempt: 0 });
  await setPlacementKey(tx, parts.tenant, container.key);
  return accept(work, {
    id: op,
    kind: "override.delete",
    object: id,
    plan,
    input: { cell: row.cell, container: container.key },
    revision,
    headline: `waiting until ${row.cell} drops ${id}`,
  });
}
