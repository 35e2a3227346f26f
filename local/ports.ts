/**
 * Where the parts of a local fleet listen. A port given by a flag is used or refused by name; one
 * left to the system is remembered in the data folder, so that a restart keeps it if it is free.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import type { Random } from "../runtime/random.ts";
import type { DataFolder } from "./data-folder.ts";
import { writeJson } from "./data-folder.ts";
import type { DevFlags } from "./dev-options.ts";
import { choosePorts, isPortFree } from "./postgres/port.ts";

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

export async function fleetPorts(
  folder: DataFolder,
  flags: DevFlags,
  random: Random,
): Promise<FleetPorts> {
  const file = join(folder.root, "ports.json");
  const given: Readonly<Record<string, { readonly flag: string; readonly port: number }>> = {
    "router-01": { flag: "--port", port: flags.port },
    "router-01-admin": { flag: "--admin-port", port: flags.adminPort },
    "control-plane": { flag: "--control-plane-port", port: flags.controlPlanePort },
  };
  const routers = Array.from({ length: flags.routers }, (_, index) => routerName(index + 1));
  const names = [
    ...Object.keys(given),
    ...routers.slice(1).flatMap((name) => [name, `${name}-admin`]),
    "control-plane-admin",
    "provider",
  ];
  const remembered = await readRemembered(file);
  const wishes: Array<number | undefined> = [];
  for (const name of names) {
    const { flag, port } = given[name] ?? { flag: "", port: 0 };
    if (port !== 0 && !(await isPortFree(port))) throw taken(flag, port);
    wishes.push(port === 0 ? remembered[name] : port);
  }
  const ports = await choosePorts(wishes, random);
  const chosen = Object.fromEntries(names.map((name, index) => [name, ports[index] ?? 0]));
  await writeJson(file, chosen);
  const portOf = (name: string): number => chosen[name] ?? 0;
  return {
    routers: routers.map((name) => ({
      name,
      port: portOf(name),
      adminPort: portOf(`${name}-admin`),
    })),
    controlPlane: portOf("control-plane"),
    controlPlaneAdmin: portOf("control-plane-admin"),
    provider: portOf("provider"),
  };
}

const routerName = (number: number): string => `router-${String(number).padStart(2, "0")}`;

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
