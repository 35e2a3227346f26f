/**
 * The annexes that one cell hosts (contract/annex.ts): databases in the cell's server, an agent each,
 * and, once they serve, the application's processes.
 *
 * What must always be true: an annex runs only beside the running database of its host, and goes when
 * that goes; whether it serves is on disk before the first process starts, so that a supervisor that
 * starts again brings back what served; it is gone only when its databases are.
 *
 *   cells/HOST/annexes/ID/annex.json   whose it is, its ports, whether it serves
 */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { type CellId, cellIdSchema, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell, ProviderAction } from "../contract/provider-api.ts";
import { standbyProviders } from "../contract/standby-api.ts";
import {
  type AnnexDatabases,
  dropAnnexDatabases,
  ensureAnnexDatabases,
  schemaOfAnnex,
  writeAnnexLogins,
} from "./annex-database.ts";
import {
  busily,
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
import type { DatabaseUnit } from "./database-unit.ts";
import { isPortFree } from "./postgres/port.ts";
import type { PostgresServer } from "./postgres/server.ts";
import { isProvedDead } from "./proof-of-death.ts";
import type { Unit } from "./unit.ts";

export const annexOfSchema = z.object({
  origin: cellIdSchema,
  host: cellIdSchema,
  provider: z.enum(standbyProviders),
});
export type AnnexOf = z.infer<typeof annexOfSchema>;

const noteSchema = z.object({
  of: annexOfSchema,
  ports: portsSchema,
  serving: z.boolean(),
  /** Being destroyed: its databases are still to be dropped. */
  leaving: z.boolean(),
  /** Which schema its databases had last. */
  schema: z.string().optional(),
});

export type Annex = Parts & {
  readonly of: AnnexOf;
  serving: boolean;
  leaving: boolean;
  schema: string | undefined;
  busy: number;
  queue: Promise<unknown>;
};

/** What an annex needs of the cell that it stands in. */
export type Host = {
  readonly id: CellId;
  readonly home: string;
  readonly database: DatabaseUnit;
  readonly databaseFolder: string;
  /** Changes to its server's roles and databases, one after the other: PostgreSQL refuses two at once. */
  readonly makers: { queue: Promise<unknown> };
};

export type Given = {
  readonly agentToken?: string | undefined;
  readonly annex?: AnnexOf | undefined;
};

export type HostedAnnexes = {
  readonly all: () => readonly Annex[];
  readonly act: (id: CellId, action: ProviderAction, given: Given) => Promise<ProvidedCell>;
  readonly describe: (annex: Annex) => ProvidedCell;
  /**
   * Brings the databases of older schemas up to date, before anything starts: what an origin writes after
   * its own migration must find its place in its standbys. Starts the host's database if it has to.
   */
  readonly migrate: () => Promise<void>;
  /** Its host is up: from now on, until `stop` or `kill`, annexes may run. */
  readonly admit: () => void;
  /** Those that served, and with `idle` the others too; what does not come up is told, and left. */
  readonly wake: (idle: boolean) => Promise<void>;
  readonly stop: () => Promise<void>;
  readonly kill: () => Promise<void>;
};

export async function openAnnexes(host: Host, options: CellsOptions): Promise<HostedAnnexes> {
  const { say = () => {} } = options;
  const root = join(host.home, "annexes");
  const annexes = new Map<CellId, Annex>();
  for (const name of await readdir(root).catch((): string[] => [])) {
    const id = parseCellId(name);
    const annex = id === undefined ? undefined : await readAnnex(id, join(root, name), options);
    if (annex !== undefined) annexes.set(annex.id, annex);
  }
  let isUp = false;
  const place: Place = { host, options, isUp: () => isUp };
  const all = () => [...annexes.values()].sort((a, b) => a.id.localeCompare(b.id));
  const describe = (annex: Annex) => describeAnnex(annex, place);

  async function destroy(annex: Annex): Promise<void> {
    if ((await destroyAnnex(annex, place)) === "gone") annexes.delete(annex.id);
  }

  return {
    all,
    describe,
    act: async (id, action, given) => {
      const known = annexes.get(id);
      if (known === undefined && action === "destroy") return absent(id);
      const annex = known ?? newAnnex(id, join(root, id), given.annex, options);
      annexes.set(id, annex);
      const work = () =>
        action === "destroy" ? destroy(annex) : perform(annex, action, place, given);
      // A crash does not wait for its turn.
      await (action === "kill" ? work() : inTurn(annex, work));
      return describe(annex);
    },
    migrate: async () => {
      const older = all().filter((one) => !one.leaving && isOlder(one, options));
      if (older.length > 0) await host.database.start();
      for (const annex of older) await inTurn(annex, () => migrate(annex, place));
    },
    admit: () => {
      isUp = true;
    },
    wake: async (idle) => {
      // One after the other: nobody waits for them, and others want the processors.
      for (const annex of all().filter((one) => one.serving || idle)) {
        const work = () => (annex.leaving ? destroy(annex) : startAnnex(annex, place));
        await inTurn(annex, async () => {
          if (isUp) await busily(annex, work);
        }).catch((error: unknown) => {
          say(`${annex.id}: ${error instanceof Error ? error.message : String(error)}`);
        });
      }
    },
    stop: async () => {
      isUp = false;
      await Promise.all(all().map((annex) => inTurn(annex, () => stopAnnex(annex))));
    },
    kill: async () => {
      isUp = false;
      await Promise.all(all().map(killAnnex));
    },
  };
}

type Place = {
  readonly host: Host;
  readonly options: CellsOptions;
  readonly isUp: () => boolean;
};

/** Those that have to do with what it does now: processes that wait for a failover are none yet. */
export const unitsOfAnnex = ({ agent, apps, serving }: Annex): readonly Unit[] => [
  agent,
  ...apps.filter((app) => serving || app.status().state === "running"),
];

async function perform(
  annex: Annex,
  action: Exclude<ProviderAction, "destroy">,
  place: Place,
  given: Given,
): Promise<void> {
  if (annex.leaving && action !== "kill") {
    throw new CellError("STATE_CONFLICT", `${annex.id} is being removed`);
  }
  switch (action) {
    case "create":
      return busily(annex, () => create(annex, place, given.agentToken));
    case "start":
      return busily(annex, () => startAnnex(annex, place));
    case "serve":
      return serve(annex, place);
    case "rest":
      return rest(annex);
    case "stop":
      return stopAnnex(annex);
    case "kill":
      return killAnnex(annex);
  }
}

async function create(annex: Annex, place: Place, agentToken: string | undefined): Promise<void> {
  serverOf(annex, place); // Before anything is written: without it there is nothing to make.
  await makeFolders(annex);
  const changed = agentToken !== undefined && (await keepToken(annex, agentToken));
  annex.ports ??= await portsFor(annex, place.options);
  // From here on it exists; cut short, the next start of its host finishes it.
  await writeNote(annex);
  if (changed) await annex.agent.stop();
  await startAnnex(annex, place);
}

async function startAnnex(annex: Annex, place: Place): Promise<void> {
  const { host, options } = place;
  const server = serverOf(annex, place);
  annex.ports = await portsFor(annex, options);
  await migrate(annex, place); // Writes the note.
  annex.logins = await writeAnnexLogins({
    ...aboutOf(annex, options),
    server,
    hostSecrets: secretsOf(host),
    secrets: secretsOf(annex),
  });
  await Promise.all(unitsOfAnnex(annex).map((unit) => unit.start()));
  if (place.isUp()) return;
  await killAnnex(annex); // The host went meanwhile, and took with it what it knew of.
  throw hostDown(annex, host);
}

/** Makes its databases, too. */
async function migrate(annex: Annex, { host, options }: Place): Promise<void> {
  const server = host.database.server();
  if (server === undefined) throw hostDown(annex, host);
  const about = aboutOf(annex, options);
  const hostSecrets = secretsOf(host);
  await inTurn(host.makers, () => ensureAnnexDatabases({ ...about, server, hostSecrets }));
  annex.schema = schemaOfAnnex(about);
  await writeNote(annex);
}

function isOlder(annex: Annex, options: CellsOptions): boolean {
  const now = schemaOfAnnex(aboutOf(annex, options));
  return now === undefined || annex.schema !== now;
}

/** In a failover tenants wait for this: where the agent runs, only processes are started. */
async function serve(annex: Annex, place: Place): Promise<void> {
  annex.serving = true;
  await writeNote(annex);
  const ready = annex.agent.status().state === "running" && annex.logins !== undefined;
  if (ready && (await portsAreFree(annex))) {
    serverOf(annex, place);
    await Promise.all(annex.apps.map((app) => app.start()));
    return;
  }
  // Somebody took a port while it was idle: the agent has to learn of another.
  if (ready) await annex.agent.stop();
  await busily(annex, () => startAnnex(annex, place));
}

async function portsAreFree({ apps, ports }: Annex): Promise<boolean> {
  if (apps.some((app) => app.status().state === "running")) return true; // They have them.
  const free = await Promise.all(Object.values(ports?.apps ?? {}).map(isPortFree));
  return free.every((one) => one);
}

async function rest(annex: Annex): Promise<void> {
  annex.serving = false;
  await writeNote(annex);
  await Promise.all(annex.apps.map((app) => app.stop()));
}

/** Requests in flight end first, as in a cell. */
async function stopAnnex({ agent, apps }: Annex): Promise<void> {
  await agent.stop();
  await Promise.all(apps.map((app) => app.stop()));
}

async function killAnnex({ agent, apps }: Annex): Promise<void> {
  const alive = apps.filter((app) => app.status().state === "running" || !app.isSettled());
  await Promise.all([agent, ...alive].map((unit) => unit.kill()));
}

/** Of a host that does not run the databases stay until it does. */
async function destroyAnnex(annex: Annex, place: Place): Promise<"gone" | "leaving"> {
  annex.leaving = true;
  annex.serving = false;
  if (annex.ports !== undefined) await writeNote(annex);
  await stopAnnex(annex);
  if (place.isUp()) {
    const databases = { ...aboutOf(annex, place.options), server: serverOf(annex, place) };
    await inTurn(place.host.makers, () => dropAnnexDatabases(databases));
  } else if (annex.ports !== undefined) {
    return "leaving";
  }
  await rm(annex.home, { recursive: true, force: true });
  return "gone";
}

const aboutOf = (
  { id }: Annex,
  { application, tools }: CellsOptions,
): Omit<AnnexDatabases, "server"> => ({ annex: id, application, random: tools.random });

function serverOf(annex: Annex, { host, isUp }: Place): PostgresServer {
  const server = host.database.server();
  if (server === undefined || !isUp()) throw hostDown(annex, host);
  return server;
}

const hostDown = ({ id }: Annex, host: Host): CellError =>
  new CellError("PROVIDER_FAILED", `${id} has its databases in ${host.id}, which does not run`, {
    nextSteps: [`cellctl cell start ${host.id}`],
  });

function describeAnnex(annex: Annex, { host, options }: Place): ProvidedCell {
  if (annex.leaving || annex.ports === undefined) return absent(annex.id);
  const { agent, apps, serving } = annex;
  const units = [host.database, agent, ...(serving ? apps : [])];
  return {
    id: annex.id,
    ...stateOfUnits(units, annex.busy > 0),
    ...reachOf(annex, options.application),
    serving,
    provedDead:
      annex.busy === 0 &&
      isProvedDead({
        programs: [agent, ...apps],
        notes: options.folder.notes,
        database: {
          unit: host.database,
          name: host.database.name,
          folder: host.databaseFolder,
        },
      }),
  };
}

export const absent = (id: CellId): ProvidedCell => ({
  id,
  state: "absent",
  text: "not on this machine",
  services: {},
  stores: {},
});

function newAnnex(id: CellId, home: string, of: AnnexOf | undefined, options: CellsOptions): Annex {
  if (of === undefined)
    throw new CellError("CELL_UNKNOWN", `there is no cell ${id} on this machine`);
  if (of.provider !== "logical") {
    const text = `${id}: this machine's provider makes logical standbys, no ${of.provider} ones`;
    throw new CellError("PROVIDER_FAILED", text);
  }
  const parts = createParts({ id, home, shownAs: of.host }, options);
  const state = { of, serving: false, leaving: false, schema: undefined };
  return Object.assign(parts, { ...state, busy: 0, queue: Promise.resolve() });
}

const noteFile = (home: string): string => join(home, "annex.json");

const writeNote = ({ home, of, ports, serving, leaving, schema }: Annex): Promise<void> =>
  writeJson(noteFile(home), { of, ports, serving, leaving, schema });

async function readAnnex(
  id: CellId,
  home: string,
  options: CellsOptions,
): Promise<Annex | undefined> {
  const text = await readFile(noteFile(home), "utf8").catch(() => undefined);
  if (text === undefined) return undefined; // Not begun, or destroyed.
  try {
    const { of, ...known } = noteSchema.parse(JSON.parse(text));
    return Object.assign(newAnnex(id, home, of, options), known);
  } catch (error) {
    // One note must not cost all cells their start.
    options.say?.(`${id} is left out: ${noteFile(home)} cannot be read: ${String(error)}`);
    return undefined;
  }
}
