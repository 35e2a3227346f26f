/**
 * `node tests/outage/gone-main.ts [--minutes 1] [--only gone]`: a local fleet without its control plane, and what is set
 * back to an older state. Ends with 1 when a promise about it was not kept.
 */
import { parseArgs } from "node:util";
import { startFleet, type TestFleet } from "../fleet.ts";
import { flagsOrUsage } from "../moves/flags-or-usage.ts";
import { type BothGoneReport, bothGone } from "./both-gone.ts";
import { type CellBackReport, cellSetBack } from "./cell-back.ts";
import { controlPlaneGone, type GoneReport } from "./control-plane-gone.ts";
import { type ManualReport, manualLeases } from "./manual-leases.ts";
import { type SetBackReport, settingBack } from "./set-back.ts";

const usage = `usage: npm run test:gone -- [--minutes 1] [--tenants 18] [--writes 30] [--only gone] [--standby logical] [-o json]
  --minutes  for so long the control plane alone is gone, under load
  --tenants  of three cells
  --writes   writes a second of all of them together
  --only     one scene of: gone, set-back, cell-back, cell-back-within, both, manual
  --standby  logical: rows by bucket, in two partners; physical: whole servers, each in one
  -o json    all reports as JSON`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      minutes: { type: "string", default: "1" },
      tenants: { type: "string", default: "18" },
      writes: { type: "string", default: "30" },
      only: { type: "string" },
      standby: { type: "string", default: "logical" },
      output: { type: "string", short: "o", default: "text" },
    },
  }),
);
const isJson = values.output === "json";
const startedMs = Date.now();
const say = (line: string) =>
  void process.stderr.write(`${((Date.now() - startedMs) / 1000).toFixed(1)} s  ${line}\n`);
const options = {
  ...{ minutes: Number(values.minutes), tenants: Number(values.tenants) },
  ...{ writesPerSecond: Number(values.writes), say },
};
/** The lease of a local fleet, and two seconds. */
const servedAgainMsMax = 6000;

/** What was found, and what of it should not be. */
type Told = {
  readonly lines: readonly string[];
  readonly faults: readonly string[];
  readonly raw: unknown;
};

const scenes: Readonly<Record<string, (fleet: TestFleet) => Promise<Told>>> = {
  gone: async (fleet) => toldOfGone(await controlPlaneGone(fleet, options)),
  "set-back": async (fleet) => toldOfSetBack(await settingBack(fleet, options)),
  "cell-back": async (fleet) =>
    toldOfCellBack(await cellSetBack(fleet, { ...options, copied: "before" })),
  "cell-back-within": async (fleet) =>
    toldOfCellBack(await cellSetBack(fleet, { ...options, copied: "within" })),
  both: async (fleet) => toldOfBoth(await bothGone(fleet, options)),
  manual: async (fleet) => toldOfManual(await manualLeases(fleet, options)),
};

for (const [name, scene] of Object.entries(scenes)) {
  if (values.only !== undefined && values.only !== name) continue;
  const fleet = await startFleet({
    cells: 3,
    standbyPartners: 2,
    flags: ["--no-demo", "--routers", "2", "--standby", values.standby],
  });
  try {
    const { lines, faults, raw } = await scene(fleet);
    const text = [name, ...lines, ...faults.slice(0, 40).map((one) => `FAULT ${one}`)];
    process.stdout.write(isJson ? `${JSON.stringify(raw, null, 2)}\n` : `${text.join("\n  ")}\n`);
    if (faults.length > 0) process.exitCode = 1;
  } finally {
    await fleet.stop();
  }
}

function toldOfGone(report: GoneReport): Told {
  const { alone, deadCell, restarted, back, verdict, writes } = report;
  const phases = Object.entries(back.failover.phases).map(
    ([step, ms]) => `${step} ${Math.round(ms)}`,
  );
  const { acknowledged, failed, unknown, reportedLost } = verdict.counts;
  return {
    raw: report,
    lines: [
      `control plane gone  ${alone.minutes.toFixed(1)} min, ${alone.writes} writes, ${alone.refused.length} refused`,
      `a cell dead too     its tenants: ${JSON.stringify(deadCell.contained)}; others refused: ${deadCell.othersRefused.length}`,
      `PostgreSQL restart  served again after ${Math.round(restarted.servedAfterMs)} ms; others refused: ${restarted.othersRefused.length}`,
      `control plane back  dead cell's tenants served after ${Math.round(back.servedAfterMs)} ms; others refused: ${back.othersRefused.length}`,
      `failover            ${phases.join(", ")} ms; ${JSON.stringify(back.failover.report?.totals)}`,
      `history             ${writes} writes: ${acknowledged} acknowledged, ${failed} refused, ${unknown} unknown, ${reportedLost} lost as reported; ${verdict.violations.length} violations`,
    ],
    faults: [
      ...alone.refused.map((one) => `control plane gone: ${one}`),
      ...(deadCell.acknowledged > 0
        ? [`${deadCell.acknowledged} acknowledged for a dead cell`]
        : []),
      ...deadCell.othersRefused.map((one) => `a cell dead too: ${one}`),
      ...(restarted.servedAfterMs > servedAgainMsMax
        ? [`served again only after ${Math.round(restarted.servedAfterMs)} ms`]
        : []),
      ...restarted.othersRefused.map((one) => `PostgreSQL restart: ${one}`),
      ...back.othersRefused.map((one) => `control plane back: ${one}`),
      ...verdict.violations.map(({ kind, text }) => `${kind}: ${text}`),
    ],
  };
}

