/**
 * A small fleet whose links can be cut and whose processes can be stopped: who is where, by which name and
 * port, and how one is cut off, frozen and given back.
 *
 * What must always be true: `heal` undoes all of it, so that whatever is wrong afterwards is the fleet's fault.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { startFleet, type TestFleet } from "../../fleet.ts";
import { inDatabase, superuserUrls } from "../../moves/cell-databases.ts";
import { type StoppingControlPlane, takeControl } from "../../moves/stopping-fleet.ts";
import { childrenOf } from "./processes.ts";
import { type Switch, startSwitch } from "./switch.ts";

const reviewMs = 250;
const portsSchema = z.object({ gate: z.number() });

export type Place = {
  readonly name: string;
  /** Names of what runs there, as the switch knows it. */
  readonly names: ReadonlySet<string>;
  /** What listens there. */
  readonly ports: ReadonlySet<number>;
};

export type World = Awaited<ReturnType<typeof openWorld>>;

export async function openWorld(routers: number) {
  const hub = await startSwitch();
  const preload = new URL("cut-spawn.ts", import.meta.url);
  preload.searchParams.set("switch", String(hub.port));
  const fleet = await startFleet({
    ...{ cells: 3, standbyPartners: 2, nodeFlags: ["--import", preload.href] },
    flags: ["--no-demo", "--routers", String(routers)],
  });
  const superusers = await superuserUrls(fleet);
  const stopped = new Set<number>();
  const clocks = new Set<string>();
  let watch: NodeJS.Timeout | undefined;
  let control: StoppingControlPlane | undefined;

  function stop(...pids: readonly number[]): void {
    for (const pid of pids) {
      if (stopped.has(pid)) continue;
      stopped.add(pid);
      signal(pid, "SIGSTOP");
    }
  }
  function go(...pids: readonly number[]): void {
    for (const pid of pids.length > 0 ? pids : [...stopped]) {
      if (stopped.delete(pid)) signal(pid, "SIGCONT");
    }
  }

  /** Of every server, with what else would cross the border of the cell; new ones too, until `heal`. */
  async function freezeStreams(cell: string): Promise<void> {
    const mine = cell.replaceAll("-", "_");
    const look = async () => {
      for (const [at, url] of superusers) {
        // Not itself stopped: then nobody would answer.
        const senders = await sendersAt(url).catch(() => []);
        stop(
          ...senders.filter(({ name }) => at === cell || name.includes(mine)).map(({ pid }) => pid),
        );
      }
    };
    await look();
    watch ??= setInterval(() => void look(), reviewMs);
  }

  async function setClock(cell: string, seconds: number): Promise<void> {
    clocks.add(cell);
    await inDatabase(superusers.get(cell) ?? "", (client) =>
      client.query(`create or replace function cellfleet.clock() returns timestamptz
        language sql volatile parallel safe
        begin atomic
          select pg_catalog.clock_timestamp() + interval '${seconds} seconds';
        end`),
    );
  }

  return {
    ...{ fleet, hub, superusers, stop, go, freezeStreams, setClock },
    /** Those that send a cell's own log away. */
    senders: async (cell: string): Promise<readonly number[]> =>
      (await sendersAt(superusers.get(cell) ?? "")).map(({ pid }) => pid),
    /** A control plane that stands still where it is told, in place of the fleet's own. */
    takeControl: async (): Promise<StoppingControlPlane> => {
      control ??= await takeControl(fleet);
      return control;
    },
    unpromised: (cell: string) => noPromise(fleet, superusers, cell),
    /** The number of the last lease that the control plane gave the cell. */
    granted: (cell: string) => grantedTo(superusers, cell),
    /** A machine: the cell, and the annexes in it. */
    cell: (cell: string) => cellPlace(fleet, cell, superusers),
    plane: async (): Promise<Place> => ({
      ...{ name: "control-plane", names: new Set(["control-plane"]) },
      ports: new Set([Number(new URL((await fleet.endpoints()).controlPlane).port)]),
    }),
    router: (name: string): Place => ({ name, names: new Set([name]), ports: new Set() }),
    /** Of units such as `cell-02-agent`; with `postgres` the whole server of the cell. */
    pids: async (...units: readonly string[]): Promise<readonly number[]> =>
      (await Promise.all(units.map((unit) => pidsOf(fleet, unit)))).flat(),
    heal: async (): Promise<void> => {
      clearInterval(watch);
      watch = undefined;
      hub.heal();
      go();
      for (const cell of clocks) await setClock(cell, 0);
    },
    close: async (): Promise<void> => {
      clearInterval(watch);
      hub.heal();
      go();
      await control?.kill();
      await fleet.stop();
      await hub.close();
    },
  };
}

