/**
 * What is set back to an older state, under load: first the control plane's database, to before moves and a
 * failover; then a cell's, once while the control plane is gone and once more seen by it.
 *
 * What must be true: no key has two databases that may write it, at no look; epochs do not fall; nothing that was
 * acknowledged is gone; the older copy of a cell serves nothing, and is quarantined.
 */
import { z } from "zod";
import { checkHistory } from "../../history/check.ts";
import type { Entry, Verdict } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { readTenant } from "../../history/workload.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { type OpenLoad, startOpenLoad } from "../moves/open-load.ts";
import { countedBy, refusedOf } from "./control-plane-gone.ts";
import { type FleetClient, openFleetClient, routerOrigins } from "./fleet-client.ts";
import {
  copyDatabase,
  dev,
  killCell,
  setBack,
  startControlPlane,
  stopControlPlane,
} from "./harm.ts";
import { ownersIn, splitsOf } from "./owners.ts";
import { isServed, namedLost, reported, settle } from "./settled.ts";

export type SetBackOptions = {
  readonly tenants: number;
  readonly writesPerSecond: number;
  readonly say: (line: string) => void;
};

export type SetBackReport = {
  readonly controlPlane: {
    readonly sawRecovering: boolean;
    readonly recoveredAfterMs: number;
    /** Once recovered, of tenants that are not served within two minutes. */
    readonly unserved: readonly string[];
    readonly splits: readonly string[];
    readonly epochsFell: readonly string[];
    /** While nothing is granted, until all have spoken: of tenants that neither moved nor were in the dead cell. */
    readonly othersRefused: readonly string[];
    readonly verdict: Verdict;
  };
  readonly cell: {
    /** Acknowledged by the older copy while the control plane was gone. */
    readonly acknowledgedByClone: number;
    readonly refusedByClone: Readonly<Record<string, number>>;
    /** Of the cell, when the control plane had seen it. */
    readonly state: string;
    readonly reason: string;
    readonly splits: readonly string[];
  };
};

const run = "set-back";
const dead = "cell-02";
const clone = "cell-03";
const living = ["cell-01", "cell-03"];
const servedWithinMs = 120_000;
const cloneMs = 15_000;
const calmMs = 3000;
/** Several leases. */
const seenMs = 10_000;
const lookEveryMs = 300;

const statusSchema = z.looseObject({ mode: z.string(), modeReason: z.string() });
const cellSchema = z.looseObject({ state: z.string() });
const tenantsSchema = z.looseObject({
  items: z.array(
    z.looseObject({ id: z.string(), placement: z.looseObject({ epoch: z.number() }) }),
  ),
});

type Scene = {
  readonly fleet: TestFleet;
  readonly client: FleetClient;
  readonly load: OpenLoad;
  readonly homes: ReadonlyMap<string, string>;
  readonly tenants: readonly string[];
  readonly history: Entry[];
  readonly say: (line: string) => void;
};

export async function settingBack(
  fleet: TestFleet,
  options: SetBackOptions,
): Promise<SetBackReport> {
  const client = await openFleetClient(fleet);
  const settled = await settle(fleet, client, options);
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run, router: await routerOrigins(fleet) },
    streams: [{ tenants: settled.tenants, perSecond: options.writesPerSecond }],
  });
  const scene = { fleet, client, load, history, ...settled, say: options.say };
  try {
    await until("every tenant is written to", () => isServed(load, scene.tenants), servedWithinMs);
    const controlPlane = await setBackControlPlane(scene);
    for (const one of controlPlane.named) recorder.note({ kind: "reported-lost", ...one });
    const readBy = systemClock.monotonicMs() + servedWithinMs;
    for (const tenant of scene.tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, readBy);
    }
    // What the clone is about to do would be seen in what it acknowledges: nothing may be.
    const verdict = checkHistory(history);
    const { recoveredAfterMs, unserved, splits, epochsFell, othersRefused } = controlPlane.found;
    const counts = {
      recoveredAfterMs,
      unserved,
      splits,
      epochsFell,
      refused: othersRefused.length,
    };
    scene.say(`${JSON.stringify(counts)}; ${verdict.violations.length} violations`);
    const cell = await setBackCell(scene);
    return { controlPlane: { ...controlPlane.found, verdict }, cell };
  } finally {
    await load.close();
    await client.close();
  }
}

