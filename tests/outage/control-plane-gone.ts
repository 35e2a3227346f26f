/**
 * The control plane and its database are gone for minutes, under load; routers are restarted meanwhile. Then
 * a cell is killed as well, then the PostgreSQL of another is restarted; then the control plane comes back.
 *
 * What must be true: nobody is refused anything while it is gone; of the dead cell's tenants nothing is
 * acknowledged by anybody until the control plane is back; the others go on; the history names one owner.
 */
import type { Failover } from "../../contract/failover-api.ts";
import { checkHistory } from "../../history/check.ts";
import type { Entry, Verdict } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { readTenant } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { type OpenLoad, type Sample, startOpenLoad } from "../moves/open-load.ts";
import { type FleetClient, openFleetClient, routerOrigins } from "./fleet-client.ts";
import { dev, killCell, restartRouter, startControlPlane, stopControlPlane } from "./harm.ts";
import { isServed, namedLost, reported, settle } from "./settled.ts";

export type GoneOptions = {
  readonly minutes: number;
  readonly tenants: number;
  readonly writesPerSecond: number;
  readonly say: (line: string) => void;
};

export type GoneReport = {
  /** While nothing but the control plane was gone, and routers one by one. */
  readonly alone: {
    readonly minutes: number;
    readonly writes: number;
    readonly refused: readonly string[];
  };
  readonly deadCell: {
    /** Refusals of its tenants until the control plane was back, by reason. */
    readonly contained: Readonly<Record<string, number>>;
    /** Acknowledged by whomever after the cell was dead: a split. */
    readonly acknowledged: number;
    readonly othersRefused: readonly string[];
  };
  readonly restarted: {
    /** From when its PostgreSQL runs again to when the last of its tenants was served. */
    readonly servedAfterMs: number;
    readonly othersRefused: readonly string[];
  };
  readonly back: {
    /** From when the control plane was started until all tenants of the dead cell were served. */
    readonly servedAfterMs: number;
    readonly othersRefused: readonly string[];
    readonly failover: Failover;
  };
  readonly writes: number;
  readonly verdict: Verdict;
};

const run = "gone";
const dead = "cell-02";
const restarted = "cell-03";
const servedWithinMs = 120_000;
/** Longer than every lease. */
const containedMs = 12_000;
const calmMs = 3000;

export async function controlPlaneGone(
  fleet: TestFleet,
  options: GoneOptions,
): Promise<GoneReport> {
  const client = await openFleetClient(fleet);
  const { homes, tenants } = await settle(fleet, client, options);
  const routers = [...(await routerOrigins(fleet))];
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run, router: routers },
    streams: [{ tenants, perSecond: options.writesPerSecond }],
  });
  try {
    await until("every tenant is written to", () => isServed(load, tenants), servedWithinMs);
    await systemClock.sleep(calmMs);
    const scene = { fleet, client, load, routers, homes, tenants, say: options.say };
    const alone = await goneAlone(scene, options.minutes);
    const deadCell = await goneWithCell(scene);
    const again = await goneWithRestart(scene);
    const back = await comeBack(scene, deadCell.killedMs);
    await load.stop();
    const deadlineMs = systemClock.monotonicMs() + servedWithinMs;
    for (const tenant of tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, deadlineMs);
    }
    for (const { tenant, value } of namedLost(back.failover)) {
      recorder.note({ kind: "reported-lost", tenant, value });
    }
    const { samples } = load;
    return {
      ...{ alone, deadCell, restarted: again, back },
      ...{ writes: samples.length, verdict: checkHistory(history) },
    };
  } finally {
    await load.close();
    await client.close();
  }
}

type Scene = {
  readonly fleet: TestFleet;
  readonly client: FleetClient;
  readonly load: OpenLoad;
  readonly routers: string[];
  readonly homes: ReadonlyMap<string, string>;
  readonly tenants: readonly string[];
  readonly say: (line: string) => void;
};

const now = (): number => systemClock.monotonicMs();

async function goneAlone(scene: Scene, minutes: number): Promise<GoneReport["alone"]> {
  const { fleet, routers, load, tenants, say } = scene;
  const sinceMs = now();
  await stopControlPlane(fleet);
  say("control plane and its database are gone");
  const origins = [...routers];
  for (const [at, origin] of origins.entries()) {
    await systemClock.sleep((minutes * 60_000) / (origins.length + 1));
    const name = `router-0${at + 1}`;
    await restartRouter(fleet, routers, { name, origin, tenant: tenants[0] ?? "" });
    say(`${name} restarted; refused so far: ${refusedOf(load, sinceMs).length}`);
  }
  await systemClock.sleep(Math.max(0, sinceMs + minutes * 60_000 - now()));
  return {
    minutes: (now() - sinceMs) / 60_000,
    writes: load.samples.filter(({ sentMs }) => sentMs >= sinceMs).length,
    refused: refusedOf(load, sinceMs),
  };
}

