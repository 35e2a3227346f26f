/**
 * Checks observability/ against the real thing, for `.ci/run`: the rules' own tests, every part's page of
 * metrics, and every expression in a real Prometheus that scrapes a real fleet. Needs `promtool` and
 * `prometheus` on the path. Exit 0 and a line when all is well, else every fault.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import {
  alertFaults,
  type Expression,
  expressionsOf,
  filledIn,
  metricsIn,
  metricsOfPage,
  parseCases,
  parseDashboard,
  parseRules,
} from "./expressions.ts";
import { hasTool, promtool, startPrometheus, type Target } from "./prometheus.ts";

const root = resolve(import.meta.dirname, "../..");
const folder = join(root, "observability");
const alertsFile = join(folder, "alerts.yml");
const testsFile = join(folder, "alerts_test.yml");
const read = (path: string) => readFileSync(path, "utf8");
const rules = parseRules(read(alertsFile));
/** Made only by a router that serves TLS, or has workers, which this fleet's does not. */
const withSettings = [
  "cellfleet_router_tls_certificate_expiry_seconds",
  "cellfleet_router_workers",
  "cellfleet_router_worker_restarts_total",
];

function paperFaults(): string[] {
  const checked = promtool(["check", "rules", alertsFile]);
  const tested = promtool(["test", "rules", testsFile]);
  return [
    ...alertFaults(rules, parseCases(read(testsFile)), (path) => existsSync(join(root, path))),
    ...[checked, tested].filter((fault) => fault !== undefined),
  ];
}

function allExpressions(): Expression[] {
  const dashboards = join(folder, "dashboards");
  return [
    ...rules.map(({ alert, record, expr }) => ({ where: alert ?? record ?? "", expr })),
    ...readdirSync(dashboards).flatMap((name) =>
      expressionsOf(parseDashboard(read(join(dashboards, name)))),
    ),
  ];
}

/** Admin ports: of the router from endpoints.json, of the others from what they logged at their start. */
async function targetsOf(fleet: TestFleet): Promise<Target[]> {
  const { routerAdmin } = await fleet.endpoints();
  const logs = join(fleet.dataDir, "logs");
  const logged = (event: string) =>
    readdirSync(logs)
      .flatMap((name) => read(join(logs, name)).split("\n"))
      .filter((line) => line.includes(`"event":"${event}"`))
      .flatMap((line) => /"admin":"(?:http:\/\/)?([^"]+)"/.exec(line)?.[1] ?? []);
  return [
    { job: "cellfleet-router", address: new URL(routerAdmin).host },
    ...logged("process.started").map((address) => ({ job: "cellfleet-control-plane", address })),
    ...logged("agent.started").map((address) => ({ job: "cellfleet-agent", address })),
  ];
}

async function pageFaults(targets: readonly Target[]): Promise<{
  readonly faults: string[];
  readonly names: ReadonlySet<string>;
}> {
  const names = new Set(["up", ...withSettings, ...rules.flatMap(({ record }) => record ?? [])]);
  const faults: string[] = [];
  for (const { job, address } of targets) {
    const page = await (await fetch(`http://${address}/metrics`)).text();
    for (const name of metricsOfPage(page)) names.add(name);
    const fault = promtool(["check", "metrics"], page);
    if (fault !== undefined) faults.push(`${job} at ${address}: ${fault}`);
    for (const path of ["/livez", "/readyz?verbose", "/healthz"]) {
      const { status } = await fetch(`http://${address}${path}`);
      if (status !== 200) faults.push(`${job}: ${path} is ${status}`);
    }
  }
  return { faults, names };
}

async function fleetFaults(fleet: TestFleet): Promise<string[]> {
  await fleet.cliJson("tenant", "create", "observed", "--reason", "to be observed");
  for (const path of ["/whoami", "/orders", "/nothing"]) await fleet.ask("observed", "GET", path);
  await fleet.ask("nobody", "GET", "/whoami");
  const targets = await targetsOf(fleet);
  const jobs = new Set(targets.map(({ job }) => job));
  if (jobs.size < 3) return [`only ${[...jobs].join(", ")} were found`];
  const { faults, names } = await pageFaults(targets);
  const prometheus = await startPrometheus(targets, alertsFile);
  try {
    await until("every part is scraped", async () => (await prometheus.up()) === targets.length);
    for (const { where, expr } of allExpressions()) {
      const filled = filledIn(expr);
      const said = await prometheus.query(filled);
      if (said !== undefined) faults.push(`${where}: ${said}`);
      const strange = metricsIn(filled).filter((name) => !names.has(name));
      faults.push(...strange.map((name) => `${where}: no part makes ${name}`));
    }
  } finally {
    await prometheus.close();
  }
  return faults;
}

async function check(): Promise<readonly string[]> {
  const missing = ["promtool", "prometheus"].filter((name) => !hasTool(name));
  if (missing.length > 0) return missing.map((name) => `${name} is not installed`);
  const onPaper = paperFaults();
  const fleet = await startFleet({ cells: 1 });
  try {
    return [...onPaper, ...(await fleetFaults(fleet))];
  } finally {
    await fleet.stop();
  }
}

const faults = await check();
for (const fault of faults) console.error(fault);
const alerts = rules.filter(({ alert }) => alert !== undefined).length;
if (faults.length === 0) {
  console.log(`${alerts} alerts, ${allExpressions().length} expressions, every page: all is well`);
}
process.exitCode = faults.length === 0 ? 0 : 1;
