/**
 * The cells of this machine. One cell is several units: PostgreSQL, the application's processes, the
 * agent; and the annexes that it hosts, which are standbys of other cells (annexes.ts).
 *
 * What must always be true: actions on one cell run one after the other, each may be asked twice,
 * and each resumes what was interrupted; a cell that crashed stays as it is until `start`; a cell's
 * database is made once, and removed by `destroy` alone; an annex is no cell of this list.
 */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { isAnnexId } from "../contract/annex.ts";
import { CellError } from "../contract/errors.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell, ProviderAction } from "../contract/provider-api.ts";
import { type OriginServer, removeAnnexServer } from "./annex-server.ts";
import { type Annex, absent, unitsOfAnnex } from "./annex-state.ts";
import { type Given, type HostedAnnexes, openAnnexes } from "./annexes.ts";
import {
  type CellLogins,
  type CellTemplate,
  cellTemplate,
  personalise,
  writeLogins,
} from "./cell-database.ts";
import {
  busily,
  type CellPorts,
  type CellsOptions,
  createParts,
  inTurn,
  keepToken,
  makeFolders,
  type Parts,
  portsFor,
  portsSchema,
  reachOf,
  secretsOf,
  stateOfUnits,
} from "./cell-parts.ts";
import { writeJson } from "./data-folder.ts";
import { createDatabaseUnit, type DatabaseUnit, ensureDatabase } from "./database-unit.ts";
import { ensureTemplate, removeServer } from "./postgres/template.ts";
import { isProvedDead } from "./proof-of-death.ts";
import type { Unit } from "./unit.ts";

export type LocalCells = {
  /** Whole cells. */
  readonly ids: () => readonly CellId[];
  /** Of a cell or an annex. */
  readonly describe: (id: CellId) => ProvidedCell;
  readonly act: (id: CellId, action: ProviderAction, given?: Given) => Promise<ProvidedCell>;
  readonly units: () => readonly Unit[];
  /** Undefined while its database has not run yet. */
  readonly logins: (id: CellId) => CellLogins | undefined;
  readonly ports: (id: CellId) => CellPorts | undefined;
  /** Before the cells start: what an origin's new schema writes must find its place in its standbys. */
  readonly migrateAnnexes: () => Promise<void>;
  /** Makes the template now, so that the first cell does not wait for it. */
  readonly prepare: () => Promise<void>;
  /**
   * Until this is called no annex is made, and those that do not serve are left asleep: the start of a
   * fleet has the processors for itself.
   */
  readonly wakeAnnexes: () => Promise<void>;
  readonly stopAll: () => Promise<void>;
};

type Cell = Parts & {
  readonly database: DatabaseUnit;
  readonly annexes: HostedAnnexes;
  /** Creates and starts under way. */
  busy: number;
  queue: Promise<unknown>;
  /** What is made in its server. */
  readonly makers: { queue: Promise<unknown> };
};

