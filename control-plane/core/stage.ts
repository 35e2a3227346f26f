/**
 * May an adopted cell go on to a stage, or back? Pure conditions, each with a sentence; the API shows
 * them with the plan, and the operation asks them again at each of its commits.
 *
 * What must always be true: while a cell is not in `enforce` it is the only owner of the fleet. With
 * one owner nothing can be written in a wrong place, although nothing is refused.
 */
import type { UnclassedTables } from "../../contract/cell-protocol.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import type { CellView, Closed, Holding, RouterView, StageView } from "./fleet.ts";
import { missingToServe } from "./ops/cell-create.ts";

/** Counters of what would be refused must have stood still for this long before it is refused. */
export const quietMs = 60_000;

export type StageFacts = {
  readonly cell: CellView;
  readonly cells: readonly CellView[];
  readonly routers: readonly RouterView[];
  readonly holdings: ReadonlyMap<string, Holding>;
  readonly closed: Closed;
  readonly nowMs: number;
};

export type Condition = { readonly name: string; readonly ok: boolean; readonly text: string };

const ranks: Readonly<Record<CellStage, number>> = { "pass-through": 0, observe: 1, enforce: 2 };

export const isInward = (from: CellStage, to: CellStage): boolean => ranks[to] > ranks[from];

/** Routers, agents and database: only what all three are in holds. What was not adopted is told no stage. */
const enforces = (stage: StageView): boolean =>
  stage.now === "enforce" &&
  stage.goal === "enforce" &&
  (!stage.adopted || hasApplied(stage, "enforce"));

/** Its database is there, by the change that was asked for last: nothing older can change that. */
export const hasApplied = (stage: StageView, at: CellStage): boolean =>
  stage.applied === at && stage.isCurrent;

/** The cell whose adoption goes on, if there is one: not all of it is in `enforce`, its database included. */
export const adoptingCell = (
  cells: ReadonlyArray<Pick<CellView, "id" | "state" | "stage">>,
): string | null =>
  cells.find(({ state, stage }) => state !== "retired" && !enforces(stage))?.id ?? null;

export function stageConditions(
  facts: StageFacts,
  to: CellStage,
  acceptRefusals: boolean,
): readonly Condition[] {
  const { cell } = facts;
  const { now, goal, applied } = cell.stage;
  const leaves = to !== "enforce" && [now, goal, applied].includes("enforce");
  const outward = leaves ? [soleOwner(facts), noDeletion(facts), noSuspension(facts)] : [];
  if (!isInward(now, to)) return outward;
  if (to !== "enforce") return [...outward, agentServes(facts)];
  return [
    agentServes(facts),
    guarded(facts),
    covered(facts),
    placed(facts, acceptRefusals),
    quiet(facts, acceptRefusals),
  ];
}

export const unmet = (conditions: readonly Condition[]): readonly Condition[] =>
  conditions.filter(({ ok }) => !ok);

function agentServes({ cell, nowMs }: StageFacts): Condition {
  const missing = missingToServe(cell, nowMs);
  return missing === undefined
    ? { name: "agent", ok: true, text: `the agent of ${cell.id} is healthy and holds the lease` }
    : { name: "agent", ok: false, text: `${cell.id} is not ready: ${missing}` };
}

function guarded({ cell }: StageFacts): Condition {
  const tables = cell.stage.guardedTables;
  const text =
    tables > 0
      ? `${tables} ${tables === 1 ? "table is" : "tables are"} under the guard`
      : "no table is under the guard yet";
  return { name: "guard", ok: tables > 0, text };
}

/** A table that nobody classed is not moved, not fenced, and missed by nobody until it is too late. */
function covered({ cell }: StageFacts): Condition {
  const { unclassed } = cell.stage;
  const name = "coverage";
  if (unclassed === null) {
    const text = `the agent of ${cell.id} has not told yet which tables its manifest forgets`;
    return { name, ok: false, text };
  }
  const { count } = unclassed;
  const text =
    count === 0
      ? "every table is classed in the manifest, and guarded if it is a tenant's"
      : `${unclassedText(unclassed)}: guard, move and standby would pass ${count === 1 ? "it" : "them"} by`;
  return { name, ok: count === 0, text };
}

