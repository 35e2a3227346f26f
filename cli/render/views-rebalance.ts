/** A plan of a rebalance, for people: what it would come to, and why each move. */
import type { RebalancePlan } from "../../contract/rebalance-api.ts";
import type { View } from "./output.ts";

const shownMax = 30;
/** Three digits, however small. */
const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`;

export const rebalanceView: View<RebalancePlan> = {
  id: ({ revision }) => String(revision),
  columns: [
    { head: "MOVES", cell: ({ moves }) => String(moves.length) },
    { head: "PEAK", cell: ({ summary }) => percent(summary.peakBefore) },
    { head: "THEN", cell: ({ summary }) => percent(summary.peakAfter) },
  ],
  details: ({ summary, cells, moves, skipped, whatIf, expiresAt, revision }) => [
    ["plan", summary.text],
    ["best there can be", `${percent(summary.peakBound)} in the fullest cell`],
    ["made from", `revision ${revision}; good until ${expiresAt}`],
    ...(whatIf ? [["what if", "this plan shows, and is not carried out"] as const] : []),
    [
      "cells",
      cells.map(({ cell, before, after }) => `${cell}  ${percent(before)} -> ${percent(after)}`),
    ],
    [
      "moves",
      cut(moves.map(({ key, from, to, why, text }) => `${key}  ${from} -> ${to}  ${why}: ${text}`)),
    ],
    ["left alone", cut(skipped.map(({ object, text }) => `${object}: ${text}`))],
  ],
};

const cut = (lines: readonly string[]): readonly string[] =>
  lines.length <= shownMax
    ? lines
    : [...lines.slice(0, shownMax), `and ${lines.length - shownMax} more (-o json shows all)`];
