/**
 * `node tests/outage/main.ts [--tenants 300] [--writes 300] [--cells 4] [--routers 2] [--standby logical] [--runs 1] [-o json]`: kills a
 * cell of a local fleet under load, again and again, each time in a new fleet. Ends with 1 when a write is gone
 * that no report names, when another cell's tenant was refused, or when a tenant was not served again.
 */
import { parseArgs } from "node:util";
import { startFleet } from "../fleet.ts";
import { flagsOrUsage } from "../moves/flags-or-usage.ts";
import { quantilesOf } from "../moves/quantiles.ts";
import { type DeadCellReport, deadCell } from "./dead-cell.ts";

const usage = `usage: npm run test:outage -- [--tenants 300] [--writes 300] [--cells 4] [--routers 2] [--standby logical] [--runs 1] [-o json]
  --tenants  tenants of all cells
  --writes   writes a second of all of them together
  --cells    cells of the fleet
  --routers  routers that clients take turns with
  --standby  logical: rows by bucket, in three partners; physical: whole servers, each in one
  --runs     fleets that lose a cell, one after the other
  -o json    all reports as JSON`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      tenants: { type: "string", default: "300" },
      writes: { type: "string", default: "300" },
      cells: { type: "string", default: "4" },
      routers: { type: "string", default: "2" },
      standby: { type: "string", default: "logical" },
      runs: { type: "string", default: "1" },
      output: { type: "string", short: "o", default: "text" },
    },
  }),
);
const isJson = values.output === "json";
const say = (line: string) => void process.stderr.write(`${line}\n`);

const reports: DeadCellReport[] = [];
for (let run = 1; run <= Number(values.runs); run += 1) {
  const fleet = await startFleet({
    cells: Number(values.cells),
    standbyPartners: 3,
    flags: ["--no-demo", "--routers", values.routers, "--standby", values.standby],
  });
  try {
    const report = await deadCell(fleet, {
      tenants: Number(values.tenants),
      writesPerSecond: Number(values.writes),
      victim: "cell-02",
      afterMs: 3000,
      say,
    });
    reports.push(report);
    if (!isJson) process.stdout.write(`${textOf(run, report)}\n`);
    if (!isGood(report)) process.exitCode = 1;
  } finally {
    await fleet.stop();
  }
}
const all = reports.flatMap(({ outages }) => outages.flatMap(({ lastedMs }) => lastedMs ?? []));
const { count, p50, p95, max } = quantilesOf(all);
if (isJson) process.stdout.write(`${JSON.stringify(reports, null, 2)}\n`);
else process.stdout.write(`all runs: ${count} outages, p50 ${p50}, p95 ${p95}, max ${max} ms\n`);

function isGood({ verdict, othersRefused, neverBack }: DeadCellReport): boolean {
  return verdict.ok && othersRefused.length === 0 && neverBack.length === 0;
}

function textOf(run: number, report: DeadCellReport): string {
  const { outage, verdict, othersRefused, neverBack, failover, lost, falseAlarms } = report;
  const phases = Object.entries(failover.phases).map(([step, ms]) => `${step} ${Math.round(ms)}`);
  const { method, methodReason, totals } = failover.report ?? {};
  return [
    `run ${run}`,
    `  outage per tenant  ${outage.count}: p50 ${outage.p50}, p95 ${outage.p95}, max ${outage.max} ms; never back: ${neverBack.length}`,
    `  phases             ${phases.join(", ")} ms`,
    `  writes             ${report.writes}: ${verdict.counts.acknowledged} acknowledged; others refused: ${othersRefused.length}`,
    `  lost               ${lost}, false alarms ${falseAlarms}; report: ${method} (${methodReason}) ${JSON.stringify(totals)}`,
    `  history            ${verdict.ok ? "nothing is gone that the report does not name" : `${verdict.violations.length} violations`}`,
    ...verdict.violations.slice(0, 20).map(({ kind, text }) => `    ${kind}: ${text}`),
    ...othersRefused.slice(0, 20).map((one) => `    refused: ${one}`),
  ].join("\n");
}
