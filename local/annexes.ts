/**
 * The annexes that one cell hosts (contract/annex.ts): databases in the cell's server, an agent each,
 * and, once they serve, the application's processes. Physical ones have a server of their own besides,
 * to which the agent and the application go when it is settled (annex-server.ts).
 *
 * What must always be true: an annex runs only beside the running database of its host, and goes when
 * that goes; whether it serves, and where, is on disk before the first process starts, so that a
 * supervisor that starts again brings back what served; it is gone only when its databases are.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { CellError } from "../contract/errors.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell, ProviderAction } from "../contract/provider-api.ts";
import {
  type AnnexDatabases,
  dropAnnexDatabases,
  ensureAnnexDatabases,
  schemaOfAnnex,
  writeAnnexLogins,
} from "./annex-database.ts";
import { type AnnexOf, readNote, writeNote } from "./annex-note.ts";
import {
  type AnnexServer,
  followOrigin,
  openSettled,
  removeAnnexServer,
  settleServer,
  writeFollowedLogins,
} from "./annex-server.ts";
import {
  type Annex,
  absent,
  describeAnnex,
  type Host,
  isHome,
  newAnnex,
  type Place,
  programsOf,
  serversOf,
} from "./annex-state.ts";
import {
  busily,
  type CellsOptions,
  inTurn,
  keepToken,
  makeFolders,
  portsFor,
  secretsOf,
} from "./cell-parts.ts";
import { isPortFree } from "./postgres/port.ts";
import type { PostgresServer } from "./postgres/server.ts";

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
    const annex =
      id === undefined ? undefined : await readAnnex(id, join(root, name), host, options);
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
      const about = { id, home: join(root, id), of: given.annex };
      const annex = known ?? newAnnex(about, host, options);
      annexes.set(id, annex);
      const work = () =>
        action === "destroy" ? destroy(annex) : perform(annex, action, place, given);
      // A crash does not wait for its turn.
      await (action === "kill" ? work() : inTurn(annex, work));
      return describe(annex);
    },
    migrate: async () => {
      const older = all().filter((one) => !one.leaving && !one.settled && isOlder(one, options));
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
    case "copy":
      return busily(annex, () => copy(annex, place));
    case "settle":
      return busily(annex, () => settle(annex, place));
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
  const { options } = place;
  const server = serverOf(annex, place);
  annex.ports = await portsFor(annex, options);
  if (annex.server !== undefined && annex.settled) {
    await writeNote(annex);
    annex.logins = await openSettled(annex.server, { annex: annex.id, options });
  } else {
    await migrate(annex, place); // Writes the note.
    await startFollowing(annex, options);
    annex.logins = await writeWaiting(annex, place, server);
  }
  await Promise.all(programsOf(annex).map((unit) => unit.start()));
  await requireUp(annex, place);
}

/** The host may have gone meanwhile, and taken with it what it knew of. */
async function requireUp(annex: Annex, place: Place): Promise<void> {
  if (place.isUp()) return;
  await killAnnex(annex);
  throw hostDown(annex, place.host);
}

/** A standby that does not come up is the keeper's to mend; its agent is a witness all the same. */
async function startFollowing(annex: Annex, { say = () => {} }: CellsOptions): Promise<void> {
  for (const unit of serversOf(annex)) {
    await unit.start().catch((error: unknown) => {
      say(`${unit.name}: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
}

/** Of the databases in its host's server; the mover goes to where the rows are. */
async function writeWaiting(
  annex: Annex,
  { host, options }: Place,
  server: PostgresServer,
): Promise<Annex["logins"]> {
  const secrets = { hostSecrets: secretsOf(host), secrets: secretsOf(annex) };
  const about = { ...aboutOf(annex, options), ...secrets, server };
  if (annex.server === undefined) return writeAnnexLogins(about);
  const followed = await writeFollowedLogins(annex.server, options.application);
  return { ...(await writeAnnexLogins({ ...about, movers: followed.movers })), ...followed };
}

async function copy(annex: Annex, place: Place): Promise<void> {
  const { host, options } = place;
  const own = ownServerOf(annex);
  const server = serverOf(annex, place);
  const { id, of, made: isMade } = annex;
  const origin = host.originOf(of.origin);
  if (origin === undefined) {
    throw new CellError("PROVIDER_FAILED", `${id}: there is no cell ${of.origin} on this machine`);
  }
  const making = async () => {
    annex.made = false;
    await writeNote(annex);
  };
  await followOrigin(own, origin, { annex: id, options, isMade, making });
  annex.made = true;
  await writeNote(annex);
  annex.logins = await writeWaiting(annex, place, server);
  await requireUp(annex, place);
}

/** In a failover tenants wait for this. */
async function settle(annex: Annex, place: Place): Promise<void> {
  const own = ownServerOf(annex);
  const server = serverOf(annex, place);
  if (!annex.settled) {
    await annex.agent.stop();
    try {
      await settleServer(own, server, { annex: annex.id, options: place.options });
    } catch (error) {
      await startAnnex(annex, place).catch(() => {}); // Why it is not settled matters more.
      throw error;
    }
    annex.settled = true;
  }
  await startAnnex(annex, place);
}

function ownServerOf({ id, server }: Annex): AnnexServer {
  if (server !== undefined) return server;
  throw new CellError("VALIDATION_FAILED", `${id} has no server of its own`);
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
    if (isHome(annex)) await Promise.all(annex.apps.map((app) => app.start()));
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
async function stopAnnex(annex: Annex): Promise<void> {
  await annex.agent.stop();
  await Promise.all(annex.apps.map((app) => app.stop()));
  await Promise.all(serversOf(annex).map((unit) => unit.stop()));
}

async function killAnnex(annex: Annex): Promise<void> {
  const alive = annex.apps.filter((app) => app.status().state === "running" || !app.isSettled());
  await Promise.all([annex.agent, ...alive, ...serversOf(annex)].map((unit) => unit.kill()));
}

/** Of a host that does not run the databases stay until it does. */
async function destroyAnnex(annex: Annex, place: Place): Promise<"gone" | "leaving"> {
  annex.leaving = true;
  annex.serving = false;
  if (annex.ports !== undefined) await writeNote(annex);
  await stopAnnex(annex);
  if (annex.server !== undefined) await removeAnnexServer(annex.server, place.options);
  if (place.isUp()) {
    const databases = { ...aboutOf(annex, place.options), server: serverOf(annex, place) };
    await inTurn(place.host.makers, () => dropAnnexDatabases(databases));
  } else if (annex.ports !== undefined) {
    return "leaving";
  }
  for (const folder of [annex.server?.folder ?? annex.home, annex.home]) {
    await rm(folder, { recursive: true, force: true });
  }
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

async function readAnnex(
  id: CellId,
  home: string,
  host: Host,
  options: CellsOptions,
): Promise<Annex | undefined> {
  const note = await readNote(home, (text) => options.say?.(`${id} is left out: ${text}`));
  if (note === undefined) return undefined;
  const { of, ...known } = note;
  return Object.assign(newAnnex({ id, home, of }, host, options), known);
}
