/**
 * What `cellctl init` does: looks at the folder, asks what it cannot know, writes `cellfleet.yaml` and,
 * given a database, `cellfleet.schema.yaml`. Flags answer before anybody is asked; `--yes` takes the
 * proposals. Nothing is written before all is known, and nothing that is there is replaced unasked.
 */
import { access, rename, rm, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { AppFileInput } from "../contract/app-file.ts";
import { loadAppInit, loadSchemaInit, resolveDatabaseUrl, withDatabase } from "./adoption.ts";
import { CliError, usage } from "./failures.ts";
import { flag, type Options, text, texts } from "./grammar.ts";
import { createInterview, type Interview } from "./interview.ts";
import { printable } from "./render/printable.ts";
import type { Session } from "./session.ts";

const appFile = "cellfleet.yaml";
const schemaFile = "cellfleet.schema.yaml";

type Service = NonNullable<AppFileInput["services"]>[string];
type Source = NonNullable<AppFileInput["tenantKey"]>[number];

export async function init(session: Session, options: Options): Promise<number> {
  const { cwd } = session.io;
  const force = flag(options, "force");
  const reference = text(options, "databaseUrl");
  const files = reference === undefined ? [appFile] : [appFile, schemaFile];
  if (!force) for (const file of files) await requireNew(resolve(cwd, file));
  const { lookAround, writeAppFile } = await loadAppInit();
  const manifest = reference === undefined ? undefined : await propose(session, options, reference);
  const interview = createInterview(session);
  try {
    const proposal = await lookAround(cwd);
    if (proposal.from.length > 0) await session.note(`Looked at ${proposal.from.join(", ")}.`);
    const name = text(options, "name") ?? (await interview.ask("Name", proposal.name));
    const services = await servicesOf(options, interview, proposal.services);
    const tenantKey = await tenantKeyOf(options, interview);
    const stores = await storesOf(options, interview, { ...proposal, manifest });
    const tenants = texts(options, "tenant");
    const content = writeAppFile({
      version: 1,
      name,
      tenantKey,
      ...(tenants.length === 0 ? {} : { tenants: [...tenants] }),
      services,
      stores,
    });
    await write(resolve(cwd, appFile), content, force);
    if (manifest !== undefined) await write(resolve(cwd, schemaFile), manifest.text, force);
    return await tell(session, content, {
      files,
      wantsManifest: manifest === undefined && options["store"] !== false,
    });
  } finally {
    interview.close();
  }
}

async function tell(
  session: Session,
  content: string,
  about: { readonly files: readonly string[]; readonly wantsManifest: boolean },
): Promise<number> {
  const { files } = about;
  if (session.out.structured || session.out.format === "name") {
    const view = { id: () => appFile, columns: [] };
    await session.out.one({ files, [appFile]: content }, view);
    return 0;
  }
  await session.note(
    `Wrote ${files.join(" and ")}. Read ${files.length > 1 ? "them" : "it"}, then:`,
  );
  if (about.wantsManifest) {
    await session.note(`  cellctl schema init --database-url env:DATABASE_URL --out ${schemaFile}`);
  }
  await session.note(`  cellctl dev --app ${appFile}`);
  return 0;
}

/** From the database as it is today: what each table is, and which column names the tenant. */
async function propose(session: Session, options: Options, reference: string) {
  const { initManifest } = await loadSchemaInit();
  const url = await resolveDatabaseUrl(session, reference);
  const { text: manifest, proposal } = await withDatabase(url, ({ client }) =>
    initManifest(client, {
      keyColumn: text(options, "keyColumn"),
      store: "default",
      keyspace: "default",
    }),
  );
  return { text: manifest, keyColumn: proposal.keyColumn };
}

type Proposed = { readonly name: string; readonly command: string; readonly port: boolean };

async function servicesOf(
  options: Options,
  interview: Interview,
  proposed: readonly Proposed[],
): Promise<Record<string, Service>> {
  const given = [
    ...pairs(options, "service").map(([name, command]) => ({ name, command, port: true })),
    ...pairs(options, "worker").map(([name, command]) => ({ name, command, port: false })),
  ];
  const chosen = given.length > 0 ? given : await askServices(interview, proposed);
  const health = new Map(pairsOrAll(options, "health", chosen));
  const instances = new Map(pairs(options, "instances"));
  const routes = pairs(options, "route");
  for (const name of [...health.keys(), ...instances.keys(), ...routes.map(([one]) => one)]) {
    if (!chosen.some((one) => one.name === name)) throw usage(`there is no service "${name}"`);
  }
  const services: Record<string, Service> = {};
  const first = chosen.find(({ port }) => port)?.name;
  for (const one of chosen) {
    const { name, command, port } = one;
    const count = instances.get(name);
    services[name] = {
      command,
      ...(count === undefined ? {} : { instances: Number(count) }),
      ...(port ? await entryOf(one) : { port }),
    };
  }
  return services;

  /** How a service that listens is reached; the first one answers all that no other is for. */
  async function entryOf({ name }: Proposed): Promise<Partial<Service>> {
    const path = health.get(name) ?? (await interview.ask(`Health path of ${name}`, "/"));
    const given = routes.filter(([one]) => one === name).map(([, prefix]) => prefix);
    if (given.length === 0 && name !== first) {
      given.push(await interview.ask(`Requests for ${name} begin with`, `/${name}`));
    }
    return {
      ...(path === "/" ? {} : { health: path }),
      ...(given.length === 0 ? {} : { routes: given.map((pathPrefix) => ({ pathPrefix })) }),
    };
  }
}

async function askServices(
  interview: Interview,
  proposed: readonly Proposed[],
): Promise<readonly Proposed[]> {
  const chosen: Proposed[] = [];
  for (const one of proposed) {
    const what = one.port ? "Service" : "Worker";
    const command = await interview.ask(`${what} ${one.name} (- leaves it out)`, one.command);
    if (command !== "-") chosen.push({ ...one, command });
  }
  while (chosen.every(({ port }) => !port)) {
    const command = await interview.ask("Command of the service web, listening on PORT", undefined);
    chosen.push({ name: "web", command, port: true });
  }
  return chosen;
}

async function tenantKeyOf(options: Options, interview: Interview): Promise<Source[]> {
  const given = texts(options, "tenantKey");
  if (given.length > 0) return given.map(sourceOf);
  const question =
    "Where a request names its tenant (header:NAME, host:{tenant}.DOMAIN, path:/t/{tenant})";
  return (await interview.ask(question, "header:x-tenant-id")).split(/[\s,]+/).map(sourceOf);
}

function sourceOf(raw: string): Source {
  const [, kind, value = ""] = /^(header|host|path|cookie|query):(.+)$/.exec(raw) ?? [];
  switch (kind) {
    case "header":
      return { header: value };
    case "host":
      return { host: value };
    case "path":
      return { path: value };
    case "cookie":
      return { cookie: value };
    case "query":
      return { query: value };
    default:
      throw usage(
        `--tenant-key "${printable(raw)}": header, host, path, cookie or query, then a colon`,
      );
  }
}

async function storesOf(
  options: Options,
  interview: Interview,
  known: {
    readonly migrate: string | undefined;
    readonly watch: readonly string[];
    readonly manifest: { readonly keyColumn: string } | undefined;
  },
): Promise<NonNullable<AppFileInput["stores"]>> {
  if (options["store"] === false) return {};
  const given = text(options, "migrate");
  const migrate =
    given ??
    (await interview.ask("Command that migrates DATABASE_URL (- for none)", known.migrate ?? "-"));
  const keyColumn =
    text(options, "keyColumn") ??
    known.manifest?.keyColumn ??
    (await interview.ask("Column that names the tenant", "tenant_id"));
  return {
    default: {
      manifest: schemaFile,
      ...(migrate === "-" ? {} : { migrate }),
      ...(known.watch.length === 0 || migrate === "-" ? {} : { watch: [...known.watch] }),
      keyColumn,
    },
  };
}

const pairs = (options: Options, name: string): ReadonlyArray<readonly [string, string]> =>
  texts(options, name).map((raw) => {
    const [, key, value] = /^([^=\s]+)=(.+)$/s.exec(raw) ?? [];
    if (key !== undefined && value !== undefined) return [key, value];
    throw usage(`--${name} "${printable(raw)}": must be NAME=VALUE`);
  });

/** Without a name it is of every service that listens. */
const pairsOrAll = (
  options: Options,
  name: string,
  services: readonly Proposed[],
): ReadonlyArray<readonly [string, string]> =>
  texts(options, name).flatMap((raw): Array<readonly [string, string]> => {
    if (raw.startsWith("/")) {
      return services.filter(({ port }) => port).map((one) => [one.name, raw] as const);
    }
    const [, key, value] = /^([^=\s]+)=(\/.*)$/.exec(raw) ?? [];
    if (key !== undefined && value !== undefined) return [[key, value] as const];
    throw usage(`--${name} "${printable(raw)}": must be [NAME=]/PATH`);
  });

async function requireNew(path: string): Promise<void> {
  const there = await access(path).then(
    () => true,
    () => false,
  );
  if (there) throw isThere(path);
}

const isThere = (path: string): CliError =>
  new CliError("FILE_UNREADABLE", `${path} is there already, and was not changed`, {
    nextSteps: ["cellctl init --force   # replaces it"],
  });

/** Complete or not at all. */
async function write(path: string, content: string, force: boolean): Promise<void> {
  const draft = `${path}.new`;
  if (force) {
    await writeFile(draft, content);
    await rename(draft, path);
    return;
  }
  try {
    await writeFile(path, content, { flag: "wx" });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") throw isThere(path);
    await rm(draft, { force: true });
    throw error;
  }
}
