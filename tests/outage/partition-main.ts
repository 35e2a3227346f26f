/**
 * `node tests/outage/partition-main.ts [--only NAME] [--steps] [--list]`: cuts links between the parts of a local fleet, one
 * direction or both, stops processes, sets clocks; with `--steps` lets a lost cell return, or kills the control plane, at
 * each step of a failover. Each time in a new fleet, under load. Ends with 1 when two
 * wrote under one epoch, when a loss is not reported, or when somebody was refused whom it should not touch.
 */
import { appendFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { entryLine } from "../../history/file.ts";
import { flagsOrUsage } from "../moves/flags-or-usage.ts";
import { scenariosAtSteps } from "./partition/at-steps.ts";
import { type Outcome, runScenario } from "./partition/run.ts";
import { scenarios } from "./partition/scenarios.ts";

const usage = `usage: npm run test:partition -- [--only NAME]... [--steps] [--history FILE] [--list]
  --only     these scenarios alone
  --steps    those at each step of a failover, in place of the others
  --history  appends the history of each scenario that fails
  --list     says what there is, and does nothing`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      only: { type: "string", multiple: true, default: [] },
      steps: { type: "boolean", default: false },
      history: { type: "string" },
      list: { type: "boolean", default: false },
    },
  }),
);
const say = (line: string) => void process.stderr.write(`${line}\n`);
const wanted =
  values.only.length > 0
    ? [...scenarios, ...scenariosAtSteps].filter(({ name }) => values.only.includes(name))
    : values.steps
      ? scenariosAtSteps
      : scenarios;
if (wanted.length === 0) say(`no such scenario: ${values.only.join(", ")}`);
if (wanted.length === 0) process.exitCode = 64;

for (const scenario of wanted) {
  if (values.list) {
    process.stdout.write(`${scenario.name.padEnd(26)} ${scenario.says}\n`);
    continue;
  }
  say(`${scenario.name}: ${scenario.says}`);
  try {
    const outcome = await runScenario(scenario, say);
    process.stdout.write(`${textOf(outcome)}\n`);
    if (outcome.faults.length === 0) continue;
    if (values.history !== undefined) {
      await appendFile(values.history, outcome.history.map(entryLine).join(""));
    }
  } catch (error) {
    process.stdout.write(`${scenario.name.padEnd(26)} FAILED ${String(error)}\n`);
  }
  process.exitCode = 1;
}

function textOf(outcome: Outcome): string {
  const { name, faults, verdict, failovers, direct, refusedBefore, salvaged, looks } = outcome;
  const { counts } = verdict;
  const told = [
    `${counts.invoked} writes, ${counts.acknowledged} acknowledged, ${counts.failed} refused, ${counts.unknown} unknown (${refusedBefore} of these before the cut), ${counts.commits} commits; owners looked at ${looks} times`,
    ...(direct === undefined ? [] : [`job: ${direct.done} committed, ${direct.refused} refused`]),
    ...failovers.map(
      ({ step, report }) => `failover ${step}: ${report?.method} ${JSON.stringify(report?.totals)}`,
    ),
    ...(failovers.length === 0
      ? []
      : [
          `${counts.reportedLost} acknowledged and lost, ${counts.falseAlarms} named in vain, ${salvaged} salvaged`,
        ]),
  ];
  return [
    `${name.padEnd(26)} ${faults.length === 0 ? "ok" : "FAILED"}  ${told.join("; ")}`,
    ...faults.slice(0, 20).map((fault) => `    ${fault}`),
  ].join("\n");
}