async function goneWithCell(
  scene: Scene,
): Promise<GoneReport["deadCell"] & { readonly killedMs: number }> {
  const { fleet, load, say } = scene;
  const sinceMs = now();
  await killCell(fleet, dead);
  const killedMs = now();
  say(`${dead} killed; ${refusedOf(load, 0).length} refused before`);
  await systemClock.sleep(containedMs);
  const mine = tenantsOf(scene, dead);
  const theirs = load.samples.filter(
    ({ tenant, sentMs }) => mine.includes(tenant) && sentMs >= killedMs,
  );
  return {
    killedMs,
    contained: countedBy(theirs, ({ reason }) => reason || "acknowledged"),
    acknowledged: theirs.filter(({ outcome }) => outcome === "ok").length,
    othersRefused: refusedOf(load, sinceMs, mine),
  };
}

async function goneWithRestart(scene: Scene): Promise<GoneReport["restarted"]> {
  const { fleet, load, say } = scene;
  const sinceMs = now();
  await dev(fleet, "stop", `${restarted}-db`);
  say(`PostgreSQL of ${restarted} stopped`);
  await dev(fleet, "start", `${restarted}-db`);
  const upMs = now();
  const mine = tenantsOf(scene, restarted);
  await until(`${restarted} serves`, () => isServed(load, mine, upMs), servedWithinMs);
  const servedAfterMs = servedSince(load, mine, upMs);
  say(`${restarted} serves ${Math.round(servedAfterMs)} ms after its PostgreSQL`);
  await systemClock.sleep(calmMs);
  const known = [...mine, ...tenantsOf(scene, dead)];
  return { servedAfterMs, othersRefused: refusedOf(load, sinceMs, known) };
}

async function comeBack(scene: Scene, killedMs: number): Promise<GoneReport["back"]> {
  const { fleet, client, load, say } = scene;
  const sinceMs = now();
  await startControlPlane(fleet);
  say("the control plane is back");
  const mine = tenantsOf(scene, dead);
  const early = servedCount(load, mine, killedMs);
  const failover = await reported(client, dead, servedWithinMs);
  say(`${failover.id} ${failover.step}: ${failover.headline}; ${early} acknowledged before`);
  await until(
    `${dead}'s tenants are served`,
    () => isServed(load, mine, now() - 5000),
    servedWithinMs,
  );
  const servedAfterMs = servedSince(load, mine, sinceMs);
  await systemClock.sleep(calmMs);
  return { servedAfterMs, othersRefused: refusedOf(load, sinceMs, mine), failover };
}

const tenantsOf = ({ homes, tenants }: Scene, cell: string): readonly string[] =>
  tenants.filter((tenant) => homes.get(tenant) === cell);

/** When the last of them had its first acknowledgement of what was sent since then. */
function servedSince(load: OpenLoad, tenants: readonly string[], sinceMs: number): number {
  const firsts = tenants.map((tenant) =>
    Math.min(
      ...load.samples
        .filter((one) => one.tenant === tenant && one.outcome === "ok" && one.sentMs >= sinceMs)
        .map(({ sentMs, tookMs }) => sentMs + tookMs),
    ),
  );
  return Math.max(...firsts) - sinceMs;
}

const servedCount = (load: OpenLoad, tenants: readonly string[], sinceMs: number): number =>
  load.samples.filter(
    ({ tenant, outcome, sentMs }) =>
      outcome === "ok" && sentMs >= sinceMs && tenants.includes(tenant),
  ).length;

export function refusedOf(load: OpenLoad, sinceMs: number, but: readonly string[] = []): string[] {
  return load.samples
    .filter(
      ({ tenant, outcome, sentMs, tookMs }) =>
        outcome !== "ok" && sentMs + tookMs >= sinceMs && !but.includes(tenant),
    )
    .map(
      ({ tenant, sentMs, tookMs, reason }) =>
        `${tenant} +${Math.round(sentMs - sinceMs)} ms (${Math.round(tookMs)} ms) ${reason}`,
    );
}

export function countedBy(
  samples: readonly Sample[],
  name: (sample: Sample) => string,
): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const one of samples) counts[name(one)] = (counts[name(one)] ?? 0) + 1;
  return counts;
}
