/**
 * What is done to the fleet, one after the other: each row says who cannot hear whom, or who stands still, and
 * what may come of it. Who may be refused is part of the promise: a cut that touches one cell costs nobody else.
 */
import pg from "pg";
import type { Recorder } from "../../../history/recorder.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { until } from "../../fleet.ts";
import { enterAndWrite } from "./direct-writer.ts";
import { apart, half, type Place, type World } from "./world.ts";

export type Stage = {
  readonly world: World;
  readonly victim: string;
  readonly others: readonly string[];
  readonly tenants: readonly string[];
  readonly recorder: Recorder;
  readonly run: string;
  readonly say: (line: string) => void;
  /** Until a failover of the victim has given its tenants away. */
  readonly adopted: () => Promise<void>;
  /** Until a failover of the victim is done. */
  readonly ended: () => Promise<void>;
};

export type Scenario = {
  readonly name: string;
  readonly says: string;
  readonly failovers: 0 | 1;
  /**
   * Whose orders may be refused or stay open meanwhile. With those that it keeps: tenants of other cells
   * whose standby is on the lost one, which stop where it promises nothing to a cell that asks (promise 4).
   */
  readonly refused: "nobody" | "its tenants" | "its tenants and those it keeps" | "anybody";
  /** A job writes to the victim's database all the time, past router and gate. */
  readonly direct?: boolean;
  /** Clocks of databases are set. */
  readonly clocks?: boolean;
  /** Cuts, holds; whatever it did is undone afterwards. */
  readonly act: (stage: Stage) => Promise<void>;
};

const sleep = (ms: number) => systemClock.sleep(ms);
/** Above the lease of 4 s and all that is judged by it. */
const holdMs = 12_000;
const zombieMs = 6000;
const unpromisedMs = 60_000;

/** The victim, cut off from everybody but the first router, which hears nobody else's news. */
async function besiege(
  { world, victim, others }: Stage,
  cut: (hub: World["hub"], from: Place, to: Place) => void,
): Promise<void> {
  const { hub } = world;
  const mine = await world.cell(victim);
  const plane = await world.plane();
  const neighbours = await Promise.all(others.map(world.cell));
  // A slow machine looks like a silent control plane for moments.
  await until("no promise is left", () => world.unpromised(victim), unpromisedMs);
  for (const other of neighbours) cut(hub, mine, other);
  cut(hub, mine, plane);
  cut(hub, mine, world.router("router-02"));
  apart(hub, world.router("router-01"), plane);
  await world.freezeStreams(victim);
}

const adoptedThen = async (stage: Stage): Promise<void> => {
  await stage.adopted();
  await sleep(zombieMs);
};

