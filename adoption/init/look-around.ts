/**
 * What a folder says about the application in it: its name, its commands, how its database is
 * migrated. From Procfile, package.json and docker-compose, in this order. Proposals only: a person
 * confirms or overrules each. The files are only parsed, never run.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";

export type ProposedService = {
  readonly name: string;
  readonly command: string;
  /** Listens on PORT. */
  readonly port: boolean;
};

export type Proposal = {
  readonly name: string;
  readonly services: readonly ProposedService[];
  readonly migrate: string | undefined;
  /** Folders with migrations that are there. */
  readonly watch: readonly string[];
  /** Files that were read. */
  readonly from: readonly string[];
};

const bytesMax = 256 * 1024;
const migrationFolders = ["migrations", "db/migrate", "db/migrations", "prisma/migrations"];
const composeFiles = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

export async function lookAround(folder: string): Promise<Proposal> {
  const procfile = readProcfile(await textOf(join(folder, "Procfile")));
  const scripts = readPackage(await textOf(join(folder, "package.json")));
  const compose = await firstCompose(folder);
  const found = [
    { from: "Procfile", services: procfile?.services ?? [] },
    { from: "package.json", services: scripts?.services ?? [] },
    { from: compose?.file ?? "", services: compose?.services ?? [] },
  ].find(({ services }) => services.length > 0);
  const watch: string[] = [];
  for (const path of migrationFolders) if (await isFolder(join(folder, path))) watch.push(path);
  return {
    name: nameFrom(scripts?.name ?? "") ?? nameFrom(basename(folder)) ?? "app",
    services: found?.services ?? [],
    migrate: procfile?.migrate ?? scripts?.migrate,
    watch,
    from: found === undefined ? [] : [found.from],
  };
}

type Read = {
  readonly services: readonly ProposedService[];
  readonly migrate: string | undefined;
};

/** As Heroku means it: `web` gets a port, `release` migrates, the others are workers. */
export function readProcfile(text: string | undefined): Read | undefined {
  if (text === undefined) return undefined;
  const lines = text.split("\n").flatMap((line) => {
    const [, raw = "", command = ""] = /^([A-Za-z0-9_-]+):\s*(\S.*)$/.exec(line.trim()) ?? [];
    const name = nameFrom(raw);
    return name === undefined ? [] : [{ name, command: command.trim(), port: name === "web" }];
  });
  return {
    services: lines.filter(({ name }) => name !== "release"),
    migrate: lines.find(({ name }) => name === "release")?.command,
  };
}

const packageSchema = z.object({
  name: z.string().optional().catch(undefined),
  scripts: z.record(z.string(), z.string()).default({}).catch({}),
});
const listening = ["web", "api", "server"];
const working = ["worker", "cron", "queue", "jobs", "scheduler"];
const migrating = ["migrate", "db:migrate", "migrations", "migrate:deploy"];

export function readPackage(text: string | undefined): (Read & { name: string }) | undefined {
  const parsed = packageSchema.safeParse(jsonOf(text));
  if (!parsed.success) return undefined;
  const { name = "", scripts } = parsed.data;
  const has = (script: string) => Object.hasOwn(scripts, script);
  const run = (script: string, port: boolean) => ({
    name: script,
    command: `npm run ${script}`,
    port,
  });
  const named = listening.filter(has).map((script) => run(script, true));
  const web =
    named.length > 0 || !has("start") ? named : [{ name: "web", command: "npm start", port: true }];
  const migrate = migrating.find(has);
  return {
    name,
    services: [...web, ...working.filter(has).map((script) => run(script, false))],
    migrate: migrate === undefined ? undefined : `npm run ${migrate}`,
  };
}

const composeSchema = z.object({
  services: z.record(
    z.string(),
    z
      .object({
        build: z.unknown(),
        command: z.union([z.string(), z.array(z.string())]).optional(),
        ports: z.array(z.unknown()).optional(),
      })
      .catch({ build: undefined }),
  ),
});

/** What is built here is the application's; what is only pulled (a database, a cache) is not. */
export function readCompose(text: string | undefined): readonly ProposedService[] {
  const parsed = composeSchema.safeParse(yamlOf(text));
  if (!parsed.success) return [];
  return Object.entries(parsed.data.services).flatMap(([raw, { build, command, ports }]) => {
    const name = nameFrom(raw);
    if (build === undefined || command === undefined || name === undefined) return [];
    const text_ = typeof command === "string" ? command : command.map(quoted).join(" ");
    return [{ name, command: text_, port: (ports ?? []).length > 0 }];
  });
}

async function firstCompose(folder: string) {
  for (const file of composeFiles) {
    const services = readCompose(await textOf(join(folder, file)));
    if (services.length > 0) return { file, services };
  }
  return undefined;
}

const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** As a name in `cellfleet.yaml` must be; undefined when nothing is left. */
export function nameFrom(raw: string): string | undefined {
  const plain = raw
    .toLowerCase()
    .replace(/^@[^/]*\//, "")
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replace(/^[^a-z]+/, "")
    .slice(0, 40)
    .replace(/-+$/, "");
  return plain === "" ? undefined : plain;
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    if ((await stat(file)).size > bytesMax) return undefined;
    return await readFile(file, "utf8");
  } catch {
    return undefined; // Not there: it proposes nothing.
  }
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

function jsonOf(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined; // Broken: it proposes nothing either.
  }
}

function yamlOf(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : parse(text, { maxAliasCount: 100 });
  } catch {
    return undefined;
  }
}
