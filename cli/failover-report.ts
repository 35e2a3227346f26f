/** How the report of what a failover lost looks to people. Programs read the API's own object. */
import type { RpoReport } from "../contract/failover-api.ts";
import type { View } from "./render/output.ts";
import { counted } from "./render/units.ts";
import { partnerName } from "./render/views-failover.ts";

type Tenant = RpoReport["tenants"][number];
type Write = Tenant["lost"][number];

/** Of lists that may be long; `-o json` has all. */
const shownMax = 50;

export const failoverReportView: View<RpoReport> = {
  id: ({ failover }) => failover,
  columns: [
    { head: "FAILOVER", cell: ({ failover }) => failover },
    { head: "CELL", cell: ({ cell }) => cell },
    { head: "METHOD", cell: ({ method }) => method },
    { head: "LOST", cell: ({ totals }) => String(totals.lost), right: true },
    { head: "UNKNOWN", cell: ({ totals }) => String(totals.unknown), right: true },
  ],
  details: (report) => {
    const { totals } = report;
    return [
      ["failover", report.failover],
      ["cell", report.cell],
      ["detected", report.detectedAt],
      ["fenced", report.fencedAt ?? "not yet"],
      ["method", `${report.method}: ${report.methodReason}`],
      ...amendedLine(report),
      [
        "keys",
        `${totals.keys}: ${totals.adopted} adopted, ${totals.unavailable} unavailable, ${totals.quarantined} quarantined`,
      ],
      [
        "writes",
        `${totals.acked} acknowledged lately: ${totals.lost} lost, ${totals.unknown} unknown, ${totals.found} doubted and found`,
      ],
      ["partners", report.partners.map((one) => partnerLine(one, report.partners))],
      ["counted", "as of the takeover: what a salvage brings back later is not taken off"],
      ["bounds", shown(report.tenants.map((one) => boundLine(one, cutOffMs(report))))],
      ["lost", shown(report.tenants.flatMap(({ lost }) => lost.map(writeLine)))],
      ["unknown", shown(report.tenants.flatMap(({ unknown }) => unknown.map(writeLine)))],
      ["unavailable", shown(report.unavailable.map(({ key, reason }) => `${key}  ${reason}`))],
      ["quarantined", shown(report.quarantined.map(({ key, reason }) => `${key}  ${reason}`))],
    ];
  },
};

/** What was read before may have said less. */
const amendedLine = ({ revision, amendedAt }: RpoReport): readonly [string, string][] =>
  amendedAt === null
    ? []
    : [["amended", `${amendedAt}, revision ${revision}: what a router handed in late is in it`]];

type Partner = RpoReport["partners"][number];
const partnerLine = (one: Partner, all: readonly Partner[]): string => {
  const { remoteLsn, keys } = one;
  return `${partnerName(one, all)}  ${counted(keys, "key")}  applied up to ${remoteLsn ?? "nobody knows where"}`;
};

/** Bounds count back from there. */
const cutOffMs = ({ fencedAt, detectedAt }: RpoReport): number =>
  Date.parse(fencedAt ?? detectedAt);

const boundLine = ({ tenant, key, boundSeconds, lost, unknown }: Tenant, cutMs: number): string => {
  const name = tenant === "" ? key : tenant;
  const bound =
    boundSeconds === null
      ? "no bound is known"
      : `nothing acknowledged before ${momentText(cutMs - boundSeconds * 1000)} is lost (${boundSeconds} s before it was fenced)`;
  return `${name}  ${bound}  ${lost.length} lost, ${unknown.length} unknown`;
};

/** Tenths of a second are enough, rounded to the safe side: bounds are given in hundredths. */
const momentText = (ms: number): string =>
  `${new Date(Math.floor((ms - 5) / 100) * 100).toISOString().slice(11, 21)}Z`;

const writeLine = ({ tenant, method, path, requestId, atMs, because }: Write): string =>
  `${tenant}  ${new Date(atMs).toISOString()}  ${method} ${path}  ${requestId}  ${because}`;

const shown = (lines: readonly string[]): readonly string[] =>
  lines.length <= shownMax
    ? lines
    : [...lines.slice(0, shownMax), `and ${lines.length - shownMax} more: -o json has all`];
