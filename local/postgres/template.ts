/**
 * New servers as copies of a prepared one: initialised, filled by `build`, stopped in order.
 *
 * Templates lie in the machine's cache under the hash of all that shaped them, so that every fleet
 * and every test file of one checkout shares them. They appear by rename, complete or not at all;
 * of two builders at once the second throws its work away. A copy gets a system identifier and a
 * password of its own.
 */
import { createHash } from "node:crypto";
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import type { Installation } from "./binaries.ts";
import { identity, runCommand } from "./command.ts";
import { machineFolder } from "./machine-folder.ts";
import { ignoreExisting } from "./native-files.ts";
import { giveNewIdentity } from "./new-identity.ts";
import {
  dataDirOf,
  endServer,
  passwordFileOf,
  startServer,
  stateFileOf,
  superuser,
} from "./server.ts";
import { initdbArguments, settingsText } from "./settings.ts";

export type Template = {
  /** All that `build` depends on, in text; part of the cache key. */
  readonly content: string;
  /** Fills the new server; given the superuser's URL of a database. */
  readonly build: (url: (database?: string) => string) => Promise<void>;
};

export type TemplateTools = {
  readonly installation: Installation;
  readonly clock: Clock;
  readonly random: Random;
};

/** Grows when this file makes templates differently. */
const templateFormat = 1;
const unusedMaxMs = 24 * 3_600_000;

/**
 * Makes `folder` a server that was never started; one that is there is removed first. The superuser's password is still the template's:
 * `renewPassword` after the first start.
 */
export async function createFromTemplate(
  folder: string,
  template: Template,
  tools: TemplateTools,
): Promise<void> {
  const source = await ensureTemplate(template, tools);
  await removeServer(folder, tools.clock);
  await makeFolders(folder, tools.installation);
  // As the user who will own the files: no chown of a thousand of them, and modes stay as they are.
  const args = ["-R", `${dataDirOf(source)}/.`, dataDirOf(folder)];
  const { code, stderr } = await runCommand("/bin/cp", args, tools.installation);
  if (code !== 0) throw new CellError("CONFIG_INVALID", `The template was not copied: ${stderr}`);
  const password = await readFile(passwordFileOf(source), "utf8");
  await writeFile(passwordFileOf(folder), password, { mode: 0o600 });
  if ((await giveNewIdentity(dataDirOf(folder), tools)) === "done") return;
  await removeServer(folder, tools.clock);
  await buildInPlace(folder, template, tools);
}

/** Removes a server from a folder that may hold other files. */
export async function removeServer(folder: string, clock: Clock): Promise<void> {
  await endServer(folder, clock);
  for (const path of [dataDirOf(folder), passwordFileOf(folder), stateFileOf(folder)]) {
    await rm(path, { recursive: true, force: true });
  }
}

/** A superuser's password that no other copy has. The file is written before the server knows it. */
export async function renewPassword(folder: string, url: string, random: Random): Promise<void> {
  const password = random.hex(24);
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(`alter role ${superuser} password '${password}'`);
    await writeFile(passwordFileOf(folder), `${password}\n`, { mode: 0o600 });
  } finally {
    await client.end();
  }
}

/** The folder of the template, made if it is not there. */
export async function ensureTemplate(template: Template, tools: TemplateTools): Promise<string> {
  const cache = await machineFolder(tools.installation.runAs);
  const goal = join(cache, `template-${await templateKey(template, tools.installation)}`);
  const used = new Date(tools.clock.nowMs());
  const known = await utimes(goal, used, used).then(
    () => true,
    () => false,
  );
  if (known) return goal;
  await removeUnused(cache, tools.clock);
  const draft = join(cache, `draft-${tools.random.hex(6)}`);
  try {
    await buildInPlace(draft, template, tools);
    await rename(draft, goal).catch(ignoreExisting);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return goal;
}

async function buildInPlace(
  folder: string,
  template: Template,
  tools: TemplateTools,
): Promise<void> {
  const { installation, random, clock } = tools;
  await makeFolders(folder, installation);
  const password = random.hex(24);
  await writeFile(passwordFileOf(folder), `${password}\n`, { mode: 0o600 });
  await initialise(folder, password, installation);
  const logFile = join(folder, "build.log");
  const server = await startServer({
    folder,
    name: "template",
    installation,
    clock,
    random,
    logFile,
    durable: false,
  });
  try {
    await template.build(server.url);
  } finally {
    await server.stop("fast");
  }
  await rm(logFile, { force: true });
}

async function initialise(
  folder: string,
  password: string,
  installation: Installation,
): Promise<void> {
  const passwordFile = join(folder, "initdb-password");
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await giveTo(passwordFile, installation);
  const args = [
    ...initdbArguments(installation.major),
    `--username=${superuser}`,
    `--pwfile=${passwordFile}`,
    "-D",
    dataDirOf(folder),
  ];
  const { code, stderr } = await runCommand(installation.initdb, args, installation);
  await rm(passwordFile);
  if (code === 0) return;
  throw new CellError("CONFIG_INVALID", `initdb failed: ${stderr.trim()}`, {
    nextSteps: [
      "check that the disk has room and that the data folder lies on a local file system",
    ],
  });
}

async function makeFolders(folder: string, installation: Installation): Promise<void> {
  const mode = installation.runAs === undefined ? 0o700 : 0o711;
  await mkdir(folder, { recursive: true, mode });
  await chmod(folder, mode);
  await mkdir(dataDirOf(folder), { mode: 0o700 });
  await giveTo(dataDirOf(folder), installation);
}

async function giveTo(path: string, installation: Installation): Promise<void> {
  const { uid, gid } = identity(installation.runAs);
  if (uid !== undefined && gid !== undefined) await chown(path, uid, gid);
}

async function templateKey(template: Template, installation: Installation): Promise<string> {
  const { size, mtimeMs } = await stat(installation.postgres);
  const shaped = [
    templateFormat,
    installation.version,
    // Two builds of one version number are not one template.
    `${size}/${Math.floor(mtimeMs)}`,
    installation.runAs?.uid ?? "own",
    initdbArguments(installation.major),
    settingsText({ name: "", port: 0, major: installation.major, durable: false }),
    template.content,
  ];
  return createHash("sha256").update(JSON.stringify(shaped)).digest("hex").slice(0, 16);
}

/** Templates of older code, and drafts of builders that were killed. */
async function removeUnused(cache: string, clock: Clock): Promise<void> {
  for (const name of await readdir(cache)) {
    if (!/^(template|draft)-/.test(name)) continue;
    const path = join(cache, name);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
    if (clock.nowMs() - mtimeMs > unusedMaxMs) await rm(path, { recursive: true, force: true });
  }
}
