/**
 * The data folder of a local fleet: what lies where, and who may use it. One supervisor at a time.
 *
 *   endpoints.json        where everything listens (contract/provider-api.ts)
 *   supervisor.json       the supervisor that has the folder now: pid, start time, its door
 *   ports.json            ports chosen by the system, so that a restart keeps them
 *   secrets/              tokens, keys, database URLs; the folder 0700, each file 0600
 *   logs/  processes/     one log and one note (pid, start time) per process
 *   control-plane/        its PostgreSQL
 *   router-01/            the routing table on the router's disk
 *   cells/cell-01/        its PostgreSQL, cell.json, its secrets
 *   cells/cell-01/annexes/  of each annex that it hosts: annex.json, secrets; its databases are in that PostgreSQL,
 *                         and a physical one has a PostgreSQL of its own there besides
 */
import { createHash } from "node:crypto";
import {
  chmod,
  link,
  mkdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { must } from "../runtime/assert.ts";
import type { Random } from "../runtime/random.ts";
import type { RunAs } from "./postgres/command.ts";
import { canReach } from "./postgres/machine-folder.ts";
import {
  identify,
  isAlive,
  type ProcessIdentity,
  processIdentitySchema,
} from "./process-identity.ts";

export type DataFolder = {
  readonly root: string;
  readonly secrets: string;
  readonly logs: string;
  readonly notes: string;
  /** Where folders with PostgreSQL servers lie: the root, unless the unprivileged user cannot reach it. */
  readonly databases: string;
};

const supervisorSchema = processIdentitySchema.extend({
  /** Of the provider API, which also answers for processes. */
  door: z.string().optional(),
});
export type SupervisorNote = z.infer<typeof supervisorSchema>;

export const secretFile = (folder: DataFolder, name: string): string => join(folder.secrets, name);

export async function openDataFolder(
  path: string,
  runAs: RunAs | undefined,
  random: Random,
): Promise<DataFolder> {
  const root = resolve(path);
  await mkdir(root, { recursive: true, mode: 0o711 }).catch((error: unknown) => {
    throw unusable(path, error);
  });
  if (runAs !== undefined) {
    // PostgreSQL runs as another user, who must pass through. What is secret has modes of its own.
    await chmod(root, (await stat(root)).mode | 0o111);
  }
  const folder = {
    root,
    secrets: join(root, "secrets"),
    logs: join(root, "logs"),
    notes: join(root, "processes"),
    databases: await placeForDatabases(root, runAs, random),
  };
  for (const part of [folder.secrets, folder.logs, folder.notes]) {
    await mkdir(part, { recursive: true, mode: 0o700 });
    await chmod(part, 0o700);
  }
  return folder;
}

const whyUnusable: Readonly<Record<string, string>> = {
  EEXIST: "it is a file",
  ENOTDIR: "a part of the path is a file",
  EROFS: "the file system is read-only",
  EACCES: "this user may not write there",
  EPERM: "this user may not write there",
  ENOSPC: "the disk is full",
};

/** The operator's to mend, or the error as it was. */
function unusable(path: string, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const why = whyUnusable[code];
  if (why === undefined) return error;
  return new CellError("CONFIG_INVALID", `The data folder ${path} cannot be used: ${why}.`, {
    nextSteps: ["cellctl dev --data OTHER_FOLDER"],
    cause: error,
  });
}

/**
 * Takes the folder for this process, or says who has it.
 *
 * The note of a supervisor that is gone is replaced, and of several that want to only one may: the
 * one that makes the file named after the dead holder. Should it die before it is done, its claim
 * has a dead holder in turn, and the next claim is named after that one.
 */
export async function takeFolder(folder: DataFolder): Promise<void> {
  const self = must(identify(process.pid), "our own process");
  const path = supervisorFile(folder.root);
  const draft = `${path}.${self.pid}`;
  await writeFile(draft, JSON.stringify(self), { mode: 0o600 });
  try {
    if (await linkNew(draft, path)) return;
    const claims = await claimAfterDead(draft, path, folder.root);
    const holder = await readNote(path);
    // Somebody was through with it before our claim began.
    const late = holder !== undefined && isAlive(holder);
    if (!late) await rename(draft, path);
    for (const claim of claims) await rm(claim, { force: true });
    if (late) throw inUse(folder.root, holder);
  } finally {
    await rm(draft, { force: true });
  }
}

async function claimAfterDead(draft: string, path: string, root: string): Promise<string[]> {
  const claims: string[] = [];
  let holder = await readNote(path);
  for (;;) {
    if (holder !== undefined && isAlive(holder)) throw inUse(root, holder);
    const claim = `${path}.after-${holder === undefined ? "nobody" : keyOf(holder)}`;
    claims.push(claim);
    if (await linkNew(draft, claim)) return claims;
    holder = await readNote(claim);
  }
}

/** Tells the CLI where to ask about processes. */
export async function announceDoor(folder: DataFolder, door: string): Promise<void> {
  const self = identify(process.pid);
  await writeJson(supervisorFile(folder.root), { ...self, door });
}

export const releaseFolder = (folder: DataFolder): Promise<void> =>
  rm(supervisorFile(folder.root), { force: true });

/** The note of the supervisor that has, or had, this folder. */
export const readSupervisor = (root: string): Promise<SupervisorNote | undefined> =>
  readNote(supervisorFile(root));

/** Complete or not at all. */
export async function writeJson(path: string, value: unknown, mode = 0o600): Promise<void> {
  const draft = `${path}.new`;
  await writeFile(draft, `${JSON.stringify(value, null, 2)}\n`, { mode });
  await rename(draft, path);
}

/** A secret that is made once and kept. */
export async function keepSecret(path: string, make: () => string): Promise<string> {
  const known = await readFile(path, "utf8").catch(() => undefined);
  if (known !== undefined && known.trim() !== "") return known.trim();
  const secret = make();
  await writeFile(path, `${secret}\n`, { mode: 0o600 });
  return secret;
}

const supervisorFile = (root: string): string => join(root, "supervisor.json");

const keyOf = (identity: ProcessIdentity): string =>
  createHash("sha256").update(`${identity.pid}/${identity.startedAt}`).digest("hex").slice(0, 16);

/** Atomic, with its content: false when the file is there already. */
async function linkNew(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

async function readNote(path: string): Promise<SupervisorNote | undefined> {
  try {
    return supervisorSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined; // None, or not a note: nobody who could be alive.
  }
}

function inUse(root: string, holder: ProcessIdentity): CellError {
  return new CellError(
    "STATE_CONFLICT",
    `a fleet already runs in ${root} (process ${holder.pid})`,
    {
      nextSteps: [
        `cellctl dev ps --data ${root}   (start what is dead: cellctl dev start NAME)`,
        "cellctl dev --data OTHER-FOLDER",
        `kill ${holder.pid}   (ends all of it, every cell)`,
      ],
    },
  );
}

/**
 * Under a closed home folder the unprivileged user cannot reach the data folder. Then databases live
 * in the system's place for such data, and a link in the data folder says where. A new folder never
 * finds the databases of an older one of its name: they would belong to passwords that are gone.
 */
async function placeForDatabases(
  root: string,
  runAs: RunAs | undefined,
  random: Random,
): Promise<string> {
  if (await canReach(root, runAs)) return root;
  const pointer = join(root, "databases");
  const known = await readlink(pointer).catch(() => undefined);
  const name = `${basename(root).replace(/^\.+/, "")}-${random.hex(4)}`;
  const place = known ?? join("/var/lib/cellfleet", name);
  await mkdir(place, { recursive: true, mode: 0o711 });
  if (!(await canReach(place, runAs))) {
    throw new CellError(
      "CONFIG_INVALID",
      `PostgreSQL runs as the user ${runAs?.name}, who can reach neither ${root} nor ${place}.`,
      { nextSteps: ["cellctl dev --data FOLDER   # a folder that other users can pass through"] },
    );
  }
  if (known === undefined) await symlink(place, pointer);
  return place;
}
