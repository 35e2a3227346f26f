/**
 * What a cell and an annex have in common: the application's processes and the agent in front of them,
 * their ports, and a folder of their own with the note of the ports, secrets and the agent's state.
 *
 * What must always be true: a program is started only on databases that run, with the addresses that
 * they have now.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { type CellId, cellIdSchema } from "../contract/ids.ts";
import type { ProvidedCell } from "../contract/provider-api.ts";
import { defaultService } from "../contract/service-route.ts";
import { type AppProcess, guardedStores, type LocalApplication } from "./application.ts";
import { type CellLogins, moverFile, referenceFile } from "./cell-database.ts";
import type { DataFolder } from "./data-folder.ts";
import { trustKeysFile } from "./fleet-units.ts";
import { launchProgram } from "./node-process.ts";
import { choosePorts } from "./postgres/port.ts";
import type { TemplateTools } from "./postgres/template.ts";
import { agentProgram, type Program, urlOf } from "./programs.ts";
import { createUnit, type Unit, type UnitStatus } from "./unit.ts";

export type CellsOptions = {
  readonly folder: DataFolder;
  readonly tools: TemplateTools;
  readonly controlPlaneUrl: string;
  readonly application: LocalApplication;
  /** The environment of the application and the agent, beside their own variables. */
  readonly env: Readonly<Record<string, string>>;
  readonly onChange: (status: UnitStatus) => void;
  /** Told what is worth knowing about the application's tables; nothing of it stands in the way. */
  readonly say?: (line: string) => void;
};

const port = z.number().int();
export const portsSchema = z
  .object({
    id: cellIdSchema,
    gate: port,
    admin: port,
    /** By process that listens. */
    apps: z.record(z.string(), port).optional(),
    /** As older releases wrote it. */
    app: port.optional(),
  })
  .transform(({ id, gate, admin, apps, app }) => ({
    id,
    gate,
    admin,
    apps: apps ?? (app === undefined ? {} : { app }),
  }));
export type CellPorts = z.output<typeof portsSchema>;

export type Parts = {
  readonly id: CellId;
  readonly home: string;
  readonly apps: readonly Unit[];
  readonly agent: Unit;
  ports: CellPorts | undefined;
  /** Undefined while its databases have not run yet. */
  logins: CellLogins | undefined;
};

/** An orderly stop waits this long for requests in flight. */
const graceMs = 7000;

/** `shownAs`: the cell that the application takes itself to be in; an annex is a part of its host. */
export function createParts(
  who: { readonly id: CellId; readonly home: string; readonly shownAs: CellId },
  options: CellsOptions,
): Parts {
  const { id, home, shownAs } = who;
  const { clock } = options.tools;
  const folders = { logs: options.folder.logs, notes: options.folder.notes };
  const unit = (kind: string, program: () => Program): Unit => {
    const name = `${id}-${kind}`;
    return createUnit({
      name,
      restart: false,
      clock,
      onChange: options.onChange,
      launch: () => launchProgram(program(), { name, env: options.env, folders, clock, graceMs }),
    });
  };
  const parts: Parts = {
    id,
    home,
    apps: options.application.processes.map((process) =>
      unit(process.name, () => appProgram(parts, shownAs, process)),
    ),
    agent: unit("agent", () => agentOf(parts, options)),
    ports: undefined,
    logins: undefined,
  };
  return parts;
}

function appProgram(parts: Parts, cell: CellId, process: AppProcess): Program {
  const { ports, logins } = prepared(parts);
  return process.program({
    cell,
    port: ports.apps[process.name] ?? 0,
    agentUrl: urlOf(ports.admin),
    databaseUrls: new Map([...logins.stores].map(([name, { url }]) => [name, url])),
  });
}

function agentOf(parts: Parts, { application, folder, controlPlaneUrl }: CellsOptions): Program {
  const { ports, logins } = prepared(parts);
  const named = [...application.services].filter(([, health]) => health !== undefined);
  return agentProgram({
    cell: parts.id,
    port: ports.gate,
    adminPort: ports.admin,
    upstreams: listeners(application).map(
      ({ name, service }) => `${service}=${urlOf(ports.apps[name] ?? 0)}`,
    ),
    health: named.map(([service, health]) => `${service}=${health}`),
    databaseUrlFile: logins.agentFile,
    stores: logins.agentStores.map(({ store, file }) => `${store}=file:${file}`),
    queryDatabaseUrlFile: logins.readerFile,
    standbyServerFile: logins.standbyServerFile,
    controlPlaneUrl,
    tokenFile: tokenFile(parts),
    trustKeysFile: trustKeysFile(folder),
    stateDir: stateOf(parts),
  });
}

