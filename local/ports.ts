/**
 * Where the parts of a local fleet listen. A port given by a flag is used or refused by name; one
 * left to the system is remembered in the data folder, so that a restart keeps it if it is free.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import type { DataFolder } from "./data-folder.ts";
import { writeJson } from "./data-folder.ts";
import type { DevFlags } from "./dev-options.ts";
import { choosePort, isPortFree } from "./postgres/port.ts";

export type FleetPorts = {
  readonly controlPlane: number;
  readonly controlPlaneAdmin: number;
  readonly provider: number;
  readonly routers: ReadonlyArray<{
    readonly name: string;
    readonly port: number;
    readonly adminPort: number;
  }>;
};

const rememberedSchema = z.record(z.string(), z.number().int());

export async function fleetPorts(folder: DataFolder, flags: DevFlags): Promise<FleetPorts> {
  const file = join(folder.root, "ports.json");
  const remembered = await readRemembered(file);
  const chosen: Record<string, number> = {};
  const choose = async (name: string, given?: { flag: string; port: number }): Promise<number> => {
    const fixed = given !== undefined && given.port !== 0;
    if (fixed && !(await isPortFree(given.port))) throw taken(given.flag, given.port);
    const port = fixed ? given.port : await choosePort(remembered[name]);
    chosen[name] = port;
    return port;
  };
  const routers: Array<FleetPorts["routers"][number]> = [];
  for (let number = 1; number <= flags.routers; number += 1) {
    const name = `router-${String(number).padStart(2, "0")}`;
    const first = number === 1;
    routers.push({
      name,
      port: await choose(name, first ? { flag: "--port", port: flags.port } : undefined),
      adminPort: await choose(
        `${name}-admin`,
        first ? { flag: "--admin-port", port: flags.adminPort } : undefined,
      ),
    });
  }
  const ports = {
    routers,
    controlPlane: await choose("control-plane", {
      flag: "--control-plane-port",
      port: flags.controlPlanePort,
    }),
    controlPlaneAdmin: await choose("control-plane-admin"),
    provider: await choose("provider"),
  };
  await writeJson(file, chosen);
  return ports;
}

function taken(flag: string, port: number): CellError {
  return new CellError("CONFIG_INVALID", `port ${port} (${flag}) is taken by another process`, {
    details: { flag, port },
    nextSteps: [
      `cellctl dev ${flag} 0        # lets the system choose one`,
      `ss -ltnp 'sport = :${port}'   # shows who has it (macOS: lsof -i :${port})`,
    ],
  });
}

async function readRemembered(file: string): Promise<Readonly<Record<string, number>>> {
  try {
    return rememberedSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch {
    return {}; // First start.
  }
}
