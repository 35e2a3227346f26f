/**
 * A new tenant: decide, reserve, record, in one transaction that holds the fleet's lock, so that any
 * number of concurrent creations sees each other's reservations and none overfills a cell.
 */
import type { z } from "zod";
import type { createTenantSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { defaultKeyspace, type KeyspaceName } from "../../contract/ids.ts";
import { tenantKey } from "../../contract/placement-key.ts";
import { type Candidate, decideRoom, firstNo } from "../core/filters.ts";
import type { KeyspaceView } from "../core/fleet.ts";
import { onePlan } from "../core/ops/machine.ts";
import { placeTenant } from "../core/place.ts";
import { readCells } from "../store/fleet-store.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { findContainer, insertPending, type PlacementRow, reserve } from "../store/placements.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { isSpent } from "../store/tenant-end.ts";
import { findTenant, insertTenant } from "../store/tenants.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireAdoptionAllows } from "./adoption-gate.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";
import { tenantDeleted } from "./tenant-life.ts";

type Wanted = z.output<typeof createTenantSchema>;

export async function createTenant(
  context: ApiContext,
  work: Work,
  wanted: Wanted,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const name = wanted.keyspace ?? defaultKeyspace;
  const keyspace = await requireKeyspace(tx, name);
  if ((await findTenant(tx, wanted.id)) !== undefined) {
    throw new CellError("TENANT_EXISTS", `The tenant ${wanted.id} exists.`, {
      nextSteps: [`cellctl tenant get ${wanted.id}`],
    });
  }
  if (await isSpent(tx, wanted.id)) throw tenantDeleted(wanted.id);
  if (wanted.cell !== undefined) await requireCell(tx, wanted.cell);
  return keyspace.strategy === "directory"
    ? createInDirectory(context, work, wanted, name)
    : createInContainer(context, work, wanted, { name, keyspace });
}

const candidate = (wanted: Wanted): Candidate => ({
  tenant: wanted.id,
  tier: wanted.tier,
  region: wanted.region ?? null,
  bytes: wanted.size.bytes,
  rps: wanted.size.rps,
  cell: wanted.cell ?? null,
});

async function createInDirectory(
  context: ApiContext,
  work: Work,
  wanted: Wanted,
  name: KeyspaceName,
): Promise<Answer> {
  const { tx } = work;
  const cells = await readCells(tx);
  requireAdoptionAllows(cells, [wanted.cell]);
  const placed = placeTenant(cells, candidate(wanted));
  if (placed.kind === "blocked") throw exhausted(wanted, placed.text);
  const plan = onePlan("tenant.create", [
    { action: "place", object: placed.cell, text: placed.text },
    { action: "publish", object: "routers", text: "wait until all live routers serve it" },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  const key = tenantKey(name, wanted.id);
  await work.record(null, { ...declared(wanted), keyspace: name, cell: placed.cell, key });
  const id = freshOpId(context, work);
  const revision = await changeRouting(tx, { config: false });
  await reserve(tx, placed.cell, loadOf(wanted));
  const row = { key, keyspace: name, kind: "tenant", value: wanted.id, cell: placed.cell } as const;
  await insertPending(tx, [{ ...row, op: id, revision, epochMin: 1 }]);
  await insertTenant(tx, { ...columns(wanted, name), placementKey: key });
  return accept(work, {
    id,
    kind: "tenant.create",
    object: wanted.id,
    plan,
    input: { keyspace: name, cell: placed.cell, key },
    headline: `placed in ${placed.cell}; waiting until it applies the placement`,
  });
}

/** The container is placed already; the tenant takes room there and is served at once. */
async function createInContainer(
  context: ApiContext,
  work: Work,
  wanted: Wanted,
  into: { readonly name: KeyspaceName; readonly keyspace: KeyspaceView },
): Promise<Answer> {
  const { tx } = work;
  const container = await findContainer(tx, into.keyspace, into.name, wanted.id);
  if (container === undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `The keyspace ${into.name} has no container for ${wanted.id}.`,
    );
  }
  requireSameCell(wanted, container);
  if (container.state !== "active") {
    throw new CellError(
      "STATE_CONFLICT",
      `${container.key} is ${container.state}, not active yet.`,
      {
        nextSteps: [`cellctl keyspace get ${into.name}`, "cellctl op ls"],
      },
    );
  }
  const cells = await readCells(tx);
  const cell = cells.find(({ id }) => id === container.cell);
  const obstacle = cell === undefined ? undefined : firstNo(decideRoom(cell, candidate(wanted)));
  if (obstacle !== undefined) throw exhausted(wanted, `${container.cell}: ${obstacle.text}.`);
  const plan = onePlan("tenant.create", [
    {
      action: "place",
      object: container.cell,
      text: `${container.key} belongs to ${container.cell}, so the tenant does`,
    },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(null, { ...declared(wanted), keyspace: into.name, cell: container.cell });
  await reserve(tx, container.cell, loadOf(wanted));
  await insertTenant(tx, { ...columns(wanted, into.name), placementKey: container.key });
  const id = freshOpId(context, work);
  return accept(work, {
    id,
    kind: "tenant.create",
    object: wanted.id,
    plan,
    input: { keyspace: into.name, cell: container.cell, key: container.key },
    headline: `served by ${container.cell}, which owns ${container.key}`,
    done: true,
  });
}

function requireSameCell(wanted: Wanted, container: PlacementRow): void {
  if (wanted.cell === undefined || wanted.cell === container.cell) return;
  throw new CellError(
    "STATE_CONFLICT",
    `${wanted.id} belongs to ${container.key}, which ${container.cell} owns; it cannot begin in ${wanted.cell}.`,
    {
      nextSteps: [
        `cellctl tenant create ${wanted.id} --keyspace ${container.keyspace}   (served by ${container.cell})`,
      ],
    },
  );
}

const loadOf = (wanted: Wanted) => ({
  tenants: 1,
  bytes: wanted.size.bytes,
  rps: wanted.size.rps,
});

const declared = ({ id, tier, region, size, labels }: Wanted) => ({
  id,
  tier,
  region: region ?? null,
  size,
  labels,
});

const columns = (wanted: Wanted, keyspace: string) => ({
  id: wanted.id,
  keyspace,
  tier: wanted.tier,
  region: wanted.region ?? null,
  sizeBytes: wanted.size.bytes,
  sizeRps: wanted.size.rps,
  labels: wanted.labels,
});

const exhausted = (wanted: Wanted, text: string): CellError =>
  new CellError("CAPACITY_EXHAUSTED", text, {
    nextSteps: [`cellctl explain placement ${wanted.id}`, "cellctl cell ls"],
  });