const listeners = ({ processes }: LocalApplication): readonly AppProcess[] =>
  processes.filter(({ listens }) => listens);

function prepared({ id, ports, logins }: Parts): {
  readonly ports: CellPorts;
  readonly logins: CellLogins;
} {
  if (ports !== undefined && logins !== undefined) return { ports, logins };
  throw new CellError("PROVIDER_FAILED", `start the cell ${id} first: its database must run`);
}

export const secretsOf = ({ home }: Pick<Parts, "home">): string => join(home, "secrets");
const stateOf = ({ home }: Parts): string => join(home, "agent");
const tokenFile = (parts: Parts): string => join(secretsOf(parts), "agent-token");

export async function makeFolders(parts: Parts): Promise<void> {
  await mkdir(parts.home, { recursive: true, mode: 0o711 });
  for (const folder of [secretsOf(parts), stateOf(parts)]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  }
}

/** True when it is another one than before. */
export async function keepToken(parts: Parts, token: string): Promise<boolean> {
  const before = await readFile(tokenFile(parts), "utf8").catch(() => "");
  if (before.trim() === token) return false;
  await writeFile(tokenFile(parts), `${token}\n`, { mode: 0o600 });
  return true;
}

/** Ports of running parts stay; those of the others are looked at again, as somebody may have taken them. */
export async function portsFor(
  parts: Parts,
  { application, tools }: CellsOptions,
): Promise<CellPorts> {
  const { id, ports, agent, apps } = parts;
  const names = listeners(application).map(({ name }) => name);
  const runs = [agent, ...apps].some((unit) => unit.status().state === "running");
  const known = names.every((name) => ports?.apps[name] !== undefined);
  if (ports !== undefined && runs && known) return ports;
  const wishes = [ports?.gate, ports?.admin, ...names.map((name) => ports?.apps[name])];
  const [gate = 0, admin = 0, ...chosen] = await choosePorts(wishes, tools.random);
  return {
    id,
    gate,
    admin,
    apps: Object.fromEntries(names.map((name, index) => [name, chosen[index] ?? 0])),
  };
}

/** How others reach it: its gate, and references to its databases. */
export function reachOf(
  { home, ports }: Parts,
  application: LocalApplication,
): Pick<ProvidedCell, "services" | "stores"> {
  const endpoints = [urlOf(ports?.gate ?? 0)];
  const guarded = guardedStores(application);
  const secrets = secretsOf({ home });
  return {
    services: Object.fromEntries(
      [...application.services.keys()].map((service) => [service, { endpoints }]),
    ),
    stores: Object.fromEntries(
      application.stores.map(({ name, keyColumn, manifest: { idempotency } }, index) => [
        // The first bears the name that everybody knows.
        index === 0 ? defaultService : name,
        {
          database: `file:${join(secrets, referenceFile(application, name))}`,
          keyColumn,
          // A report of what a failover lost looks there.
          ...(idempotency === undefined ? {} : { idempotency }),
          // Without tables of tenants there is nothing in it that could move.
          ...(guarded.some((store) => store.name === name)
            ? { mover: `file:${join(secrets, moverFile(name))}` }
            : { ignore: true }),
        },
      ]),
    ),
  };
}

export function stateOfUnits(
  units: readonly Unit[],
  busy: boolean,
): Pick<ProvidedCell, "state" | "text"> {
  if (busy) return { state: "creating", text: "being started" };
  const parts = units.map((unit) => unit.status());
  const dead = parts.filter((part) => part.state === "dead");
  if (dead.length > 0) {
    return { state: "dead", text: dead.map((part) => `${part.name} ${part.text}`).join("; ") };
  }
  const stopped = parts.filter((part) => part.state === "stopped");
  if (stopped.length > 0) {
    return { state: "stopped", text: stopped.map((part) => `${part.name} is stopped`).join("; ") };
  }
  return { state: "running", text: "database, application and agent run" };
}

/** Actions on one cell or annex, one after the other. */
export function inTurn<T>(who: { queue: Promise<unknown> }, work: () => Promise<T>): Promise<T> {
  const result = who.queue.then(work, work);
  who.queue = result.catch(() => {}); // The caller has the same rejection.
  return result;
}

/** Marks it as being started; of several at once until the last is done. */
export async function busily(who: { busy: number }, work: () => Promise<void>): Promise<void> {
  who.busy += 1;
  try {
    await work();
  } finally {
    who.busy -= 1;
  }
}
