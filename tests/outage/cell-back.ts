/**
 * A cell's database is set back to an older state while the control plane is gone, under load: to a moment
 * before that, which the control plane has seen go by, or to one within its absence, which only the partners
 * have.
 *
 * What must be true: the older copy acknowledges nothing, neither by its partners' promises nor once the
 * control plane is back, which quarantines it; no key has two databases that may write it, at no look.
 */
import { z } from "zod";
import type { Entry } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { startOpenLoad } from "../moves/open-load.ts";
import { countedBy } from "./control-plane-gone.ts";
import { openFleetClient, routerOrigins } from "./fleet-client.ts";
import { copyDatabase, setBack, startControlPlane, stopControlPlane } from "./harm.ts";
import { isServed, settle } from "./settled.ts";
import { watchSplits } from "./splits.ts";

export type CellBackOptions = {
  readonly tenants: number;
  readonly writesPerSecond: number;
  /** The copy is from before the control plane was gone, or from within its absence. */
  readonly copied: "before" | "within";
  readonly say: (line: string) => void;
};

export type CellBackReport = {
  /** Acknowledged by the older copy, until the end. */
  readonly acknowledgedByClone: number;
  readonly refusedByClone: Readonly<Record<string, number>>;
  /** Of the cell, when the control plane had seen it. */
  readonly state: string;
  readonly reason: string;
  /** Those that may have what it lacks. */
  readonly standbysLeft: number;
  readonly splits: readonly string[];
};

const clone = "cell-03";
const servedWithinMs = 120_000;
const cloneMs = 12_000;
/** Several leases. */
const seenMs = 8000;

const cellSchema = z.looseObject({ state: z.string() });

export async function cellSetBack(
  fleet: TestFleet,
  { copied, say, writesPerSecond, ...options }: CellBackOptions,
): Promise<CellBackReport> {
  const client = await openFleetClient(fleet);
  const { tenants } = await settle(fleet, client, { ...options, say });
  // Its server stops for the copy: nobody is to take its tenants over meanwhile.
  await policyOff(fleet);
  const history: Entry[] = [];
  const run = `cell-back-${copied}`;
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run, router: await routerOrigins(fleet) },
    streams: [{ tenants, perSecond: writesPerSecond }],
  });
  const served = async () => {
    const sinceMs = now();
    await until("all are served", () => isServed(load, tenants, sinceMs), servedWithinMs);
    await systemClock.sleep(seenMs);
  };
  try {
    if (copied === "before") await copyDatabase(fleet, clone);
    await served();
    await stopControlPlane(fleet);
    say("the control plane is gone");
    await served();
    if (copied === "within") {
      await copyDatabase(fleet, clone);
      await served();
    }
    say(`${clone} serves without a control plane; now its older copy comes`);
    await setBack(fleet, clone);
    const sinceMs = now();
    const splits = watchSplits(fleet, ["cell-01", "cell-02", clone]);
    await systemClock.sleep(cloneMs);
    await startControlPlane(fleet);
    say("the control plane is back");
    const apart = async () => (await stateOf(fleet)) === "quarantined";
    await until("it is quarantined", apart, 60_000).catch(() => {});
    await systemClock.sleep(seenMs);
    await load.stop();
    const theirs = load.samples.filter(({ sentMs }) => sentMs >= sinceMs);
    const acks = history.filter((one) => one.kind === "ok" && one.cell === clone);
    const events = (await fleet.cli("events")).stdout.split("\n");
    const standbys = (await client.standbys()).filter(({ origin }) => origin === clone);
    return {
      acknowledgedByClone: acks.filter((one) => "at" in one && one.at >= sinceMs).length,
      refusedByClone: countedBy(theirs, ({ reason }) => reason || "acknowledged"),
      state: await stateOf(fleet),
      reason: events.findLast((line) => line.includes("cell.quarantined")) ?? "",
      standbysLeft: standbys.filter(({ state }) => state !== "gone").length,
      splits: await splits.stop(),
    };
  } finally {
    await load.close();
    await client.close();
  }
}

async function policyOff(fleet: TestFleet): Promise<void> {
  const args = ["failover", "policy", "off", "--reason", "a copy is made"];
  const { code, stderr } = await fleet.cli(...args);
  if (code !== 0) throw new Error(`cellctl ${args.join(" ")} ended with ${code}: ${stderr}`);
}

const stateOf = async (fleet: TestFleet): Promise<string> =>
  must(cellSchema.parse(await fleet.cliJson("cell", "get", clone)).state, "state");

const now = (): number => systemClock.monotonicMs();
