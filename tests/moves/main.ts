/**
 * `node tests/moves/main.ts [--moves 20] [--writes 200] [--others 100] [--at-once 2] [-o json]`: moves tenants of
 * a local fleet back and forth under load. Ends with 1 when anything was lost, doubled, refused or named wrongly.
 */
import { parseArgs } from "node:util";
import { startFleet } from "../fleet.ts";
import { flagsOrUsage } from "./flags-or-usage.ts";
import { type Quantiles, quantilesOf } from "./quantiles.ts";
import { type TravelReport, travel } from "./travel.ts";
import type { Trip } from "./trips.ts";

const usage = `usage: npm run test:moves -- [--moves 20] [--writes 200] [--others 100] [--others-writes 100] [--at-once 2] [--cells 3] [-o json]
  --moves          moves in all
  --writes         writes a second of the tenants that move
  --others         tenants that stay
  --others-writes  writes a second of those that stay
  --at-once        moves at once
  --cells          cells of the fleet
  -o json          the whole report as JSON`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      moves: { type: "string", default: "20" },
      writes: { type: "string", default: "200" },
      others: { type: "string", default: "100" },
      "others-writes": { type: "string", default: "100" },
      "at-once": { type: "string", default: "2" },
      cells: { type: "string", default: "3" },
      output: { type: "string", short: "o", default: "text" },
    },
  }),
);
const isJson = values.output === "json";
const fleet = await startFleet({ cells: Number(values.cells), flags: ["--no-demo"] });
try {
  const report = await travel(fleet, {
    moves: Number(values.moves),
    atOnce: Number(values["at-once"]),
    writesPerSecond: Number(values.writes),
    others: Number(values.others),
    othersPerSecond: Number(values["others-writes"]),
    onTrip: (trip) => void (isJson || process.stdout.write(`${lineOf(trip)}\n`)),
  });
  process.stdout.write(isJson ? `${JSON.stringify(report, null, 2)}\n` : textOf(report));
  const { verdict, refused, routes } = report;
  if (!verdict.ok || refused.length + routes.faults.length > 0) process.exitCode = 1;
} finally {
  await fleet.stop();
}

function lineOf({ move, tenant, from, to, isReverse, tries, pause, gapMs, tookMs }: Trip): string {
  const parts = Object.entries(pause ?? {}).map(([name, ms]) => `${name} ${ms}`);
  const way = `${from} -> ${to}${isReverse ? " (back)" : ""}`;
  return `${move}  ${tenant}  ${way.padEnd(26)} ${tries} tries, gap ${gapMs.toFixed(0)} ms, ${(tookMs / 1000).toFixed(1)} s: ${parts.join(", ")}`;
}

function textOf({ trips, writes, refused, verdict, routes, others }: TravelReport): string {
  const { acknowledged, failed, unknown, commits, lists } = verdict.counts;
  const said = ({ p50, p95, p99, max }: Quantiles) =>
    `p50 ${p50}, p95 ${p95}, p99 ${p99}, max ${max} ms`;
  return [
    "",
    `moves                ${trips.length}`,
    `writes               ${writes}: ${acknowledged} acknowledged, ${failed} refused, ${unknown} unknown`,
    `committed            ${commits}; lists read: ${lists}`,
    `history              ${verdict.ok ? "nothing lost, nothing doubled, one writer" : `${verdict.violations.length} violations`}`,
    `routes               ${routes.judged} of ${routes.looks} looks judged, ${routes.faults.length} without an active owner`,
    `gap of clients       ${said(quantilesOf(trips.map(({ gapMs }) => gapMs)))}`,
    `pause                ${said(quantilesOf(trips.map(({ pause }) => pause?.total ?? 0)))}`,
    `others, before       ${said(others.before)}`,
    `others, during       ${said(others.during)}`,
    ...verdict.violations.slice(0, 20).map(({ kind, text }) => `  ${kind}: ${text}`),
    ...refused.slice(0, 20).map((one) => `  refused: ${one}`),
    ...routes.faults.slice(0, 20).map((one) => `  route: ${one}`),
    "",
  ].join("\n");
}
