/** Which operations the rules know, and what each is: a repair, something that can wait, a placement. Pure. */
import type { OperationClass } from "../../../contract/safety-api.ts";

/** By action, as the audit log calls it. What is not named here is asked nothing. */
export const operations = {
  "cell.cordon": "optional",
  "cell.uncordon": "repair",
  "cell.kill": "optional",
  "cell.stop": "optional",
  "cell.start": "repair",
  "cell.destroy": "optional",
  "cell.drain": "optional",
  "cell.wipe": "repair",
  "move.start": "optional",
  "rebalance.apply": "optional",
  "failover.planned": "optional",
  "failover.unplanned": "repair",
  "drill.run": "optional",
  "tenant.create": "placement",
} as const satisfies Readonly<Record<string, OperationClass>>;
export type OperationKind = keyof typeof operations;

/** What takes a cell from service, for good or for a while. */
export const takesAway: ReadonlySet<OperationKind> = new Set([
  "cell.kill",
  "cell.stop",
  "cell.destroy",
  "failover.planned",
]);

/**
 * What puts a whole cell to work: of these one at a time per cell and partner. A kill is not among them: it
 * is a drill, also of two cells that die together, which no rule would ever allow in earnest.
 */
export const occupiesCell: ReadonlySet<OperationKind> = new Set([
  "cell.stop",
  "cell.destroy",
  "cell.drain",
  "cell.wipe",
  "failover.planned",
  "drill.run",
]);

/**
 * What spends an error budget for the sake of balance or practice. A person who moves a tenant or drains a
 * cell is often the one who ends what burns it.
 */
export const spendsBudget: ReadonlySet<OperationKind> = new Set([
  "rebalance.apply",
  "failover.planned",
  "drill.run",
]);

/** What a switch can stop: everything but repairs. */
export const switchableKinds: readonly string[] = Object.entries(operations)
  .filter(([, one]) => one !== "repair")
  .map(([kind]) => kind);

/** Does `move.start` or `cell.*` name anything that a switch can stop? */
export const namesSwitchable = (pattern: string): boolean =>
  switchableKinds.some(
    (kind) => kind === pattern || (pattern.endsWith(".*") && kind.startsWith(pattern.slice(0, -1))),
  );

/** `cell.*` names all of them. */
export const isNamed = (patterns: readonly string[], kind: OperationKind): boolean =>
  patterns.length === 0 ||
  patterns.some((one) => one === kind || (one.endsWith(".*") && kind.startsWith(one.slice(0, -1))));
