/**
 * `npm run test:crash [-- --all | --round N] [--only TEXT]`: kills whatever takes part in a move at every moment of it. Without
 * `--all` each moment once, with the victims in turn. Every case must end by itself; in the end the history
 * checker judges all that customers were told.
 */
import { appendFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { checkHistory } from "../../history/check.ts";
import { installCommitLog, readCommitLog } from "../../history/commit-log.ts";
import { entryLine } from "../../history/file.ts";
import type { Entry } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { startWorkload } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { crashCases, sampleOf } from "./crash-cases.ts";
import { type CrashOutcome, nameOf, runCrash } from "./crash-run.ts";
import { flagsOrUsage } from "./flags-or-usage.ts";
import { openMoveClient } from "./move-client.ts";
import { startStoppingFleet } from "./stopping-fleet.ts";

const usage = `usage: npm run test:crash -- [--all | --round N] [--only TEXT]
  --all        every moment with every victim
  --round N    each moment once, the victims shifted by N (default: 0)
  --only TEXT  cases whose name contains it`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      all: { type: "boolean", default: false },
      round: { type: "string", default: "0" },
      only: { type: "string", default: "" },
    },
  }),
);
const chosen = (values.all ? crashCases : sampleOf(crashCases, Number(values.round))).filter(
  (one) => nameOf(one).includes(values.only),
);
const tenants = ["traveller", "bystander-1", "bystander-2"] as const;
const [traveller] = tenants;

const stopping = await startStoppingFleet(2);
const moves = await openMoveClient(stopping);
const fleet = { ...stopping, moves };
const entries: Entry[] = [];
const outcomes: CrashOutcome[] = [];
let say = "";
try {
  for (const [index, id] of tenants.entries()) {
    await fleet.cliJson("tenant", "create", id, "--cell", `cell-0${(index % 2) + 1}`, "--wait");
  }
  for (const cell of ["cell-01", "cell-02"]) {
    await fleet.inCell(cell, (client) =>
      installCommitLog(client, {
        ...{ schema: "public", table: "orders", keyspace: "default" },
        ...{ keyColumn: "tenant_id", valueColumn: "item" },
      }),
    );
  }
  const workload = startWorkload({
    ...{ tenants, processesPerTenant: 2, ordersPerSecondMax: 30, attemptsMax: 3 },
    router: async () => new URL((await fleet.endpoints()).router).origin,
    requestTimeoutMs: 10_000,
    recorder: createRecorder({
      ...{ clock: systemClock, run: "crashes" },
      write: (entry) => entries.push(entry),
    }),
    ...{ clock: systemClock, run: "crashes" },
  });
  for (const [nth, crash] of chosen.entries()) {
    const startedMs = systemClock.monotonicMs();
    const outcome = await runCrash(fleet, crash, traveller);
    outcomes.push(outcome);
    const seconds = ((systemClock.monotonicMs() - startedMs) / 1000).toFixed(1);
    const verdict = outcome.faults.length === 0 ? "ok" : `FAULT ${outcome.faults.join("; ")}`;
    process.stdout.write(
      `${nth + 1}/${chosen.length}  ${outcome.case.padEnd(40)} ${seconds.padStart(6)} s  ${verdict}  (${outcome.ended})\n`,
    );
  }
  await workload.stop();
  await workload.readBack(60_000);
  await workload.close();
  for (const cell of ["cell-01", "cell-02"]) {
    await fleet.inCell(cell, async (client) => {
      entries.push(...(await readCommitLog(client, cell)));
    });
  }
  say = report();
} catch (error) {
  process.stderr.write(`${fleet.control.log().split("\n").slice(-40).join("\n")}\n`);
  throw error;
} finally {
  await moves.close();
  await fleet.stop();
}
process.stdout.write(say);

function report(): string {
  // What the harness itself wrote after each crash is no customer's.
  const verdict = checkHistory(
    entries.filter((entry) => entry.kind !== "commit" || entry.value.startsWith("crashes/")),
  );
  const faulty = outcomes.filter(({ faults }) => faults.length > 0);
  if (faulty.length > 0 || !verdict.ok) process.exitCode = 1;
  const { acknowledged, failed, unknown } = verdict.counts;
  if (!verdict.ok)
    void appendFile(`${fleet.dataDir}.history.ndjson`, entries.map(entryLine).join(""));
  return [
    `${outcomes.length} crashes, ${faulty.length} with faults; ${acknowledged} acknowledged, ${failed} refused, ${unknown} unknown`,
    verdict.ok ? "history: ok" : `history: ${verdict.violations.length} violations`,
    ...verdict.violations
      .slice(0, 20)
      .map(({ kind, tenant, value, text }) => `  ${kind} ${tenant} ${value} ${text}`),
    "",
  ].join("\n");
}
