/**
 * A whole fleet on one machine, from an empty folder or from one that was used before: what
 * `cellctl dev` runs. Every part is a process of its own; this is their supervisor.
 *
 * The order is forced by few things: a control plane needs its database; new cells and routers need
 * a control plane (tokens, operations); known ones do not, so on a second start all begin at once.
 * Whatever fails, everything that was started is stopped again.
 */
import { join } from "node:path";
import type { Endpoints } from "../contract/provider-api.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { bringUp, type FleetParts, type FleetWishes, samplePath } from "./bring-up.ts";
import { openCells } from "./cell-processes.ts";
import { environmentOfChildren } from "./child-environment.ts";
import { chooseApplication } from "./choose-application.ts";
import {
  announceDoor,
  type DataFolder,
  keepSecret,
  openDataFolder,
  releaseFolder,
  secretFile,
  takeFolder,
  writeJson,
} from "./data-folder.ts";
import type { DevFlags } from "./dev-options.ts";
import { createFleetClient } from "./fleet-client.ts";
import { createFleetUnits } from "./fleet-units.ts";
import { trim } from "./log-file.ts";
import { endLeftovers } from "./node-process.ts";
import { fleetPorts } from "./ports.ts";
import { findPostgres } from "./postgres/binaries.ts";
import { compiledCodeFolder } from "./postgres/machine-folder.ts";
import type { TemplateTools } from "./postgres/template.ts";
import { urlOf } from "./programs.ts";
import { startProviderServer } from "./provider-server.ts";
import type { Unit, UnitStatus } from "./unit.ts";

export type DevFleet = {
  /** Resolves when a request has gone through a router; on failure everything is stopped again. */
  readonly start: (aborted: AbortSignal) => Promise<Started>;
  /** Every process, in order. May be called at any time, and twice. */
  readonly stop: () => Promise<void>;
  /** Every process at once, without asking. */
  readonly kill: () => Promise<void>;
};

export type Started = {
  readonly endpoints: Endpoints;
  readonly wishes: FleetWishes;
};

export type DevFleetOptions = {
  readonly flags: DevFlags & { readonly data: string };
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  /** One line about what has just been done. */
  readonly say: (line: string) => void;
};

const leftoverGraceMs = 3000;
const trimEveryMs = 30_000;

export function createDevFleet(options: DevFleetOptions): DevFleet {
  const { flags, env, clock, random, say } = options;
  const undo: Array<() => Promise<void>> = [];
  let parts: Opened | undefined;
  const stop = once(async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  });

  async function open(): Promise<Opened> {
    const installation = await findPostgres({ env, random });
    say(`PostgreSQL ${installation.version} from ${installation.origin}`);
    const folder = await openDataFolder(flags.data, installation.runAs, random);
    await takeFolder(folder);
    undo.push(() => releaseFolder(folder));
    const ended = await endLeftovers(folder.notes, leftoverGraceMs, clock);
    if (ended.length > 0) say(`ended what a killed supervisor left: ${ended.join(", ")}`);
    return openParts({ ...options, folder, tools: { installation, clock, random } });
  }

  return {
    start: async (aborted) => {
      try {
        parts = await open();
        undo.push(parts.close);
        await bringUp(parts, { ...options, ...flags }, aborted);
        return { endpoints: await parts.publish(), wishes: parts.wishes };
      } catch (error) {
        // Stopping takes a moment; the reason should not wait for it.
        if (!aborted.aborted) say(`not started: ${error instanceof Error ? error.message : error}`);
        await stop();
        throw error;
      }
    },
    stop,
    kill: async () => {
      const units = parts === undefined ? [] : unitsOf(parts);
      await Promise.all(units.map((unit) => unit.kill()));
    },
  };
}

/** Everything, not yet started, and the door open. */
type Opened = FleetParts & {
  readonly folder: DataFolder;
  /** Writes endpoints.json, from then on after every change of a cell. */
  readonly publish: () => Promise<Endpoints>;
  readonly close: () => Promise<void>;
};

