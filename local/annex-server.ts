/**
 * The server of a physical standby on this machine: a copy of the origin's that follows it, beside the
 * host's. Its annex's agent waits in databases of the host until this server is promoted and settled.
 *
 * What must always be true: a server that was cut off its origin is never made anew, whoever asks; the
 * passwords of its roles are the origin's, and are kept here, for the origin may be gone when they are
 * needed.
 *
 *   cells/HOST/annexes/ID                  the server's folder, beside the host's own
 *   cells/HOST/annexes/ID/secrets/server   passwords of its roles
 */
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { serverSlot } from "../contract/annex.ts";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";
import { applicationOfAnnex } from "./annex-database.ts";
import { letStreamsGo, settleStore } from "./annex-settle.ts";
import { guardedStores, type LocalApplication } from "./application.ts";
import { type CellLogins, cellTemplate, loginsInto, writeLogins } from "./cell-database.ts";
import type { CellsOptions } from "./cell-parts.ts";
import { createDatabaseUnit, type DatabaseUnit } from "./database-unit.ts";
import { copyServer, endFollowing, hasSlot, wasCutOff } from "./postgres/copy-server.ts";
import { type PostgresServer, passwordFileOf } from "./postgres/server.ts";
import { removeServer } from "./postgres/template.ts";

export type AnnexServer = {
  readonly unit: DatabaseUnit;
  readonly folder: string;
  /** Of the annex, which all its logins are written to. */
  readonly secrets: string;
};

/** The cell that is followed, as this machine runs it. */
export type OriginServer = {
  readonly database: DatabaseUnit;
  readonly databaseFolder: string;
  /** Folder with the passwords of its roles. */
  readonly secrets: string;
};

export function createAnnexServer(
  { id, folder, secrets }: Pick<AnnexServer, "folder" | "secrets"> & { readonly id: CellId },
  { folder: { logs }, tools, onChange }: CellsOptions,
): AnnexServer {
  const name = `${id}-db`;
  const unit = createDatabaseUnit({ name, folder, logs, restart: false, tools, onChange });
  return { unit, folder, secrets };
}

const passwordsOf = ({ secrets }: AnnexServer): string => join(secrets, "server");

/**
 * Makes it, or makes it anew where its origin keeps the log for it no more. `making` is told before
 * anything is removed. It runs afterwards.
 */
export async function followOrigin(
  server: AnnexServer,
  origin: OriginServer,
  about: {
    readonly annex: CellId;
    readonly options: CellsOptions;
    readonly isMade: boolean;
    readonly making: () => Promise<void>;
  },
): Promise<void> {
  const { unit, folder } = server;
  const { annex, isMade } = about;
  const { tools, application } = about.options;
  const source = origin.database.server();
  if (source === undefined) {
    throw new CellError("PROVIDER_FAILED", `${annex} has nothing to follow: its origin is down`);
  }
  const slot = serverSlot(annex);
  if (isMade) {
    await refuseCutOff(server, annex);
    if (await hasSlot(source.url(), slot)) return unit.start();
  }
  await about.making();
  await unit.stop();
  await keepPasswords(server, origin.secrets);
  const [first] = guardedStores(application);
  await copyServer({
    ...{ folder, slot, installation: tools.installation, clock: tools.clock },
    source: {
      url: source.url(first?.database),
      password: (await readFile(passwordFileOf(origin.databaseFolder), "utf8")).trim(),
      connection: await connectionTo(source, { application, passwords: passwordsOf(server) }),
    },
  });
  await unit.start();
}

async function refuseCutOff({ folder }: AnnexServer, annex: CellId): Promise<void> {
  if (!(await wasCutOff(folder))) return;
  const text = `The server of ${annex} was cut off its origin: nothing is copied into it any more`;
  throw new CellError("STATE_CONFLICT", text, { nextSteps: ["cellctl standby ls"] });
}

async function keepPasswords(server: AnnexServer, from: string): Promise<void> {
  const to = passwordsOf(server);
  await mkdir(to, { recursive: true, mode: 0o700 });
  const names = (await readdir(from)).filter((name) => name.endsWith("-password"));
  for (const name of names) await copyFile(join(from, name), join(to, name));
}

/** Until the keeper of standbys says how the origin is reached: the same, from this machine. */
async function connectionTo(
  { port }: PostgresServer,
  { application, passwords }: { application: LocalApplication; passwords: string },
): Promise<string> {
  const { movers } = await loginsInto(passwords, { application, port });
  const [url = ""] = movers.values();
  const { username, password } = new URL(url);
  return `host=127.0.0.1 port=${port} user=${username} password=${password}`;
}

/** Ways into a server that follows, for the mover and the annex's agent, as they are from now on. */
export async function writeFollowedLogins(
  server: AnnexServer,
  application: LocalApplication,
): Promise<{ readonly movers: ReadonlyMap<string, string>; readonly standbyServerFile: string }> {
  // Nobody's port: it cannot be reached, as a server that is down.
  const port = server.unit.server()?.port ?? 1;
  const { movers, agent } = await loginsInto(passwordsOf(server), { application, port });
  const file = join(server.secrets, "standby-server-url");
  await writeFile(file, `${agent}\n`, { mode: 0o600 });
  return { movers, standbyServerFile: file };
}

/** It was promoted: from here on it is the annex's. Its agent must not run. May be repeated. */
export async function settleServer(
  server: AnnexServer,
  host: PostgresServer,
  { annex, options }: { readonly annex: CellId; readonly options: CellsOptions },
): Promise<void> {
  const { unit, folder } = server;
  const { application, tools } = options;
  await unit.start();
  const own = runningOf(server, annex);
  const desk = applicationOfAnnex(application, annex);
  for (const { name, database } of guardedStores(application)) {
    const waiting = desk.stores.find((store) => store.name === name)?.database;
    if (waiting === undefined) continue;
    await settleStore({ annex, desk: host.url(waiting), own: own.url(database) });
  }
  await letStreamsGo(own.url);
  await unit.stop();
  await endFollowing(folder, tools.installation);
}

/** Like a cell's: the application, the agent and the mover stand on it. */
export async function openSettled(
  server: AnnexServer,
  { annex, options }: { readonly annex: CellId; readonly options: CellsOptions },
): Promise<CellLogins> {
  const { application, tools } = options;
  const { random } = tools;
  await server.unit.start();
  const own = runningOf(server, annex);
  const passwords = passwordsOf(server);
  const template = cellTemplate({ application, random, say: () => {} });
  await template.bringUpToDate(own, annex, passwords);
  return writeLogins({ application, random, server: own, secrets: server.secrets, passwords });
}

function runningOf({ unit }: AnnexServer, annex: CellId): PostgresServer {
  const server = unit.server();
  if (server !== undefined) return server;
  throw new CellError("PROVIDER_FAILED", `The server of ${annex} does not run`);
}

/** Its folder may be the annex's own, with the note that says what is left to do. */
export async function removeAnnexServer(
  { unit, folder }: AnnexServer,
  { tools }: CellsOptions,
): Promise<void> {
  await unit.kill();
  await removeServer(folder, tools.clock);
}
