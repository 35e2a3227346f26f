/**
 * A report is made again when a router that was cut off or slow hands in its list after all.
 *
 * What must always be true: what was named lost stays named, though somebody may have brought it back since
 * by a salvage; a report in which nothing is new stays as it is.
 */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import { type RpoReport, rpoReportSchema } from "../../../contract/failover-api.ts";
import type { Finding, Suspect } from "./rpo-facts.ts";

const nameOf = ({ requestId, key, method, path, atMs }: AckedWrite): string =>
  [requestId, key, method, path, atMs].join(" ");

/** What looking it up came to counts only for writes that no earlier report has named as lost. */
export function keepLost(
  before: RpoReport | null,
  findingOf: (suspect: Suspect) => Finding,
): (suspect: Suspect) => Finding {
  const lost = new Set(before?.tenants.flatMap((one) => one.lost.map(nameOf)));
  return (suspect) => (lost.has(nameOf(suspect.write)) ? "absent" : findingOf(suspect));
}

export function amended(before: RpoReport | null, made: RpoReport, nowMs: number): RpoReport {
  if (before === null) return made;
  const { revision, amendedAt } = before;
  if (textOf({ ...made, revision, amendedAt }) === textOf(before)) return before;
  return { ...made, revision: revision + 1, amendedAt: new Date(nowMs).toISOString() };
}

/** Databases keep fields in another order. */
const textOf = (report: RpoReport): string => JSON.stringify(rpoReportSchema.parse(report));

export function amendmentText(before: RpoReport, after: RpoReport): string {
  const { lost, unknown } = after.totals;
  const grown = `${count(lost - before.totals.lost)} lost, ${count(unknown - before.totals.unknown)} unknown`;
  const method =
    before.method === after.method
      ? `still ${after.method}`
      : `${before.method} became ${after.method}`;
  return `${after.failover}: the report of what was lost is amended (revision ${after.revision}): ${grown}; ${lost} lost and ${unknown} unknown in all, ${method}. cellctl failover report ${after.failover}`;
}

const count = (change: number): string => (change < 0 ? `${-change} fewer` : `${change} more`);