const unitsOf = ({ units, cells }: Pick<Opened, "units" | "cells">): readonly Unit[] => [
  ...units.all(),
  ...cells.units(),
];

async function openParts(
  options: DevFleetOptions & { readonly folder: DataFolder; readonly tools: TemplateTools },
): Promise<Opened> {
  const { flags, env, clock, random, say, folder, tools } = options;
  const ports = await fleetPorts(folder, flags, random);
  const { runAs } = tools.installation;
  const childEnv = {
    NODE_COMPILE_CACHE: await compiledCodeFolder(runAs, clock.nowMs()),
    ...environmentOfChildren(env),
  };
  const onChange = ({ name, state, text, restarts }: UnitStatus) => {
    if (state === "dead") say(`${name}: ${text}`);
    if (state === "running" && restarts > 0) say(`${name}: started again (${restarts})`);
  };
  const onFault = (error: unknown) => say(`fault in the supervisor: ${String(error)}`);
  const { application, wishes } = await chooseApplication(options, folder);
  const cells = await openCells({
    folder,
    tools,
    application,
    controlPlaneUrl: urlOf(ports.controlPlane),
    env: childEnv,
    onChange,
    say,
  });
  const units = createFleetUnits({
    folder,
    ports,
    tools,
    env: childEnv,
    databaseUrl: filled(env["DATABASE_URL"]),
    flags,
    isSample: wishes.path === samplePath,
    say,
    onChange,
  });
  // Not before the fleet is ready; then one after the other, as they go to one file.
  let published: Promise<Endpoints> | undefined;
  const publish = (): Promise<Endpoints> => {
    const write = () => writeEndpoints({ folder, ports, cells });
    published = published === undefined ? write() : published.then(write, write);
    return published;
  };
  const secret = (name: string) => keepSecret(secretFile(folder, name), () => random.hex(32));
  const door = await startProviderServer({
    port: ports.provider,
    token: await secret("provider-token"),
    cells,
    units: () => unitsOf({ units, cells }),
    onCells: async () => {
      // What was asked for is done, whether or not the file could be written.
      if (published !== undefined) await publish().catch(onFault);
    },
    onFault,
  });
  await announceDoor(folder, urlOf(door.port));
  const api = createFleetClient({
    origin: urlOf(ports.controlPlane),
    token: await secret("cli-token"),
    clock,
    random,
  });
  const over = new AbortController();
  void (async () => {
    while (!over.signal.aborted) {
      await clock.sleep(trimEveryMs, over.signal);
      for (const { name } of unitsOf({ units, cells })) {
        await trim(join(folder.logs, `${name}.log`)).catch(() => {}); // Removed meanwhile.
      }
    }
  })();
  return {
    folder,
    ports,
    cells,
    units,
    api,
    wishes,
    publish,
    close: async () => {
      say("stopping");
      over.abort();
      await api.close();
      await door.close();
      // Nobody asks any more: routers first, so that nothing new comes in.
      await units.stopRouters();
      await Promise.all([cells.stopAll(), units.stopControlPlane()]);
    },
  };
}

async function writeEndpoints({
  folder,
  ports,
  cells,
}: Pick<Opened, "folder" | "ports" | "cells">): Promise<Endpoints> {
  const entries = cells.ids().flatMap((id) => {
    const [gate, login] = [cells.ports(id)?.gate, cells.logins(id)];
    return gate === undefined || login === undefined
      ? []
      : [[id, { url: urlOf(gate), database: login.app }] as const];
  });
  const endpoints = {
    router: urlOf(ports.routers[0]?.port ?? 0),
    routerAdmin: urlOf(ports.routers[0]?.adminPort ?? 0),
    controlPlane: urlOf(ports.controlPlane),
    cells: Object.fromEntries(entries),
  };
  await writeJson(join(folder.root, "endpoints.json"), endpoints);
  return endpoints;
}

const filled = (raw: string | undefined): string | undefined =>
  raw === undefined || raw === "" ? undefined : raw;

function once(work: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined;
  return () => {
    done ??= work();
    return done;
  };
}
