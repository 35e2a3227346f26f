/**
 * What an agent presents of several stores as the facts of one cell. Pure.
 *
 * Always true: what is told as applied, every store has applied; of what only grows in a database the
 * lowest is presented, so that one store which was set back in time is noticed (corrections A14). A
 * store that never had a grant joins the cell: it is not set back, and gets the next one. Which server
 * speaks for the cell is the first store's.
 */
import { createHash } from "node:crypto";
import type { CellStage } from "../../../contract/routing-table.ts";
import { cellStages } from "../../../contract/routing-table.ts";
import type { DatabaseFacts } from "../../store/facts.ts";

export type FactsOfStore = { readonly name: string; readonly facts: DatabaseFacts };

/** As the contract has it. */
const versionLengthMax = 64;

export function factsOfAll(all: readonly [FactsOfStore, ...FactsOfStore[]]): DatabaseFacts {
  const [{ facts: first }, ...others] = all;
  if (others.length === 0) return first;
  const each = all.map(({ facts }) => facts);
  const grants = each.map(({ grant }) => grant).filter((grant) => grant > 0);
  return {
    ...first,
    grant: grants.length === 0 ? 0 : Math.min(...grants),
    epochMax: Math.max(...each.map(({ epochMax }) => epochMax)),
    appliedRevision: Math.min(...each.map(({ appliedRevision }) => appliedRevision)),
    inRecovery: each.some(({ inRecovery }) => inRecovery),
    ...stageReached(each),
    wouldRefuse: sumOf(each.map(({ wouldRefuse }) => wouldRefuse)),
    guardedTables: each.reduce((sum, { guardedTables }) => sum + guardedTables, 0),
    schemaVersion: versionOf(all),
  };
}

/** Of the store that is furthest behind; of equals the one that refuses least: `enforce` is claimed last. */
function stageReached(each: readonly DatabaseFacts[]): {
  readonly stage: CellStage;
  readonly stageNumber: number;
} {
  const [behind] = each.toSorted(
    (a, b) =>
      a.stageNumber - b.stageNumber || cellStages.indexOf(a.stage) - cellStages.indexOf(b.stage),
  );
  return { stage: behind?.stage ?? "enforce", stageNumber: behind?.stageNumber ?? 0 };
}

export function sumOf(
  all: readonly Readonly<Record<string, number>>[],
): Readonly<Record<string, number>> {
  const sums = new Map<string, number>();
  for (const [name, count] of all.flatMap((one) => Object.entries(one))) {
    sums.set(name, (sums.get(name) ?? 0) + count);
  }
  return Object.fromEntries(sums);
}

/** `default=12,billing=7`; null while no store was told one. Too long a text is told by its digest. */
function versionOf(all: readonly FactsOfStore[]): string | null {
  if (all.every(({ facts }) => facts.schemaVersion === null)) return null;
  const text = all
    .map(({ name, facts }) => `${name || "default"}=${facts.schemaVersion ?? ""}`)
    .join(",");
  if (text.length <= versionLengthMax) return text;
  return createHash("sha256").update(text).digest("hex");
}