const sendersAt = (url: string) =>
  inDatabase(url, async (client) => {
    const { rows } = await client.query<{ pid: number; name: string }>(
      "select pid, application_name as name from pg_stat_replication",
    );
    return rows;
  });

async function grantedTo(superusers: ReadonlyMap<string, string>, cell: string): Promise<number> {
  const url = superusers.get(cell);
  if (url === undefined) throw new Error(`no server of ${cell}`);
  return inDatabase(url, async (client) => {
    const { rows } = await client.query<{ number: number }>(
      "select coalesce(control_grant, lease_grant)::float8 as number from cellfleet.grant_seen",
    );
    return rows[0]?.number ?? 0;
  });
}

/** No partner has promised the cell anything: what is promised holds a takeover up for long. */
async function noPromise(
  fleet: TestFleet,
  superusers: ReadonlyMap<string, string>,
  cell: string,
): Promise<boolean> {
  for (const [at, url] of superusers) {
    const annexes = (await annexesIn(fleet, at)).filter((one) => one.startsWith(`sb-${cell}-`));
    for (const annex of annexes) {
      const one = new URL(url);
      one.pathname += `__${annex.replaceAll("-", "_")}`;
      const promised = await inDatabase(one.href, async (client) => {
        const { rows } = await client.query<{ ms: string }>(
          "select promised_ms::text as ms from cellfleet.annex_of",
        );
        return rows.some(({ ms }) => ms !== "0");
      });
      if (promised) return false;
    }
  }
  return true;
}

/** Both ways, also what the other one opened. */
export function apart(hub: Switch, one: Place, other: Place): void {
  half(hub, one, other);
  half(hub, other, one);
}

/** Nothing that `from` says reaches `to`, be it asked or answered; `to` is heard by `from`. */
export function half(hub: Switch, from: Place, to: Place): void {
  hub.cut(
    {
      from: (name) => from.names.has(name),
      to: (port) => to.ports.has(port),
      ...{ forward: true, backward: false },
    },
    {
      from: (name) => to.names.has(name),
      to: (port) => from.ports.has(port),
      ...{ forward: false, backward: true },
    },
  );
}

async function cellPlace(
  fleet: TestFleet,
  cell: string,
  superusers: ReadonlyMap<string, string>,
): Promise<Place> {
  const home = join(fleet.dataDir, "cells", cell);
  const annexes = await annexesIn(fleet, cell);
  const files = [
    join(home, "cell.json"),
    ...annexes.map((annex) => join(home, "annexes", annex, "annex.json")),
  ];
  const gates = await Promise.all(
    files.map(async (file) => {
      const found: unknown = JSON.parse(await readFile(file, "utf8"));
      const { ports } = z.object({ ports: portsSchema.optional() }).parse(found);
      return (ports ?? portsSchema.parse(found)).gate;
    }),
  );
  const database = Number(new URL(superusers.get(cell) ?? "").port);
  return {
    name: cell,
    names: new Set([`agent:${cell}`, ...annexes.map((annex) => `agent:${annex}`)]),
    ports: new Set([...gates, database]),
  };
}

export async function annexesIn(fleet: TestFleet, cell: string): Promise<readonly string[]> {
  const { readdir } = await import("node:fs/promises");
  return readdir(join(fleet.dataDir, "cells", cell, "annexes")).catch(() => []);
}

async function pidsOf(fleet: TestFleet, unit: string): Promise<readonly number[]> {
  const server = /^(.*)-postgres$/.exec(unit)?.[1];
  if (server === undefined) {
    const note = await readFile(join(fleet.dataDir, "processes", `${unit}.json`), "utf8");
    const { pid } = z.object({ pid: z.number() }).parse(JSON.parse(note));
    return [pid];
  }
  const file = join(fleet.dataDir, "cells", server, "postgres", "postmaster.pid");
  const [first = ""] = (await readFile(file, "utf8")).split("\n");
  return [Number(first), ...(await childrenOf(Number(first)))];
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended meanwhile.
  }
}
