/**
 * A cell with manual leases in a living fleet: it serves through the control plane's absence and a restart of its
 * database in it; when it dies nobody takes it over by himself, however long it lasts; a person who says that it is
 * powered off gets its tenants served, with a report that names every write that is missing.
 */
import { z } from "zod";
import type { RpoReport } from "../../contract/failover-api.ts";
import { checkHistory } from "../../history/check.ts";
import type { Entry, Verdict } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { readTenant } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { startOpenLoad } from "../moves/open-load.ts";
import { refusedOf } from "./control-plane-gone.ts";
import { openFleetClient, routerOrigins } from "./fleet-client.ts";
import { dev, killCell, startControlPlane, stopControlPlane } from "./harm.ts";
import { isServed, namedLost, reported, settle } from "./settled.ts";
import { watchSplits } from "./splits.ts";

export type ManualReport = {
  /** While the control plane was gone; before the database's restart. */
  readonly refused: readonly string[];
  readonly servedAfterRestartMs: number;
  /** Cells that somebody took over before a person said a word. */
  readonly begun: readonly string[];
  /** The event that says the command. */
  readonly suggested: string;
  /** Without and with the word of a person: exit code of `failover start`. */
  readonly codes: readonly [without: number, past: number, proved: number];
  readonly servedAfterMs: number;
  readonly phases: Readonly<Record<string, number>>;
  readonly totals: RpoReport["totals"];
  readonly splits: readonly string[];
  readonly verdict: Verdict;
};

const run = "manual";
const manual = "cell-02";
const servedWithinMs = 120_000;
/** A timed cell of this fleet would be taken over by then, and served. */
const nobodyMs = 15_000;
const cellSchema = z.object({ lease: z.object({ settled: z.boolean().optional() }) });

export async function manualLeases(
  fleet: TestFleet,
  options: {
    readonly tenants: number;
    readonly writesPerSecond: number;
    readonly say: (line: string) => void;
  },
): Promise<ManualReport> {
  const { say } = options;
  const client = await openFleetClient(fleet);
  const { homes, tenants } = await settle(fleet, client, options);
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run, router: await routerOrigins(fleet) },
    streams: [{ tenants, perSecond: options.writesPerSecond }],
  });
  const mine = tenants.filter((one) => homes.get(one) === manual);
  const served = async (what: string) => {
    const sinceMs = now();
    await until(what, () => isServed(load, mine, sinceMs), servedWithinMs);
    return now() - sinceMs;
  };
  try {
    await must0(fleet, "cell", "lease-mode", manual, "manual", "--reason", "a switch we trust");
    const isSettled = async () =>
      cellSchema.parse(await fleet.cliJson("cell", "get", manual)).lease.settled === true;
    await until("it has acknowledged", isSettled, servedWithinMs);
    await served("its tenants are served");
    const splits = watchSplits(fleet, ["cell-01", manual, "cell-03"]);
    const goneMs = now();
    await stopControlPlane(fleet);
    await systemClock.sleep(nobodyMs);
    await served("its tenants are served without a control plane");
    const refused = refusedOf(load, goneMs);
    say(`without a control plane: ${refused.length} refused`);
    await dev(fleet, "stop", `${manual}-db`);
    await dev(fleet, "start", `${manual}-db`);
    const servedAfterRestartMs = await served("its tenants are served after a restart");
    await startControlPlane(fleet);
    await served("its tenants are served with a control plane again");
    const killedMs = now();
    await killCell(fleet, manual);
    say(`${manual} is killed`);
    await systemClock.sleep(nobodyMs);
    const begun = (await client.failovers()).map(({ cell }): string => cell);
    const events = (await fleet.cli("events")).stdout.split("\n");
    const suggested = events.findLast((line) => line.includes("failover.suggested")) ?? "";
    say(suggested);
    const start = async (...flags: readonly string[]) => {
      const args = ["failover", "start", manual, ...flags, "--confirm", manual, "--no-wait"];
      return (await fleet.cli(...args)).code;
    };
    const codes = [
      await start(),
      await start("--override", "power-off", "--reason", "it must be"),
      await start("--proved-dead", "--reason", "I pulled the plug"),
    ] as const;
    const saidMs = now();
    const failover = await reported(client, manual, servedWithinMs);
    await until("its tenants are served", () => isServed(load, mine, saidMs), servedWithinMs);
    const servedAfterMs = now() - saidMs;
    say(`killed ${Math.round((saidMs - killedMs) / 1000)} s before the word`);
    await load.stop();
    const deadlineMs = now() + servedWithinMs;
    for (const tenant of tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, deadlineMs);
    }
    for (const { tenant, value } of namedLost(failover)) {
      recorder.note({ kind: "reported-lost", tenant, value });
    }
    const { report, phases } = failover;
    if (report === null) throw new Error("no report");
    return {
      ...{ refused, servedAfterRestartMs, begun, suggested, codes, servedAfterMs, phases },
      ...{ totals: report.totals, splits: await splits.stop(), verdict: checkHistory(history) },
    };
  } finally {
    await load.close();
    await client.close();
  }
}

async function must0(fleet: TestFleet, ...args: string[]): Promise<void> {
  const { code, stderr } = await fleet.cli(...args);
  if (code !== 0) throw new Error(`cellctl ${args.join(" ")} ended with ${code}: ${stderr}`);
}

const now = (): number => systemClock.monotonicMs();
