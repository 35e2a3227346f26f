/**
 * The cells of this machine. One cell is several units: PostgreSQL, the application's processes, the
 * agent.
 *
 * What must always be true: actions on one cell run one after the other, each may be asked twice,
 * and each resumes what was interrupted; a cell that crashed stays as it is until `start`; a cell's
 * database is made once, and removed by `destroy` alone.
 */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { type CellId, cellIdSchema, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell, ProviderAction } from "../contract/provider-api.ts";
import { defaultService } from "../contract/service-route.ts";
import { type AppProcess, guardedStores, type LocalApplication } from "./application.ts";
import {
  type CellLogins,
  type CellTemplate,
  cellTemplate,
  moverFile,
  personalise,
  referenceFile,
  writeLogins,
} from "./cell-database.ts";
import { type DataFolder, writeJson } from "./data-folder.ts";
import { createDatabaseUnit, type DatabaseUnit, ensureDatabase } from "./database-unit.ts";
import { trustKeysFile } from "./fleet-units.ts";
import { launchProgram } from "./node-process.ts";
import { choosePorts } from "./postgres/port.ts";
import { ensureTemplate, removeServer, type TemplateTools } from "./postgres/template.ts";
import { agentProgram, type Program, urlOf } from "./programs.ts";
import { createUnit, type Unit, type UnitStatus } from "./unit.ts";

export type LocalCells = {
  readonly ids: () => readonly CellId[];
  readonly describe: (id: CellId) => ProvidedCell;
  readonly act: (id: CellId, action: ProviderAction, agentToken?: string) => Promise<ProvidedCell>;
  readonly units: () => readonly Unit[];
  /** Undefined while its database has not run yet. */
  readonly logins: (id: CellId) => CellLogins | undefined;
  readonly ports: (id: CellId) => CellPorts | undefined;
  /** Makes the template now, so that the first cell does not wait for it. */
  readonly prepare: () => Promise<void>;
  readonly stopAll: () => Promise<void>;
};

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
const portsSchema = z
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

type Cell = {
  readonly id: CellId;
  readonly home: string;
  readonly database: DatabaseUnit;
  readonly apps: readonly Unit[];
  readonly agent: Unit;
  ports: CellPorts | undefined;
  logins: CellLogins | undefined;
  /** A create or start is under way. */
  busy: boolean;
  queue: Promise<unknown>;
};

/** An orderly stop waits this long for requests in flight. */
const graceMs = 7000;

/** Knows the cells that the data folder holds; starts none of them. */
export async function openCells(options: CellsOptions): Promise<LocalCells> {
  const { application, tools, say = () => {} } = options;
  const template = cellTemplate({ application, random: tools.random, say });
  const cells = new Map<CellId, Cell>();
  const root = join(options.folder.root, "cells");
  await mkdir(root, { recursive: true, mode: 0o711 });
  for (const name of await readdir(root)) {
    const id = parseCellId(name);
    const ports = id === undefined ? undefined : await readPorts(join(root, name));
    if (id !== undefined && ports !== undefined) cellOf(id).ports = ports;
  }

  function cellOf(id: CellId): Cell {
    const cell = cells.get(id) ?? createCell(id, options);
    cells.set(id, cell);
    return cell;
  }

  const all = (): readonly Cell[] => [...cells.values()].sort((a, b) => a.id.localeCompare(b.id));

  return {
    ids: () => all().map((cell) => cell.id),
    describe: (id) => describeCell(id, cells.get(id), options),
    act: async (id, action, agentToken) => {
      if (!cells.has(id) && action !== "create") {
        if (action === "destroy") return describeCell(id, undefined, options);
        throw new CellError("CELL_UNKNOWN", `there is no cell ${id} on this machine`);
      }
      const cell = cellOf(id);
      const work = () => perform(cell, action, { options, template, agentToken });
      // A crash does not wait for its turn.
      await (action === "kill" ? work() : inTurn(cell, work));
      if (action === "destroy") cells.delete(id);
      return describeCell(id, cells.get(id), options);
    },
    units: () => all().flatMap(unitsOf),
    logins: (id) => cells.get(id)?.logins,
    ports: (id) => cells.get(id)?.ports,
    prepare: async () => {
      await ensureTemplate(template, options.tools);
    },
    stopAll: async () => {
      await Promise.all(all().map((cell) => inTurn(cell, () => stopCell(cell))));
    },
  };
}

