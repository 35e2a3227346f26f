/** Cells: list, read, create, and what is done to them. The API records; the leader's loop acts. */
import { eq } from "drizzle-orm";
import { destroyCellSchema } from "../../contract/adoption-api.ts";
import {
  acceptedSchema,
  type CellAction,
  cellActions,
  cellSchema,
  createCellSchema,
  dryRunSchema,
  intentSchema,
  list,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { overrideSafetySchema } from "../../contract/safety-api.ts";
import { actionStates, insteadOf } from "../core/cell-state.ts";
import type { CellView } from "../core/fleet.ts";
import { checkOwesNothing, owesSteps } from "../core/open-deletions.ts";
import { planCellAction } from "../core/ops/cell-action.ts";
import { agentSteps } from "../core/ops/cell-stage.ts";
import {
  adoptionGoesOn,
  checkAdoption,
  checkOwnsNothing,
  checkSafety,
  leavingCells,
} from "../core/safety.ts";
import { databaseNowMs } from "../store/database.ts";
import { failoverKind } from "../store/failover/read.ts";
import { findCell, listCells, openOpsMax, readCells } from "../store/fleet-store.ts";
import { requireNoMoveAt } from "../store/moves/motion.ts";
import { lastOpOn, openOpOn, openOps } from "../store/ops.ts";
import { ownedBy } from "../store/placements.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable } from "../store/schema.ts";
import { deletionsAwaiting } from "../store/tenant-end.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import { createCell } from "./create-cell.ts";
import { callOffDrain } from "./drain.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { requireSafe } from "./require-safe.ts";

const idParams = { id: cellIdSchema };

export function cellEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/cells",
      role: "viewer",
      tag: "cells",
      summary: "List cells, in order of id; retired ones too: ids are not reused.",
      query: pageQuery,
      answers: { 200: list(cellSchema) },
      serve: async ({ query }) => {
        const after = decodeCursor(query.cursor, "");
        const cells = await listCells(database.read, await databaseNowMs(database.read));
        // In the order of this comparison, not of the database's collation: the cursor uses it too.
        const rows = cells
          .filter(({ id }) => id > after)
          .sort((a, b) => (a.id < b.id ? -1 : 1))
          .slice(0, query.limit + 1);
        return { status: 200, body: page(rows, query.limit, ({ id }) => id) };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/cells/{id}",
      role: "viewer",
      tag: "cells",
      summary: "One cell.",
      params: idParams,
      answers: { 200: cellSchema },
      serve: async ({ path }) => {
        await requireCell(database.read, path.id);
        const nowMs = await databaseNowMs(database.read);
        return { status: 200, body: await findCell(database.read, nowMs, path.id) };
      },
    }),
    mutation(context, {
      method: "post",
      path: "/v1/cells",
      role: "operator",
      tag: "cells",
      summary: "Create a cell, or go on with one whose creation failed.",
      body: createCellSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "cell.create",
      object: ({ body }) => body.id,
      apply: (work, { body }) => createCell(context, work, body),
    }),
    ...cellActions
      .filter((action) => action !== "destroy")
      .map((action) => actionEndpoint(context, action)),
    mutation(context, {
      method: "post",
      path: "/v1/cells/{id}/destroy",
      role: "operator",
      tag: "cells",
      summary: summaries.destroy,
      params: idParams,
      body: destroyCellSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "cell.destroy",
      object: ({ path }) => path.id,
      apply: (work, { path, body: { storageRemoved, override = [] } }) =>
        actOnCell(context, work, { action: "destroy", id: path.id, storageRemoved, override }),
    }),
  ];
}

const summaries: Readonly<Record<CellAction, string>> = {
  cordon: "No new tenants; those that live here stay.",
  uncordon: "Open for new tenants again.",
  kill: "Crash its database and application at once (a drill).",
  stop: "Stop its processes in order.",
  start: "Start what is stopped or dead, on its own data.",
  destroy: "Retire an empty cell and remove its data.",
};

const actionEndpoint = (context: ApiContext, action: CellAction): Endpoint =>
  mutation(context, {
    method: "post",
    path: `/v1/cells/{id}/${action}`,
    role: "operator",
    tag: "cells",
    summary: summaries[action],
    params: idParams,
    body: intentSchema.extend({ override: overrideSafetySchema }),
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: `cell.${action}`,
    object: ({ path }) => path.id,
    apply: (work, { path, body: { override = [] } }) =>
      actOnCell(context, work, { action, id: path.id, storageRemoved: false, override }),
  });

