/**
 * How the leases of a cell end, as operators want it. It counts as manual from this transaction on, and as
 * timed only when its database has acknowledged that (core/lease-mode.ts).
 */
import { dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import type { LeaseMode } from "../../contract/lease-mode.ts";
import { leaseModeSetSchema, setLeaseModeSchema } from "../../contract/lease-mode-api.ts";
import { must } from "../../runtime/assert.ts";
import type { CellView } from "../core/fleet.ts";
import { isSettled } from "../core/lease-mode.ts";
import { onePlan } from "../core/ops/machine.ts";
import { recordEvents } from "../store/events.ts";
import { openFailoverOf } from "../store/failover/read.ts";
import { readCell } from "../store/fleet-store.ts";
import { setLeaseMode } from "../store/lease-mode.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer, Endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

export const leaseModeEndpoints = (context: ApiContext): readonly Endpoint[] => [
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/lease-mode",
    role: "operator",
    tag: "cells",
    summary: "How a cell's leases end: timed, or manual (nobody takes over before a power-off).",
    params: { id: cellIdSchema },
    body: setLeaseModeSchema,
    answers: { 200: leaseModeSetSchema.or(dryRunSchema) },
    action: "cell.lease-mode",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => changeLeaseMode(work, path.id, body.mode),
  }),
];

/** Throws CELL_UNKNOWN, STATE_CONFLICT, RECOVERING. */
async function changeLeaseMode(work: Work, id: string, mode: LeaseMode): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  await requireOwnWord(work, cell);
  if (work.dryRun) {
    const text = `leases of ${id} are ${cell.leaseMode.mode}, and are to be ${mode}`;
    const plan = onePlan("cell.lease-mode", [{ action: "lease-mode", object: id, text }]);
    return { status: 200, body: { plan, next_steps: [] } };
  }
  if (cell.leaseMode.mode === mode) return answer(cell);
  await work.record({ mode: cell.leaseMode.mode }, { mode });
  // Its agent waits for news of the routing log.
  await changeRouting(tx, { config: false });
  await setLeaseMode(tx, id, mode);
  await recordEvents(tx, [{ kind: "cell.lease-mode", object: id, text: texts[mode](id) }]);
  return answer(must(await readCell(tx, id), `cell ${id}`));
}

const texts: Readonly<Record<LeaseMode, (id: string) => string>> = {
  manual: (id) =>
    `Leases of ${id} are manual: it serves through any silence, and nobody takes over before somebody has seen it powered off.`,
  timed: (id) =>
    `Leases of ${id} are to end by themselves again; until it acknowledges that, it counts as manual.`,
};

async function requireOwnWord({ tx }: Work, cell: CellView): Promise<void> {
  const { id, annex, state } = cell;
  if (annex !== null) {
    throw new CellError("STATE_CONFLICT", `${id} is a part of ${annex.host}, as its leases are.`, {
      nextSteps: [`cellctl cell get ${annex.host}`],
    });
  }
  if (state === "retired") {
    throw new CellError("STATE_CONFLICT", `${id} is retired: it is granted no lease.`, {
      nextSteps: ["cellctl cell ls"],
    });
  }
  const open = await openFailoverOf(tx, id);
  if (open !== undefined) {
    // Its plan was decided by how its leases ended.
    throw new CellError("STATE_CONFLICT", `${open.failover.op} fails ${id} over.`, {
      nextSteps: [`cellctl failover status ${open.failover.op}`],
    });
  }
}

function answer({ id, leaseMode }: CellView): Answer {
  const settled = isSettled(leaseMode);
  const next_steps = settled ? [] : [`cellctl cell get ${id}`];
  return { status: 200, body: { id, mode: leaseMode.mode, settled, next_steps } };
}