/** Knows the cells that the data folder holds; starts none of them. */
export async function openCells(options: CellsOptions): Promise<LocalCells> {
  const { application, tools, say = () => {} } = options;
  const template = cellTemplate({ application, random: tools.random, say });
  const cells = new Map<CellId, Cell>();
  let awake = false;
  const { promise: awakened, resolve: awaken } = Promise.withResolvers<void>();
  const root = join(options.folder.root, "cells");
  await mkdir(root, { recursive: true, mode: 0o711 });
  for (const name of await readdir(root)) {
    const id = parseCellId(name);
    const ports = id === undefined ? undefined : await readPorts(join(root, name));
    if (id !== undefined && ports !== undefined) (await cellOf(id)).ports = ports;
  }

  async function cellOf(id: CellId): Promise<Cell> {
    const cell = cells.get(id) ?? (await createCell(id, options, originOf));
    // Of two that ask at once the first makes it.
    const known = cells.get(id) ?? cell;
    cells.set(id, known);
    return known;
  }

  function originOf(id: CellId): OriginServer | undefined {
    const cell = cells.get(id);
    if (cell === undefined) return undefined;
    const { folder: databaseFolder } = databaseOptions(id, options);
    return { database: cell.database, databaseFolder, secrets: secretsOf(cell) };
  }

  const all = (): readonly Cell[] => [...cells.values()].sort((a, b) => a.id.localeCompare(b.id));
  const annexOf = (id: CellId) => findAnnex(all(), id);

  function describe(id: CellId): ProvidedCell {
    const { host, annex } = annexOf(id) ?? {};
    if (host !== undefined && annex !== undefined) return host.annexes.describe(annex);
    const cell = cells.get(id);
    return cell?.ports === undefined ? absent(id) : describeCell(cell, options);
  }

  async function actOnCell(id: CellId, action: ProviderAction, token: string | undefined) {
    if (!cells.has(id) && action !== "create") {
      if (action === "destroy") return absent(id);
      throw new CellError("CELL_UNKNOWN", `there is no cell ${id} on this machine`);
    }
    const cell = await cellOf(id);
    const wake = () => {
      cell.annexes.admit();
      void cell.annexes.wake(awake);
    };
    const work = () => perform(cell, action, { options, template, agentToken: token, wake });
    // A crash does not wait for its turn.
    await (action === "kill" ? work() : inTurn(cell, work));
    if (action === "destroy") cells.delete(id);
    return describe(id);
  }

  return {
    ids: () => all().map((cell) => cell.id),
    describe,
    act: async (id, action, given = {}) => {
      const known = annexOf(id)?.host;
      if (known === undefined && action === "destroy" && isAnnexId(id)) return absent(id);
      const host = known ?? hostOf(cells, id, given);
      if (host === undefined) return actOnCell(id, action, given.agentToken);
      if (action === "create") await awakened;
      return host.annexes.act(id, action, given);
    },
    units: () => all().flatMap(unitsOf),
    logins: (id) => cells.get(id)?.logins,
    ports: (id) => cells.get(id)?.ports,
    prepare: async () => {
      await ensureTemplate(template, options.tools);
    },
    migrateAnnexes: async () => {
      const work = all().map(({ id, annexes }) =>
        annexes.migrate().catch((error: unknown) => {
          // The start of its host comes to the same, and says it to whoever waits for that.
          say(`annexes of ${id}: ${error instanceof Error ? error.message : String(error)}`);
        }),
      );
      await Promise.all(work);
    },
    wakeAnnexes: async () => {
      awake = true;
      awaken();
      for (const cell of all()) await cell.annexes.wake(true);
    },
    stopAll: async () => {
      await Promise.all(all().map((cell) => inTurn(cell, () => stopCell(cell))));
    },
  };
}

function findAnnex(
  cells: readonly Cell[],
  id: CellId,
): { readonly host: Cell; readonly annex: Annex } | undefined {
  for (const host of cells) {
    const annex = host.annexes.all().find((one) => one.id === id);
    if (annex !== undefined) return { host, annex };
  }
  return undefined;
}

/** Of an annex that is to be made; undefined: what is meant is a cell. */
function hostOf(cells: ReadonlyMap<CellId, Cell>, id: CellId, { annex }: Given): Cell | undefined {
  if (annex === undefined) {
    if (!isAnnexId(id)) return undefined;
    throw new CellError("CELL_UNKNOWN", `there is no annex ${id} on this machine`);
  }
  const host = cells.get(annex.host);
  if (host !== undefined && !cells.has(id)) return host;
  const text = host === undefined ? `there is no cell ${annex.host}` : `${id} is a cell`;
  throw new CellError("VALIDATION_FAILED", `${text} on this machine: no annex can be made so`);
}

const ownUnits = (cell: Cell): readonly Unit[] => [cell.database, ...cell.apps, cell.agent];

const unitsOf = (cell: Cell): readonly Unit[] => [
  ...ownUnits(cell),
  ...cell.annexes.all().flatMap(unitsOfAnnex),
];

type Context = {
  readonly options: CellsOptions;
  readonly template: CellTemplate;
  readonly agentToken: string | undefined;
  /** Nobody waits for its annexes: the cell itself is up. */
  readonly wake: () => void;
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
    case "serve":
    case "rest":
    case "copy":
    case "settle":
      throw new CellError("VALIDATION_FAILED", `${cell.id} is no annex: ${action} is for these`);
  }
}

