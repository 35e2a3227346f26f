/**
 * Lets a cell that was failed over be wiped, where nothing is lost by it that somebody has not given up by
 * name: rows that were not decided about, and keys of which it has the only copy.
 */
import { and, eq, inArray, isNotNull } from "drizzle-orm";
import { CellError } from "../../contract/errors.ts";
import { canWipe } from "../core/failover/salvage.ts";
import { onePlan } from "../core/ops/machine.ts";
import type { Tx } from "../store/database.ts";
import { movesFrom } from "../store/emptying.ts";
import { countOpen, lastSalvage } from "../store/failover/salvage.ts";
import { countOwned } from "../store/failover/stranded.ts";
import { findOp, insertOp } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable, placement } from "../store/schema.ts";
import { dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";
import { requireFailoverOf, requireNoOther } from "./salvage-decide.ts";

/** Throws CELL_UNKNOWN, STATE_CONFLICT, SALVAGE_UNFIT, PROVIDER_FAILED, VALIDATION_FAILED. */
export async function wipeCell(
  context: ApiContext,
  work: Work,
  id: string,
  discardUnsalvaged: boolean,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  const { op: failover } = await requireFailoverOf(tx, id, undefined);
  if (cell.state !== "quarantined" || !cell.revoking || !canWipe(failover.step)) {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is ${cell.state}, and ${failover.id} is at ${failover.step}: only a cell whose tenants all went elsewhere is wiped.`,
      { nextSteps: [`cellctl failover status ${failover.id}`] },
    );
  }
  await requireNoOther(tx, id);
  await requireServesNobody(tx, id);
  if (cell.provider === "none") {
    throw new CellError(
      "PROVIDER_FAILED",
      `No provider runs ${id}: nobody but its operator can empty it.`,
      {
        nextSteps: [`cellctl cell destroy ${id} --storage-removed`, "cellctl cell create NEW-ID"],
      },
    );
  }
  const lost = await unsalvaged(tx, id, failover.id);
  if (lost !== undefined) requireGivenUp(work, id, lost, discardUnsalvaged);
  await requireNobodyLeaves(tx, id);
  const steps = [
    { action: "destroy", object: id, text: "its processes and its data are removed" },
    { action: "create", object: id, text: "an empty database of the same id takes their place" },
    { action: "let back", object: id, text: "it is granted leases and takes tenants again" },
  ];
  const plan = onePlan("cell.wipe", steps);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(
    { state: cell.state, unsalvaged: lost?.text ?? "nothing" },
    { state: "active" },
  );
  const op = await insertOp(tx, {
    ...{ id: freshOpId(context, work), kind: "cell.wipe", object: id, plan },
    ...{ step: "destroying", state: "running", headline: `${id} is being destroyed` },
    ...{ input: { failover: failover.id }, actor: work.actor.name, reason: work.reason },
    ...{ revision: null, nowMs: work.nowMs, deadlineMs: undefined },
  });
  return { status: 202, body: { op, plan, next_steps: [`cellctl failover restore ${id}`] } };
}

type Unsalvaged = { readonly what: "keys" | "rows"; readonly text: string };

const waysOf = (id: string, { what }: Unsalvaged): string[] =>
  what === "keys"
    ? [`cellctl cell salvage ${id} adopt`, `cellctl move ls --cell ${id}`]
    : [
        `cellctl cell salvage ${id}`,
        `cellctl cell salvage ${id} apply`,
        `cellctl cell salvage ${id} export -O FILE`,
      ];

function requireGivenUp(
  work: Work,
  id: string,
  lost: Unsalvaged,
  discardUnsalvaged: boolean,
): void {
  if (!discardUnsalvaged) {
    throw new CellError("SALVAGE_UNFIT", `${lost.text} Nothing was wiped.`, {
      nextSteps: [
        ...waysOf(id, lost),
        `cellctl cell wipe ${id} --discard-unsalvaged --reason TEXT`,
      ],
    });
  }
  if (work.reason === "") {
    throw new CellError("VALIDATION_FAILED", "reason: say why what was not salvaged is given up");
  }
}

/** What would be lost; undefined: nothing. */
async function unsalvaged(tx: Tx, id: string, failover: string): Promise<Unsalvaged | undefined> {
  const only = await countOwned(tx, id);
  if (only > 0) {
    const text = `${id} has the only copy of ${only} keys that no partner could take over.`;
    return { what: "keys", text };
  }
  const found = await lastSalvage(tx, id, failover);
  const read = found === undefined ? undefined : await findOp(tx, found.op);
  if (found === undefined || read?.state !== "done") {
    return { what: "rows", text: `What ${id} committed and nobody else has was not salvaged.` };
  }
  const open = await countOpen(tx, found.op);
  if (open === 0) return undefined;
  return { what: "rows", text: `Nobody has decided about ${open} rows that only ${id} has.` };
}

/** Until a move from it is over, its rows are the way back. */
async function requireNobodyLeaves(tx: Tx, id: string): Promise<void> {
  const [first] = await movesFrom(tx, id, "");
  if (first === undefined) return;
  throw new CellError("STATE_CONFLICT", `Keys still move out of ${id} (${first}).`, {
    nextSteps: [`cellctl move watch ${first}`],
  });
}

/** Its server may host annexes that serve other cells' tenants. */
async function requireServesNobody(tx: Tx, id: string): Promise<void> {
  const annexes = tx
    .select({ id: cellTable.id })
    .from(cellTable)
    .where(and(eq(cellTable.annexHost, id), isNotNull(cellTable.annexOrigin)));
  const served = await tx.$count(
    placement,
    and(inArray(placement.cell, annexes), eq(placement.deleted, false)),
  );
  if (served === 0) return;
  throw new CellError("STATE_CONFLICT", `Standbys in ${id} serve ${served} keys of other cells.`, {
    nextSteps: ["cellctl standby ls", `cellctl cell get ${id}`],
  });
}