const unitsOf = (cell: Cell): readonly Unit[] => [cell.database, ...cell.apps, cell.agent];

type Context = {
  readonly options: CellsOptions;
  readonly template: CellTemplate;
  readonly agentToken: string | undefined;
};

async function perform(cell: Cell, action: ProviderAction, context: Context): Promise<void> {
  switch (action) {
    case "create":
      return busily(cell, () => create(cell, context));
    case "start":
      return busily(cell, () => startCell(cell, context));
    case "stop":
      return stopCell(cell);
    case "kill":
      return killCell(cell);
    case "destroy":
      return destroy(cell, context.options);
  }
}

async function create(cell: Cell, context: Context): Promise<void> {
  const { options, template, agentToken } = context;
  await mkdir(cell.home, { recursive: true, mode: 0o711 });
  await mkdir(secretsOf(cell), { recursive: true, mode: 0o700 });
  const changed = agentToken !== undefined && (await keepToken(cell, agentToken));
  await ensureDatabase(databaseOptions(cell.id, options), template, (server) =>
    personalise({ ...belonging(cell, options), cell: cell.id, server }),
  );
  // From here on the cell exists: a supervisor that starts again brings it back.
  cell.ports ??= await portsFor(cell, options);
  await writeJson(portsFile(cell.home), cell.ports);
  if (changed) await cell.agent.stop();
  await startCell(cell, context);
}

async function startCell(cell: Cell, { options, template }: Context): Promise<void> {
  cell.ports = await portsFor(cell, options);
  await writeJson(portsFile(cell.home), cell.ports);
  await cell.database.start();
  const server = cell.database.server();
  if (server === undefined) throw new CellError("PROVIDER_FAILED", `${cell.id}: no database`);
  await mkdir(stateOf(cell), { recursive: true, mode: 0o700 });
  await template.bringUpToDate(server, cell.id, secretsOf(cell));
  cell.logins = await writeLogins({ ...belonging(cell, options), server });
  await Promise.all([...cell.apps, cell.agent].map((unit) => unit.start()));
}

const belonging = (cell: Cell, { application, tools }: CellsOptions) => ({
  application,
  random: tools.random,
  secrets: secretsOf(cell),
});

/** Requests in flight end first: the agent's gate, then the application, then the database. */
async function stopCell(cell: Cell): Promise<void> {
  await cell.agent.stop();
  await Promise.all(cell.apps.map((app) => app.stop()));
  await cell.database.stop();
}

async function killCell(cell: Cell): Promise<void> {
  await Promise.all(unitsOf(cell).map((unit) => unit.kill()));
}

async function destroy(cell: Cell, options: CellsOptions): Promise<void> {
  await stopCell(cell);
  // First what makes it come back; a crash after this line leaves a folder that nothing starts.
  await rm(portsFile(cell.home), { force: true });
  const { folder } = databaseOptions(cell.id, options);
  await removeServer(folder, options.tools.clock);
  await rm(folder, { recursive: true, force: true });
  await rm(cell.home, { recursive: true, force: true });
}

function createCell(id: CellId, options: CellsOptions): Cell {
  const { clock } = options.tools;
  const home = join(options.folder.root, "cells", id);
  const folders = { logs: options.folder.logs, notes: options.folder.notes };
  const part = (kind: string, program: () => Program): Unit => {
    const name = `${id}-${kind}`;
    return createUnit({
      name,
      restart: false,
      clock,
      onChange: options.onChange,
      launch: () => launchProgram(program(), { name, env: options.env, folders, clock, graceMs }),
    });
  };
  const cell: Cell = {
    id,
    home,
    database: createDatabaseUnit(databaseOptions(id, options)),
    apps: options.application.processes.map((process) =>
      part(process.name, () => appProgram(cell, process)),
    ),
    agent: part("agent", () => agentOf(cell, options)),
    ports: undefined,
    logins: undefined,
    busy: false,
    queue: Promise.resolve(),
  };
  return cell;
}

function appProgram(cell: Cell, process: AppProcess): Program {
  const { ports, logins } = prepared(cell);
  return process.program({
    cell: cell.id,
    port: ports.apps[process.name] ?? 0,
    agentUrl: urlOf(ports.admin),
    databaseUrls: new Map([...logins.stores].map(([name, { url }]) => [name, url])),
  });
}