async function setBackControlPlane(scene: Scene) {
  const { fleet, client, load, homes, tenants, say } = scene;
  await dev(fleet, "stop", "control-plane");
  await copyDatabase(fleet, "control-plane");
  await dev(fleet, "start", "control-plane");
  await until("it answers", async () => (await fleet.cli("status")).code === 0, servedWithinMs);
  const mover = must(
    tenants.find((tenant) => homes.get(tenant) === "cell-01"),
    "a tenant of cell-01",
  );
  await runCli(fleet, "move", "start", mover, "--to", clone, "--soak", "1s", "--wait");
  await killCell(fleet, dead);
  const failover = await reported(client, dead, servedWithinMs);
  say(`${mover} moved, ${dead} killed: ${failover.headline}`);
  const before = await epochsOf(fleet);
  const setBackMs = now();
  const splits = watchSplits(fleet);
  await dev(fleet, "stop", "control-plane");
  await setBack(fleet, "control-plane");
  await dev(fleet, "start", "control-plane");
  const seen = await untilRecovered(scene);
  const recoveredAfterMs = now() - setBackMs;
  const sinceMs = now();
  const served = () => isServed(load, tenants, sinceMs);
  await until("every tenant is served", served, servedWithinMs).catch(() => {});
  await systemClock.sleep(calmMs);
  await load.stop();
  const moved = [mover, ...tenants.filter((tenant) => homes.get(tenant) === dead)];
  const found = {
    ...{ sawRecovering: seen.has("recovering"), recoveredAfterMs },
    unserved: tenants.filter((tenant) => !isServed(load, [tenant], sinceMs)),
    splits: await splits.stop(),
    epochsFell: fellFrom(before, await epochsOf(fleet)),
    othersRefused: refusedOf(load, setBackMs, moved),
  };
  return { found, named: namedLost(failover) };
}

/** With its modes on the way. */
async function untilRecovered({ fleet, say }: Scene): Promise<ReadonlySet<string>> {
  const seen = new Set<string>();
  const startedMs = now();
  await until(
    "the control plane has reconciled",
    async () => {
      const { code, stdout } = await fleet.cli("status", "-o", "json");
      if (code !== 0) return false;
      const { mode, modeReason } = statusSchema.parse(JSON.parse(stdout));
      if (!seen.has(mode)) say(`mode ${mode}: ${modeReason}`);
      seen.add(mode);
      return mode === "normal" && (seen.has("recovering") || now() - startedMs > 20_000);
    },
    servedWithinMs,
  );
  return seen;
}

async function setBackCell(scene: Scene): Promise<SetBackReport["cell"]> {
  const { fleet, homes, say } = scene;
  // Who lives in an annex has no partner that could vouch for the database when it was started again.
  const tenants = scene.tenants.filter((tenant) => homes.get(tenant) !== dead);
  // Its server stops for the copy: nobody is to take its tenants over meanwhile.
  await runCli(fleet, "failover", "policy", "off", "--reason", "a copy is made");
  await copyDatabase(fleet, clone);
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run: `${run}-clone` },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run: `${run}-clone`, router: await routerOrigins(fleet) },
    streams: [{ tenants, perSecond: 30 }],
  });
  try {
    await until("all are served", () => isServed(load, tenants), servedWithinMs);
    // The control plane has seen a later state than the copy's.
    await systemClock.sleep(seenMs);
    await stopControlPlane(fleet);
    say(`${clone} serves without a control plane; now its older copy comes`);
    await setBack(fleet, clone);
    const cloneMsAt = now();
    const splits = watchSplits(fleet);
    await systemClock.sleep(cloneMs);
    const theirs = load.samples.filter(({ sentMs }) => sentMs >= cloneMsAt);
    const acks = history.filter((one) => one.kind === "ok" && one.cell === clone);
    const acked = acks.filter((one) => "at" in one && one.at >= cloneMsAt);
    await startControlPlane(fleet);
    await until(
      "it is quarantined",
      async () => (await stateOf(fleet)).state !== "active",
      60_000,
    ).catch(() => {});
    await load.stop();
    const { state } = await stateOf(fleet);
    const events = (await fleet.cli("events")).stdout.split("\n");
    return {
      acknowledgedByClone: acked.length,
      refusedByClone: countedBy(theirs, ({ reason }) => reason || "acknowledged"),
      ...{
        state,
        reason: events.findLast((line) => line.includes("cell.quarantined")) ?? "",
        splits: await splits.stop(),
      },
    };
  } finally {
    await load.close();
  }
}

const stateOf = async (fleet: TestFleet) =>
  cellSchema.parse(await fleet.cliJson("cell", "get", clone));

/** Looks, again and again, whether a key has two databases that may write it. */
function watchSplits(fleet: TestFleet): { readonly stop: () => Promise<string[]> } {
  const over = new AbortController();
  const found = new Set<string>();
  const running = (async () => {
    while (!over.signal.aborted) {
      // A server that is being stopped or started answers nothing, and owns nothing.
      const owners = await ownersIn(fleet, living).catch(() => undefined);
      for (const one of owners === undefined ? [] : splitsOf(owners)) found.add(one);
      await systemClock.sleep(lookEveryMs, over.signal);
    }
  })();
  return {
    stop: async () => {
      over.abort();
      await running;
      return [...found];
    },
  };
}

async function epochsOf(fleet: TestFleet): Promise<ReadonlyMap<string, number>> {
  const { items } = tenantsSchema.parse(await fleet.cliJson("tenant", "ls"));
  return new Map(items.map(({ id, placement }) => [id, placement.epoch]));
}

const fellFrom = (before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>) =>
  [...before].flatMap(([tenant, epoch]) => {
    const later = after.get(tenant) ?? 0;
    return later < epoch ? [`${tenant}: from ${epoch} to ${later}`] : [];
  });

async function runCli(fleet: TestFleet, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await fleet.cli(...args);
  if (code !== 0) throw new Error(`cellctl ${args.join(" ")} ended with ${code}: ${stderr}`);
}

const now = (): number => systemClock.monotonicMs();