async function actOnCell(
  context: ApiContext,
  work: Work,
  wanted: {
    readonly action: CellAction;
    readonly id: string;
    readonly storageRemoved: boolean;
    /** Safety rules to go past, by name. */
    readonly override: readonly string[];
  },
): Promise<Answer> {
  const { action, id, storageRemoved, override } = wanted;
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  if (cell.annex !== null) throw partOfHost(action, cell.id, cell.annex.host);
  const calledOff =
    action === "uncordon" && cell.state === "draining"
      ? await callOffDrain(context, work, cell)
      : undefined;
  if (calledOff !== undefined) return calledOff;
  await requirePossible(work, action, cell);
  await requireSafe(work, { kind: `cell.${action}`, cell: id }, override);
  // One cell stays, whatever the limits of the rules are set to.
  const leaving = leavingCells(await openOps(tx, openOpsMax));
  const refusal = checkSafety(action, cell, await readCells(tx), leaving);
  if (refusal !== undefined) {
    throw safety(
      refusal.rule,
      `The rule ${refusal.rule}, which nobody may go past: ${refusal.text}`,
    );
  }
  const adoption = action === "uncordon" ? checkAdoption(cell) : undefined;
  if (adoption !== undefined) throw adoptionGoesOn(cell, adoption);
  if (action === "destroy") {
    await requireNoMoveAt(tx, id, "destroying it");
    await requireNothingOwed(work, cell, storageRemoved);
    await requireEmpty(work, cell, storageRemoved);
  }
  const plan = planCellAction(action, id);
  if (work.dryRun) return dryRunAnswer(plan);
  const goal = goals[action] ?? cell.state;
  const word = {
    ...(storageRemoved ? { storageRemoved } : {}),
    ...(override.length > 0 ? { override } : {}),
  };
  await work.record({ state: cell.state }, { state: goal, ...word });
  await tx.update(cellTable).set({ goal }).where(eq(cellTable.id, id));
  return accept(work, {
    id: freshOpId(context, work),
    kind: `cell.${action}`,
    object: id,
    plan,
    input: { cell: id, ...word },
    headline: `${action} of ${id} is recorded`,
  });
}

const goals = {
  cordon: "cordoned",
  uncordon: "active",
  destroy: "retired",
} as const satisfies Partial<Record<CellAction, string>> as Partial<
  Record<CellAction, "cordoned" | "active" | "retired">
>;

const partOfHost = (action: CellAction, annex: string, host: string): CellError =>
  new CellError(
    "STATE_CONFLICT",
    `${annex} is a standby in ${host}: it is started, stopped and removed with its host.`,
    { nextSteps: [`cellctl cell ${action} ${host}`] },
  );

async function requirePossible(work: Work, action: CellAction, cell: CellView): Promise<void> {
  // A cell that is failed over may come back, or be taken down once more, at any of its steps.
  const isProcesses = action === "start" || action === "stop" || action === "kill";
  // Nor does a salvage that only reads keep a cell from being started, for it to be read.
  const but = isProcesses ? [failoverKind, ...(action === "start" ? ["cell.salvage"] : [])] : [];
  const open = await openOpOn(work.tx, cell.id, "cell.", ...but);
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${cell.id} is running (${open.id}): ${open.headline}`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  const again = action === "destroy" && cell.state === "retired";
  if (again && (await lastOpOn(work.tx, cell.id, "cell."))?.state === "failed") return;
  if (!actionStates[action].includes(cell.state)) {
    throw new CellError(
      "STATE_CONFLICT",
      `${cell.id} is ${cell.state}; ${action} is not possible.`,
      {
        nextSteps: insteadOf(action, cell.id, cell.state),
        details: { state: cell.state, possibleIn: actionStates[action] },
      },
    );
  }
  const providerActs = action === "kill" || action === "stop" || action === "start";
  if (providerActs && cell.provider === "none") {
    throw new CellError(
      "STATE_CONFLICT",
      `${cell.id} has the provider none: its processes are run by hand, so ${action} them there.`,
    );
  }
}

async function requireNothingOwed(
  work: Work,
  cell: CellView,
  storageRemoved: boolean,
): Promise<void> {
  if (storageRemoved && cell.provider !== "none") {
    throw new CellError(
      "REQUEST_INVALID",
      `The provider ${cell.provider} removes the storage of ${cell.id}: nobody has to say that it is gone.`,
      { nextSteps: [`cellctl cell destroy ${cell.id}`] },
    );
  }
  const owes = checkOwesNothing(cell, await deletionsAwaiting(work.tx, cell.id), storageRemoved);
  if (owes !== undefined) throw safety(owes.rule, owes.text, owesSteps(cell.id));
}

async function requireEmpty(work: Work, cell: CellView, storageRemoved: boolean): Promise<void> {
  const refusal = checkOwnsNothing(cell, await ownedBy(work.tx, cell.id), storageRemoved);
  if (refusal === undefined) return;
  if (refusal.rule === "database-enforces") {
    throw safety(refusal.rule, refusal.text, [
      `${agentSteps(cell.id)[1]}   (it takes the database to pass-through)`,
      `where no agent can run any more: cellctl schema uninstall --force, then: cellctl cell destroy ${cell.id} --storage-removed`,
    ]);
  }
  throw safety(refusal.rule, refusal.text, [
    ...(cell.stage.adopted ? [`cellctl cell stage ${cell.id} pass-through`] : []),
    `cellctl tenant ls --cell ${cell.id}`,
  ]);
}

const safety = (rule: string, text: string, nextSteps = ["cellctl cell ls"]): CellError =>
  new CellError("SAFETY_RULE", text, { details: { rule }, nextSteps });
