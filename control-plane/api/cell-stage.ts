/**
 * Adopting what runs already as a cell, and taking it from stage to stage. Adopting copies nothing and
 * asks nothing of the application: only the routers learn where it is.
 */
import { and, eq, ne } from "drizzle-orm";
import {
  type AdoptCell,
  adoptCellSchema,
  stageCellSchema,
  stageDryRunSchema,
} from "../../contract/adoption-api.ts";
import { acceptedSchema, dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema, defaultKeyspace } from "../../contract/ids.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { CellView } from "../core/fleet.ts";
import {
  agentSteps,
  planCellAdopt,
  planCellStage,
  unmetSteps,
  unmetText,
} from "../core/ops/cell-stage.ts";
import { unmet } from "../core/stage.ts";
import type { Tx } from "../store/database.ts";
import { readCells, readHoldings } from "../store/fleet-store.ts";
import { bornWith } from "../store/lease-mode.ts";
import { requireNoMoveAt } from "../store/moves/motion.ts";
import { openOpOn } from "../store/ops.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable, keyspace } from "../store/schema.ts";
import { readConditions } from "../store/stage-effect.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer, Endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

export function cellStageEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    mutation(context, {
      method: "post",
      path: "/v1/cells/adopt",
      role: "operator",
      tag: "cells",
      summary: "Register a running application and its database as a cell, in stage pass-through.",
      body: adoptCellSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "cell.adopt",
      object: ({ body }) => body.id,
      apply: (work, { body }) => adoptCell(context, work, body),
    }),
    mutation(context, {
      method: "post",
      path: "/v1/cells/{id}/stage",
      role: "operator",
      tag: "cells",
      summary: "Take an adopted cell to a stage: pass-through, observe or enforce.",
      params: { id: cellIdSchema },
      body: stageCellSchema,
      answers: { 200: stageDryRunSchema, 202: acceptedSchema },
      action: "cell.stage",
      object: ({ path }) => path.id,
      apply: (work, { path, body }) => stageCell(context, work, path.id, body),
    }),
  ];
}

async function adoptCell(context: ApiContext, work: Work, wanted: AdoptCell): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const services = servicesOf(wanted);
  await requireFree(tx, wanted.id);
  await requireAlone(tx, wanted.id);
  const plan = planCellAdopt(wanted.id, wanted.guardMode, wanted.observe);
  const nextSteps = wanted.observe ? agentSteps(wanted.id) : [];
  if (work.dryRun) return dryRunAnswer(plan, nextSteps);
  const columns = {
    ...rowOf(wanted),
    services,
    stage: "pass-through" as CellStage,
    stageGoal: "pass-through" as CellStage,
    stageApplied: "pass-through" as CellStage,
    stageNumber: 1,
    ...bornWith(context.settings.leaseMode ?? "timed"),
  };
  await work.record(null, { ...columns, guardMode: wanted.guardMode });
  const revision = await changeRouting(tx, { config: true });
  await tx.insert(cellTable).values(columns);
  await tx
    .update(keyspace)
    .set({ guardMode: wanted.guardMode })
    .where(and(eq(keyspace.name, defaultKeyspace), ne(keyspace.guardMode, wanted.guardMode)));
  return accept(work, {
    id: freshOpId(context, work),
    kind: "cell.adopt",
    object: wanted.id,
    plan,
    input: {
      cell: wanted.id,
      from: "pass-through",
      to: wanted.observe ? "observe" : "pass-through",
    },
    revision,
    headline: `${wanted.id} is adopted; telling the routers`,
    nextSteps: wanted.observe ? nextSteps : [`cellctl cell stage ${wanted.id} observe`],
  });
}

const rowOf = (wanted: AdoptCell) => ({
  id: wanted.id,
  state: "active" as const,
  goal: "active" as const,
  health: "unknown" as const,
  healthReason: "pass-through: nothing of ours runs there",
  region: wanted.region,
  failureDomain: wanted.failureDomain ?? wanted.region,
  tiers: wanted.tiers,
  dedicated: false,
  provider: "none",
  capacityTenants: wanted.capacity.tenants,
  capacityBytes: wanted.capacity.bytes,
  capacityRps: wanted.capacity.rps,
  maxTenantShare: wanted.capacity.maxTenantShare,
  stores: wanted.stores,
  adopted: true,
});

function servicesOf({ endpoints, services = {} }: AdoptCell): NonNullable<AdoptCell["services"]> {
  const all = {
    ...(endpoints === undefined ? {} : { [defaultService]: { endpoints } }),
    ...services,
  };
  if (Object.keys(all).length > 0) return all;
  throw new CellError("VALIDATION_FAILED", "endpoints: say where the application listens", {
    nextSteps: ["cellctl cell adopt ID --endpoint http://HOST:PORT --database-url-ref REF"],
  });
}

