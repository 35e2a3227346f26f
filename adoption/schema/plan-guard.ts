/**
 * Steps that put a table under the guard, or take it off: the pack's own list, statement by
 * statement, each waiting for its lock by itself. Pure.
 */
import { escapeLiteral } from "pg";
import type { ProtectStep } from "../../cell/store/protect.ts";
import type { AppTable } from "./app-catalog.ts";
import type { Step } from "./step.ts";
import { sqlName } from "./table-name.ts";
import type { TenantTable } from "./tenant-tables.ts";

const lockTexts = {
  none: "none that anybody waits for",
  "share-row-exclusive": "SHARE ROW EXCLUSIVE, for a moment: writes wait, reads go on",
  "access-exclusive": "ACCESS EXCLUSIVE, for a moment",
} as const;
const lockModes = {
  "share-row-exclusive": "share row exclusive",
  "access-exclusive": "access exclusive",
} as const;

/** `direction` says how it is taken back. */
export function guardSteps(
  facts: AppTable,
  steps: readonly ProtectStep[],
  direction: "on" | "off",
): Step[] {
  return steps.map((step, index) => {
    const base = {
      id: `${direction === "on" ? "protect" : "unprotect"} ${facts.name} ${index + 1}: ${step.what}`,
      kind: direction === "on" ? "protect" : "unprotect",
      object: facts.name,
      lock: lockTexts[step.lock],
      why: step.what,
      undo: `cellctl schema ${direction === "on" ? "uninstall" : "install"}`,
      sql: [`${step.sql};`],
      ...(step.waitFor === null ? {} : { waitFor: step.waitFor }),
    } as const;
    if (step.lock === "none") return { ...base, way: "ours" };
    return { ...base, way: "locked", hold: sqlName(facts), holdMode: lockModes[step.lock] };
  });
}

/** Where the pack is not there yet, or the column is not: what will be asked when it is. For people. */
export function laterStep({ facts, keyColumn, keyspace }: TenantTable): Step {
  const args = [facts.schema, facts.table, keyColumn, keyspace].map((arg) => escapeLiteral(arg));
  return {
    id: `protect ${facts.name}`,
    kind: "protect",
    object: facts.name,
    way: "ours",
    lock: "each statement for a moment: SHARE ROW EXCLUSIVE for triggers, ACCESS EXCLUSIVE for policies",
    why: "guard, commit check, visibility, TRUNCATE check and leased ids; the statements are told when the steps before have been done",
    undo: "cellctl schema uninstall",
    sql: [`select what, statement, lock_mode from cellfleet.protect_plan(${args.join(", ")});`],
  };
}

export const isLater = (step: Step): boolean =>
  step.kind === "protect" && step.id === `protect ${step.object}`;

/** Does anything of ours stand on it? */
export const bearsTraces = ({ triggers, policies, columns }: AppTable): boolean =>
  triggers.some(({ name }) => name.startsWith("zz_cellfleet_")) ||
  policies.some((name) => name.startsWith("cellfleet_")) ||
  columns.some(({ leased }) => leased);