function agentOf(cell: Cell, { application, folder, controlPlaneUrl }: CellsOptions): Program {
  const { ports, logins } = prepared(cell);
  const named = [...application.services].filter(([, health]) => health !== undefined);
  return agentProgram({
    cell: cell.id,
    port: ports.gate,
    adminPort: ports.admin,
    upstreams: listeners(application).map(
      ({ name, service }) => `${service}=${urlOf(ports.apps[name] ?? 0)}`,
    ),
    health: named.map(([service, health]) => `${service}=${health}`),
    databaseUrlFile: logins.agentFile,
    stores: logins.agentStores.map(({ store, file }) => `${store}=file:${file}`),
    queryDatabaseUrlFile: logins.readerFile,
    controlPlaneUrl,
    tokenFile: tokenFile(cell),
    trustKeysFile: trustKeysFile(folder),
    stateDir: stateOf(cell),
  });
}

const listeners = ({ processes }: LocalApplication): readonly AppProcess[] =>
  processes.filter(({ listens }) => listens);

function prepared(cell: Cell): { readonly ports: CellPorts; readonly logins: CellLogins } {
  const { id, ports, logins } = cell;
  if (ports !== undefined && logins !== undefined) return { ports, logins };
  throw new CellError("PROVIDER_FAILED", `start the cell ${id} first: its database must run`);
}

const databaseOptions = (id: CellId, { folder, tools, onChange }: CellsOptions) => ({
  name: `${id}-db`,
  folder: join(folder.databases, "cells", id),
  logs: folder.logs,
  restart: false,
  tools,
  onChange,
});

function describeCell(
  id: CellId,
  cell: Cell | undefined,
  { application }: CellsOptions,
): ProvidedCell {
  const ports = cell?.ports;
  if (cell === undefined || ports === undefined) {
    return { id, state: "absent", text: "not on this machine", services: {}, stores: {} };
  }
  const endpoints = [urlOf(ports.gate)];
  const { stores } = application;
  const guarded = guardedStores(application);
  return {
    id,
    ...stateOfParts(cell),
    services: Object.fromEntries(
      [...application.services.keys()].map((service) => [service, { endpoints }]),
    ),
    stores: Object.fromEntries(
      stores.map(({ name, keyColumn }, index) => [
        // The first bears the name that everybody knows.
        index === 0 ? defaultService : name,
        {
          database: `file:${join(secretsOf(cell), referenceFile(application, name))}`,
          keyColumn,
          // Without tables of tenants there is nothing in it that could move.
          ...(guarded.some((store) => store.name === name)
            ? { mover: `file:${join(secretsOf(cell), moverFile(name))}` }
            : { ignore: true }),
        },
      ]),
    ),
  };
}

function stateOfParts(cell: Cell): Pick<ProvidedCell, "state" | "text"> {
  if (cell.busy) return { state: "creating", text: "being started" };
  const parts = unitsOf(cell).map((unit) => unit.status());
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

function inTurn<T>(cell: Cell, work: () => Promise<T>): Promise<T> {
  const result = cell.queue.then(work, work);
  cell.queue = result.catch(() => {}); // The caller has the same rejection.
  return result;
}

async function busily(cell: Cell, work: () => Promise<void>): Promise<void> {
  cell.busy = true;
  try {
    await work();
  } finally {
    cell.busy = false;
  }
}

const secretsOf = (cell: Cell): string => join(cell.home, "secrets");
const portsFile = (home: string): string => join(home, "cell.json");
const stateOf = (cell: Cell): string => join(cell.home, "agent");
const tokenFile = (cell: Cell): string => join(secretsOf(cell), "agent-token");

/** True when it is another one than before. */
async function keepToken(cell: Cell, token: string): Promise<boolean> {
  const before = await readFile(tokenFile(cell), "utf8").catch(() => "");
  if (before.trim() === token) return false;
  await writeFile(tokenFile(cell), `${token}\n`, { mode: 0o600 });
  return true;
}

async function readPorts(home: string): Promise<CellPorts | undefined> {
  try {
    return portsSchema.parse(JSON.parse(await readFile(portsFile(home), "utf8")));
  } catch {
    return undefined; // Not created to the end, or destroyed.
  }
}

/** Ports of running parts stay; those of the others are looked at again, as somebody may have taken them. */
async function portsFor(cell: Cell, { application, tools }: CellsOptions): Promise<CellPorts> {
  const { id, ports, agent, apps } = cell;
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