async function create(cell: Cell, context: Context): Promise<void> {
  const { options, template, agentToken } = context;
  await makeFolders(cell);
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

async function startCell(cell: Cell, { options, template, wake }: Context): Promise<void> {
  cell.ports = await portsFor(cell, options);
  await writeJson(portsFile(cell.home), cell.ports);
  await cell.database.start();
  const server = cell.database.server();
  if (server === undefined) throw new CellError("PROVIDER_FAILED", `${cell.id}: no database`);
  await makeFolders(cell);
  cell.logins = await inTurn(cell.makers, async () => {
    await template.bringUpToDate(server, cell.id, secretsOf(cell));
    return writeLogins({ ...belonging(cell, options), server });
  });
  await Promise.all([...cell.apps, cell.agent].map((unit) => unit.start()));
  wake();
}

const belonging = (cell: Cell, { application, tools }: CellsOptions) => ({
  application,
  random: tools.random,
  secrets: secretsOf(cell),
});

/** Requests in flight end first: the agent's gate, then the application, then the database. */
async function stopCell(cell: Cell): Promise<void> {
  await Promise.all([
    cell.annexes.stop(),
    cell.agent.stop().then(() => Promise.all(cell.apps.map((app) => app.stop()))),
  ]);
  await cell.database.stop();
}

/** All of it at once, as a machine dies. */
async function killCell(cell: Cell): Promise<void> {
  await Promise.all([cell.annexes.kill(), ...ownUnits(cell).map((unit) => unit.kill())]);
}

async function destroy(cell: Cell, options: CellsOptions): Promise<void> {
  await stopCell(cell);
  // First what makes it come back; a crash after this line leaves a folder that nothing starts.
  await rm(portsFile(cell.home), { force: true });
  // Also those that an earlier supervisor left running.
  for (const { server } of cell.annexes.all()) {
    if (server !== undefined) await removeAnnexServer(server, options);
  }
  const { folder } = databaseOptions(cell.id, options);
  await removeServer(folder, options.tools.clock);
  await rm(folder, { recursive: true, force: true });
  await rm(cell.home, { recursive: true, force: true });
}

async function createCell(
  id: CellId,
  options: CellsOptions,
  originOf: (id: CellId) => OriginServer | undefined,
): Promise<Cell> {
  const home = join(options.folder.root, "cells", id);
  const databaseOf = databaseOptions(id, options);
  const parts = createParts({ id, home, shownAs: id }, options);
  const database = createDatabaseUnit(databaseOf);
  const makers = { queue: Promise.resolve() };
  const host = {
    id,
    home,
    database,
    databaseFolder: databaseOf.folder,
    makers,
    originOf,
  };
  const annexes = await openAnnexes(host, options);
  return Object.assign(parts, { database, annexes, busy: 0, queue: Promise.resolve(), makers });
}

const databaseOptions = (id: CellId, { folder, tools, onChange }: CellsOptions) => ({
  name: `${id}-db`,
  folder: join(folder.databases, "cells", id),
  logs: folder.logs,
  restart: false,
  tools,
  onChange,
});

function describeCell(cell: Cell, options: CellsOptions): ProvidedCell {
  const { database, apps, agent, busy } = cell;
  const { folder } = databaseOptions(cell.id, options);
  return {
    id: cell.id,
    ...stateOfUnits(ownUnits(cell), busy > 0),
    ...reachOf(cell, options.application),
    provedDead:
      busy === 0 &&
      isProvedDead({
        programs: [...apps, agent],
        notes: options.folder.notes,
        database: { unit: database, name: database.name, folder },
      }),
  };
}

const portsFile = (home: string): string => join(home, "cell.json");

async function readPorts(home: string): Promise<CellPorts | undefined> {
  try {
    return portsSchema.parse(JSON.parse(await readFile(portsFile(home), "utf8")));
  } catch {
    return undefined; // Not created to the end, or destroyed.
  }
}