function toldOfSetBack(report: SetBackReport): Told {
  const { recoveredAfterMs, othersRefused, verdict } = report;
  return {
    raw: report,
    lines: [
      `control plane set back  recovered after ${Math.round(recoveredAfterMs)} ms; others refused: ${othersRefused.length}`,
      `history                 ${verdict.counts.acknowledged} acknowledged, ${verdict.violations.length} violations`,
    ],
    faults: [
      ...(report.sawRecovering ? [] : ["the control plane did not notice that it was set back"]),
      ...report.unserved.map((tenant) => `${tenant} is not served any more`),
      ...report.unprotected.map((tenant) => `${tenant} stays in an annex, without a standby`),
      ...report.splits.map((one) => `two owners: ${one}`),
      ...report.epochsFell.map((one) => `epoch fell: ${one}`),
      ...verdict.violations.map(({ kind, text }) => `${kind}: ${text}`),
    ],
  };
}

function toldOfCellBack(report: CellBackReport): Told {
  const { state, reason, acknowledgedByClone, refusedByClone, standbysLeft, splits } = report;
  return {
    raw: report,
    lines: [
      `cell set back   ${state}: ${reason}`,
      `its older copy  ${acknowledgedByClone} acknowledged; all cells: ${JSON.stringify(refusedByClone)}`,
      `standbys of it  ${standbysLeft}`,
    ],
    faults: [
      ...splits.map((one) => `two owners: ${one}`),
      ...(acknowledgedByClone > 0 ? ["an older copy of a cell acknowledged writes"] : []),
      ...(state === "quarantined" && reason.includes("TIME_TRAVEL") ? [] : ["no TIME_TRAVEL"]),
      ...(standbysLeft > 0 ? [] : ["its standbys, which have what it lacks, were given up"]),
    ],
  };
}

function toldOfBoth(report: BothGoneReport): Told {
  const { held, totals, served, notServed, unavailable, othersRefused, begun } = report;
  return {
    raw: report,
    lines: [
      `held by      ${held.join(", ")}; begun by itself: ${begun.join(", ")}`,
      `totals       ${JSON.stringify(totals)}; served again: ${served.join(", ")}`,
      ...unavailable.map(
        ({ tenant, answer, located }) => `${tenant}: ${answer} | ${located.trim()}`,
      ),
    ],
    faults: [
      ...(unavailable.length === 0 ? ["nobody was unavailable: nothing was shown"] : []),
      ...notServed.map((tenant) => `${tenant} was adopted and is not served`),
      ...unavailable
        .filter(({ answer }) => !answer.startsWith("503"))
        .map(({ tenant, answer }) => `${tenant}: ${answer}`),
      ...othersRefused.map((one) => `others: ${one}`),
    ],
  };
}

function toldOfManual(report: ManualReport): Told {
  const { refused, begun, suggested, codes, servedAfterMs, splits, verdict } = report;
  const phases = Object.entries(report.phases).map(([step, ms]) => `${step} ${ms}`);
  const { acknowledged, reportedLost } = verdict.counts;
  return {
    raw: report,
    lines: [
      `without control plane  ${refused.length} refused; served again ${Math.round(report.servedAfterRestartMs)} ms after a restart of PostgreSQL`,
      `when it is dead        begun by itself: ${begun.join(", ") || "nothing"}; ${suggested.trim()}`,
      `by a person            exit codes ${codes.join(", ")}; served after ${Math.round(servedAfterMs)} ms: ${phases.join(", ")}`,
      `history                ${acknowledged} acknowledged, ${reportedLost} lost as reported; ${JSON.stringify(report.totals)}; ${verdict.violations.length} violations`,
    ],
    faults: [
      ...refused.map((one) => `control plane gone: ${one}`),
      ...begun.map((cell) => `${cell} was taken over by itself`),
      ...(suggested.includes("--proved-dead") ? [] : ["nobody was told the command"]),
      ...(codes[0] === 0 || codes[1] === 0 ? ["it was begun without a word of power"] : []),
      ...(codes[2] === 0 ? [] : ["the word of a person did not begin it"]),
      ...splits.map((one) => `two owners: ${one}`),
      ...verdict.violations.map(({ kind, text }) => `${kind}: ${text}`),
    ],
  };
}