async function requireFree(tx: Tx, id: string): Promise<void> {
  const existing = (await readCells(tx)).find((cell) => cell.id === id);
  if (existing === undefined) return;
  const spent = existing.state === "retired" ? "; its id is spent" : "";
  throw new CellError("CELL_EXISTS", `The cell ${id} exists and is ${existing.state}${spent}.`, {
    nextSteps: existing.stage.adopted
      ? [`cellctl cell get ${id}`, `cellctl cell stage ${id} observe`]
      : [`cellctl cell get ${id}`],
  });
}

/** With a second owner a request could be served, and a row written, in the wrong place. */
async function requireAlone(tx: Tx, id: string): Promise<void> {
  const cells = await readCells(tx);
  const adopting = cells[0]?.adopting ?? null;
  if (adopting !== null) {
    throw oneAdopted(`${adopting} is being adopted; one cell of a fleet at a time is.`, [
      `cellctl cell get ${adopting}`,
      `cellctl cell stage ${adopting} enforce`,
    ]);
  }
  const holdings = await readHoldings(tx);
  const owners = cells.filter(
    ({ id: other, state }) => state !== "retired" && (holdings.get(other)?.keys ?? 0) > 0,
  );
  if (owners.length === 0) return;
  const names = owners.map(
    ({ id: other }) => `${other} owns ${holdings.get(other)?.keys ?? 0} placements`,
  );
  throw oneAdopted(
    `${names.join(", ")}. ${id} would take every request while nothing is refused, so it can only be adopted in a fleet that owns nothing yet.`,
    ["cellctl cell ls", "cellctl tenant ls"],
  );
}

const oneAdopted = (text: string, nextSteps: readonly string[]): CellError =>
  new CellError("SAFETY_RULE", text, { details: { rule: "one-adopted-cell" }, nextSteps });

async function stageCell(
  context: ApiContext,
  work: Work,
  id: string,
  wanted: { readonly stage: CellStage; readonly acceptRefusals: boolean },
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  const { stage: to, acceptRefusals } = wanted;
  await requireStageable(tx, cell, to);
  // A fence holds only where writes are refused.
  if (to !== "enforce") await requireNoMoveAt(tx, id, `stage ${to}`);
  const from = cell.stage.now;
  const conditions = await readConditions(tx, id, { to, acceptRefusals });
  const plan = planCellStage(id, from, to, conditions);
  const missing = unmet(conditions);
  const nextSteps = missing.length > 0 ? unmetSteps(id, to, missing) : [];
  if (work.dryRun) return { status: 200, body: { plan, next_steps: nextSteps, conditions } };
  if (missing.length > 0) {
    throw new CellError("SAFETY_RULE", unmetText(to, id, missing), {
      details: { rule: ruleOf(missing), conditions },
      nextSteps,
    });
  }
  await work.record({ stage: from }, { stage: to, acceptRefusals, conditions });
  return accept(work, {
    id: freshOpId(context, work),
    kind: "cell.stage",
    object: id,
    plan,
    input: { cell: id, from, to, acceptRefusals },
    headline: `${id} is to go from ${from} to ${to}`,
  });
}

const ruleOf = (missing: ReadonlyArray<{ readonly name: string }>): string =>
  missing.some(({ name }) => name === "sole-owner") ? "one-adopted-cell" : "stage-conditions";

async function requireStageable(tx: Tx, cell: CellView, to: CellStage): Promise<void> {
  const { id, stage, state } = cell;
  if (!stage.adopted || state === "retired") {
    const why = state === "retired" ? "is retired" : "was not adopted: it enforces from its birth";
    throw new CellError("STATE_CONFLICT", `${id} ${why}; it has no stages.`, {
      nextSteps: ["cellctl cell ls"],
    });
  }
  const open = await openOpOn(tx, id, "cell.");
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${id} is running (${open.id}): ${open.headline}`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  // A stage that was left half way, an outward one that its agent missed, may be asked for again.
  if (stage.now === to && stage.goal === to) {
    throw new CellError("STATE_CONFLICT", `${id} is in stage ${to} already.`, {
      nextSteps: [`cellctl cell get ${id}`],
    });
  }
  if (stage.now === "pass-through" && to === "enforce") {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is in stage pass-through: what enforce would refuse has not been counted yet.`,
      { nextSteps: [`cellctl cell stage ${id} observe`] },
    );
  }
}