export const scenarios: readonly Scenario[] = [
  {
    name: "cell-from-plane",
    says: "a cell cut off from the control plane, but neither from its partners nor from a router that is cut off too",
    ...{ failovers: 0, refused: "nobody", direct: true },
    act: async ({ world, victim }) => {
      const plane = await world.plane();
      apart(world.hub, await world.cell(victim), plane);
      apart(world.hub, world.router("router-01"), plane);
      await sleep(holdMs);
    },
  },
  {
    name: "zombie-with-stale-router",
    says: "a cell cut off from everybody but a router that hears no news",
    ...{ failovers: 1, refused: "its tenants", direct: true },
    act: async (stage) => {
      await besiege(stage, apart);
      await adoptedThen(stage);
    },
  },
  {
    name: "router-alone-with-zombie",
    says: "the same, and the stale router reaches no other cell",
    ...{ failovers: 1, refused: "anybody", direct: true },
    act: async (stage) => {
      const { world, others } = stage;
      for (const other of await Promise.all(others.map(world.cell))) {
        apart(world.hub, world.router("router-01"), other);
      }
      await besiege(stage, apart);
      await adoptedThen(stage);
    },
  },
  {
    name: "mute-cell",
    says: "a cell that hears everybody and is heard by a stale router alone",
    ...{ failovers: 1, refused: "its tenants", direct: true },
    act: async (stage) => {
      await besiege(stage, half);
      await adoptedThen(stage);
    },
  },
  {
    name: "plane-alone",
    says: "a control plane cut off from everything",
    ...{ failovers: 0, refused: "nobody" },
    act: async ({ world, victim, others }) => {
      const plane = await world.plane();
      for (const cell of [victim, ...others]) apart(world.hub, await world.cell(cell), plane);
      for (const router of ["router-01", "router-02"])
        apart(world.hub, world.router(router), plane);
      await sleep(holdMs);
    },
  },
  {
    name: "deaf-plane",
    says: "a control plane that is heard by all and hears nobody",
    ...{ failovers: 0, refused: "nobody" },
    act: async ({ world, victim, others }) => {
      const plane = await world.plane();
      for (const cell of [victim, ...others]) half(world.hub, await world.cell(cell), plane);
      await sleep(holdMs);
    },
  },
  {
    name: "deaf-agent",
    says: "an agent whose calls arrive and whose answers do not: the leases that it is granted never reach it",
    ...{ failovers: 0, refused: "nobody" },
    act: async ({ world, victim }) => {
      half(world.hub, await world.plane(), await world.cell(victim));
      await sleep(holdMs);
    },
  },
  {
    name: "mute-gate",
    says: "a gate whose answers reach no router: everything is written and nothing acknowledged",
    ...{ failovers: 0, refused: "its tenants" },
    act: async ({ world, victim }) => {
      const mine = await world.cell(victim);
      for (const router of ["router-01", "router-02"]) half(world.hub, mine, world.router(router));
      await sleep(6000);
    },
  },
  {
    name: "stop-agent",
    says: "a cell's agent stands still past its lease, and goes on when others own its tenants",
    ...{ failovers: 1, refused: "its tenants", direct: true },
    act: async (stage) => {
      stage.world.stop(...(await stage.world.pids(`${stage.victim}-agent`)));
      await adoptedThen(stage);
    },
  },
  {
    name: "stop-application",
    says: "an application stands still for longer than a lease",
    ...{ failovers: 0, refused: "its tenants", direct: true },
    act: async ({ world, victim }) => {
      world.stop(...(await world.pids(`${victim}-app`)));
      await sleep(8000);
    },
  },
  {
    name: "stop-cell",
    says: "all processes of a cell stand still during its failover, with their sockets open",
    ...{ failovers: 1, refused: "its tenants", direct: true },
    act: async (stage) => {
      const { world, victim } = stage;
      const annexes = stage.others.map((other) => `sb-${other}-${victim}-agent`);
      const units = [`${victim}-agent`, `${victim}-app`, ...annexes, `${victim}-postgres`];
      world.stop(...(await world.pids(...units)));
      await adoptedThen(stage);
    },
  },
  {
    name: "stop-backend",
    says: "a PostgreSQL backend stands still between the guard's check and its commit, until others own the tenant",
    ...{ failovers: 1, refused: "its tenants" },
    act: async (stage) => {
      const { world, victim } = stage;
      const commit = await stoppedTransaction(stage);
      world.stop(...(await world.pids(`${victim}-agent`)));
      await adoptedThen(stage);
      stage.say(`its commit: ${await commit()}`);
    },
  },
  {
    name: "clock-ahead",
    says: "a cell's clock is set 5 s ahead, and back again",
    ...{ failovers: 0, refused: "its tenants", direct: true, clocks: true },
    act: async ({ world, victim }) => {
      await world.setClock(victim, 5);
      await sleep(6000);
      await world.setClock(victim, 0);
      await sleep(6000);
    },
  },
  {
    name: "clock-back",
    says: "a cell's clock is set back by 5 s while its agent stands still: its database takes the lease for valid for longer",
    ...{ failovers: 1, refused: "its tenants", direct: true, clocks: true },
    act: async (stage) => {
      const { world, victim } = stage;
      world.stop(...(await world.pids(`${victim}-agent`)));
      await world.setClock(victim, -5);
      await adoptedThen(stage);
    },
  },
];

/** Wrote, and stands still before its commit; returns how to let it go on and commit. */
async function stoppedTransaction(stage: Stage): Promise<() => Promise<string>> {
  const { world, victim, tenants, recorder, run } = stage;
  const url = (await world.fleet.endpoints()).cells[victim]?.database ?? "";
  const [tenant = ""] = tenants;
  const value = `${run}/stopped`;
  const client = new pg.Client(url);
  client.on("error", () => {}); // The commit has it too.
  await client.connect();
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  const pid = rows[0]?.pid ?? 0;
  const recorded = recorder.invoke({ process: "stopped", tenant, value });
  await client.query("begin");
  await enterAndWrite(client, tenant, value);
  world.stop(pid);
  const committing = client.query("commit").then(
    ({ command }) => command,
    (error: unknown) => String(error),
  );
  return async () => {
    world.go(pid);
    const end = await committing;
    if (end.startsWith("error")) recorded.fail(end);
    else recorded.info(end);
    await client.end().catch(() => {});
    return end;
  };
}
