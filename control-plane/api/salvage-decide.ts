/** Begins a salvage, and takes what was decided about its rows. */
import type { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { decideSalvageSchema } from "../../contract/salvage-api.ts";
import { canSalvage } from "../core/failover/salvage.ts";
import type { CellView } from "../core/fleet.ts";
import { onePlan } from "../core/ops/machine.ts";
import type { Reader } from "../store/database.ts";
import { type FailoverRow, findFailover } from "../store/failover/read.ts";
import { lastFailoverOf } from "../store/failover/report.ts";
import { countOpen, decideAll, insertSalvage, lastSalvage } from "../store/failover/salvage.ts";
import { findOp, insertOp, openOpOn } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

/** Throws CELL_UNKNOWN, FAILOVER_UNKNOWN, STATE_CONFLICT. */
export async function startSalvage(
  context: ApiContext,
  work: Work,
  cell: string,
  asked: string | undefined,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  requireRunning(await requireCell(tx, cell));
  const failover = await requireFailoverOf(tx, cell, asked);
  if (!canSalvage(failover.op.step)) {
    throw new CellError(
      "STATE_CONFLICT",
      `${failover.op.id} is at ${failover.op.step}: what ${cell} has can be compared when all its tenants have a home.`,
      { nextSteps: [`cellctl failover status ${failover.op.id}`] },
    );
  }
  await requireNoOther(tx, cell);
  const text = `read what ${cell} committed and nobody else has; nothing is changed anywhere`;
  const plan = onePlan("cell.salvage", [{ action: "read", object: cell, text }]);
  if (work.dryRun) return dryRunAnswer(plan);
  const id = freshOpId(context, work);
  await work.record(null, { failover: failover.op.id });
  const op = await insertOp(tx, {
    ...{ id, kind: "cell.salvage", object: cell, step: "reading", state: "running" },
    ...{ headline: `reading what only ${cell} has`, plan, input: { failover: failover.op.id } },
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: undefined,
  });
  await insertSalvage(tx, { op: id, cell, failover: failover.op.id });
  return {
    status: 202,
    body: { op, plan, next_steps: [`cellctl cell salvage ${cell} export -O FILE`] },
  };
}

/** Its databases are read: one that is known to be down would be waited for, and kept from being started. */
export function requireRunning({ id, provider, health, healthReason }: CellView): void {
  if (provider === "none" || health !== "down") return;
  throw new CellError(
    "STATE_CONFLICT",
    `${id} is down (${healthReason}): nothing of it can be read.`,
    {
      nextSteps: [`cellctl cell start ${id}`, `cellctl cell salvage ${id}`],
    },
  );
}

export async function requireFailoverOf(
  reader: Reader,
  cell: string,
  asked: string | undefined,
): Promise<FailoverRow> {
  const id = asked ?? (await lastFailoverOf(reader, cell))?.op;
  const found = id === undefined ? undefined : await findFailover(reader, id);
  if (found !== undefined && found.failover.cell === cell) return found;
  if (asked !== undefined) {
    throw new CellError("FAILOVER_UNKNOWN", `There is no failover ${asked} of ${cell}.`);
  }
  throw new CellError(
    "STATE_CONFLICT",
    `${cell} was never failed over: nothing of it is elsewhere.`,
    {
      nextSteps: [`cellctl cell get ${cell}`],
    },
  );
}

export async function requireNoOther(reader: Reader, cell: string): Promise<void> {
  const other = await openOpOn(reader, cell, "cell.", "cell.failover");
  if (other === undefined) return;
  throw new CellError("STATE_CONFLICT", `${other.id} (${other.kind}) of ${cell} is under way.`, {
    nextSteps: [`cellctl op watch ${other.id}`],
  });
}

/** Throws CELL_UNKNOWN, STATE_CONFLICT. */
export async function decideSalvage(
  context: ApiContext,
  work: Work,
  cell: string,
  asked: z.output<typeof decideSalvageSchema>,
): Promise<Answer> {
  const { tx } = work;
  const { decision, tenant, force } = asked;
  await lockNormalFleet(tx);
  await requireCell(tx, cell);
  const found = await lastSalvage(tx, cell);
  const read = found === undefined ? undefined : await findOp(tx, found.op);
  if (found === undefined || read?.state !== "done") {
    throw new CellError("STATE_CONFLICT", `No salvage of ${cell} is complete.`, {
      nextSteps: [
        read === undefined ? `cellctl cell salvage ${cell}` : `cellctl op watch ${read.id}`,
      ],
    });
  }
  await requireNoOther(tx, cell);
  const whose = tenant === undefined ? "all tenants" : `tenant ${tenant}`;
  const text = `${decision} the salvaged rows of ${whose}${force ? ", over what their homes have" : ""}`;
  const plan = onePlan("cell.salvage", [{ action: decision, object: cell, text }]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(
    { open: await countOpen(tx, found.op) },
    { salvage: found.op, decision, tenant, force },
  );
  const isApply = decision === "apply";
  const rows = isApply
    ? 0
    : await decideAll(tx, found.op, decision === "export" ? "exported" : "discarded", tenant);
  const op = await insertOp(tx, {
    ...{ id: freshOpId(context, work), kind: "cell.salvage-apply", object: cell, plan },
    ...(isApply
      ? ({ step: "applying", state: "running" } as const)
      : ({ step: "done", state: "done" } as const)),
    headline: isApply ? text : `${rows} rows of ${whose} are noted as ${decision}ed`,
    input: { salvage: found.op, decision, force, ...(tenant === undefined ? {} : { tenant }) },
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: undefined,
  });
  return { status: 202, body: { op, plan, next_steps: [`cellctl cell salvage ${cell} show`] } };
}