/** `2 tables are neither guarded nor classed in the manifest (public.a, public.b)` */
export function unclassedText({ count, names }: UnclassedTables): string {
  const more = count > names.length ? `, and ${count - names.length} more` : "";
  const tables = count === 1 ? "1 table is" : `${count} tables are`;
  return `${tables} neither guarded nor classed in the manifest (${names.join(", ")}${more})`;
}

function placed({ cell, holdings }: StageFacts, accept: boolean): Condition {
  const { keys, waiting } = holdings.get(cell.id) ?? { keys: 0, waiting: 0 };
  if (waiting > 0) {
    const text = `${waiting} of ${keys} placements of ${cell.id} are not active there yet`;
    return { name: "placements", ok: false, text };
  }
  if (keys > 0) {
    return { name: "placements", ok: true, text: `all ${keys} placements are active there` };
  }
  const text = `no tenant is placed in ${cell.id}: every request would be refused`;
  return { name: "placements", ok: accept, text: accept ? `${text} (accepted)` : text };
}

function quiet({ cell, routers, nowMs }: StageFacts, accept: boolean): Condition {
  const { stage } = cell;
  const lastMs = Math.max(stage.refusedAtMs, ...routers.map(({ refusedAtMs }) => refusedAtMs));
  const stillMs = nowMs - Math.max(stage.sinceMs, lastMs);
  const ok = stage.now === "observe" && stillMs >= quietMs;
  const text = quietText(stage.now, lastMs >= stage.sinceMs && lastMs > 0, Math.max(0, stillMs));
  return { name: "refusals", ok: ok || accept, text: ok || !accept ? text : `${text} (accepted)` };
}

function quietText(now: CellStage, counted: boolean, stillMs: number): string {
  if (now !== "observe") return `nothing has been counted: the cell is in stage ${now}`;
  const seconds = Math.floor(stillMs / 1000);
  return counted
    ? `the last request that would have been refused came ${seconds} s ago; ${quietMs / 1000} s are asked for`
    : `nothing would have been refused for ${seconds} s; ${quietMs / 1000} s are asked for`;
}

function soleOwner({ cell, cells, holdings }: StageFacts): Condition {
  const others = cells.filter(
    ({ id, state }) => id !== cell.id && state !== "retired" && (holdings.get(id)?.keys ?? 0) > 0,
  );
  const text =
    others.length === 0
      ? "no other cell owns anything"
      : `${others.map(({ id }) => `${id} owns ${holdings.get(id)?.keys ?? 0} placements`).join(", ")}; while nothing is refused, one cell must own all`;
  return { name: "sole-owner", ok: others.length === 0, text };
}

/** Rows that are still to be removed would be written anew: nothing refuses their tenant any more. */
function noDeletion({ closed: { deletions } }: StageFacts): Condition {
  const goOn = deletions === 1 ? "deletion goes on" : "deletions go on";
  const text =
    deletions === 0
      ? "no deletion goes on"
      : `${deletions} ${goOn}, or a cell has not confirmed its purge: outside of enforce the tenant could be written again`;
  return { name: "deletions", ok: deletions === 0, text };
}

/** A suspension is a refusal, and outside of `enforce` nothing is refused. */
function noSuspension({ closed: { suspended } }: StageFacts): Condition {
  const are = suspended === 1 ? "1 tenant is" : `${suspended} tenants are`;
  const text =
    suspended === 0
      ? "nobody is suspended"
      : `${are} suspended: outside of enforce a suspension does not hold`;
  return { name: "suspensions", ok: suspended === 0, text };
}
