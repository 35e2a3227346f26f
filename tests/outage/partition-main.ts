/**
 * `node tests/outage/partition-main.ts [--only NAME] [--list]`: cuts links between the parts of a local fleet, one
 * direction or both, stops processes, sets clocks; each time in a new fleet, under load. Ends with 1 when two
 * wrote under one epoch, when a loss is not reported, or when somebody was refused whom it should not touch.
 */
import { appendFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { entryLine } from "../../history/file.ts";
import { flagsOrUsage } from "../moves/flags-or-usage.ts";
import { type Outcome, runScenario } from "./partition/run.ts";
import { scenarios } from "./partition/scenarios.ts";

const usage = `usage: npm run test:partition -- [--only NAME]... [--history FILE] [--list]
  --only     these scenarios alone
  --history  appends the history of each scenario that fails
  --list     says what there is, and does nothing`;
const { values } = flagsOrUsage(usage, process.argv.slice(2), () =>
  parseArgs({
    options: {
      only: { type: "string", multiple: true, default: [] },
      history: { type: "string" },
      list: { type: "boolean", default: false },
    },
  }),
);
const say = (line: string) => void process.stderr.write(`${line}\n`);
const wanted = scenarios.filter(
  ({ name }) => values.only.length === 0 || values.only.includes(name),
);
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

function textOf({ name, faults, verdict, failovers, direct, refusedBefore }: Outcome): string {
  const { counts } = verdict;
  const told = [
    `${counts.invoked} writes, ${counts.acknowledged} acknowledged, ${counts.failed} refused, ${counts.unknown} unknown (${refusedBefore} of these before the cut), ${counts.commits} commits`,
    ...(direct === undefined ? [] : [`job: ${direct.done} committed, ${direct.refused} refused`]),
    ...failovers.map(
      ({ step, report }) => `failover ${step}: ${report?.method} ${JSON.stringify(report?.totals)}`,
    ),
  ];
  return [
    `${name.padEnd(26)} ${faults.length === 0 ? "ok" : "FAILED"}  ${told.join("; ")}`,
    ...faults.slice(0, 20).map((fault) => `    ${fault}`),
  ].join("\n");
}
