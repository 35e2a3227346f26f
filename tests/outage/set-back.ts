/**
 * The control plane's database is set back to an older state under load: to before a move and a failover.
 *
 * What must be true: no key has two databases that may write it, at no look; epochs do not fall; nothing that was
 * acknowledged is gone; tenants that an annex had adopted are in whole cells again by themselves.
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
import { refusedOf } from "./control-plane-gone.ts";
import { type FleetClient, openFleetClient, routerOrigins } from "./fleet-client.ts";
import { copyDatabase, dev, killCell, setBack } from "./harm.ts";
import { isServed, namedLost, reported, settle } from "./settled.ts";
import { watchSplits } from "./splits.ts";

export type SetBackOptions = {
  readonly tenants: number;
  readonly writesPerSecond: number;
  readonly say: (line: string) => void;
};

export type SetBackReport = {
  readonly sawRecovering: boolean;
  readonly recoveredAfterMs: number;
  /** Once recovered, of tenants that are not served within two minutes. */
  readonly unserved: readonly string[];
  /** Still in annexes, where nothing protects them, after two minutes. */
  readonly unprotected: readonly string[];
  readonly splits: readonly string[];
  readonly epochsFell: readonly string[];
  /** While nothing is granted, until all have spoken: of tenants that neither moved nor were in the dead cell. */
  readonly othersRefused: readonly string[];
  readonly verdict: Verdict;
};

const run = "set-back";
const dead = "cell-02";
const other = "cell-03";
const living = ["cell-01", other];
const servedWithinMs = 120_000;
const calmMs = 3000;

const statusSchema = z.looseObject({ mode: z.string(), modeReason: z.string() });
const tenantsSchema = z.looseObject({
  items: z.array(
    z.looseObject({
      id: z.string(),
      placement: z.looseObject({ epoch: z.number(), cell: z.string() }),
    }),
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
    return { ...controlPlane.found, verdict: checkHistory(history) };
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
  await runCli(fleet, "move", "start", mover, "--to", other, "--soak", "1s", "--wait");
  await killCell(fleet, dead);
  const failover = await reported(client, dead, servedWithinMs);
  say(`${mover} moved, ${dead} killed: ${failover.headline}`);
  const before = await epochsOf(fleet);
  const setBackMs = now();
  const splits = watchSplits(fleet, living);
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
  const home = async () => (await inAnnexes(fleet)).length === 0;
  await until("every tenant is in a whole cell", home, servedWithinMs).catch(() => {});
  const moved = [mover, ...tenants.filter((tenant) => homes.get(tenant) === dead)];
  const found = {
    ...{ sawRecovering: seen.has("recovering"), recoveredAfterMs },
    unserved: tenants.filter((tenant) => !isServed(load, [tenant], sinceMs)),
    unprotected: await inAnnexes(fleet),
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

/** An annex's id says so. */
async function inAnnexes(fleet: TestFleet): Promise<string[]> {
  const { items } = tenantsSchema.parse(await fleet.cliJson("tenant", "ls"));
  return items.filter(({ placement }) => placement.cell.startsWith("sb-")).map(({ id }) => id);
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
