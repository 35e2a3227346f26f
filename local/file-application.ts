/**
 * The application that a `cellfleet.yaml` describes, as this room runs it: a database per store, made
 * by the team's own migrations; a process per instance of each service, with what it needs to know
 * in its environment and nothing of ours linked into it.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, realpath } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { ReadAppFile } from "../adoption/app-file.ts";
import { type Manifest, parseManifest } from "../cell/store/manifest.ts";
import type { AppService, AppStore } from "../contract/app-file.ts";
import { CellError } from "../contract/errors.ts";
import { defaultService, type ServiceRoute } from "../contract/service-route.ts";
import type { Clock } from "../runtime/clock.ts";
import {
  type AppProcess,
  hasTenants,
  type LocalApplication,
  type LocalStore,
  type ProcessPlace,
} from "./application.ts";
import type { FleetWishes } from "./bring-up.ts";
import { statusOf } from "./http-probe.ts";
import { type Program, urlOf } from "./programs.ts";
import { runToEnd } from "./run-to-end.ts";

export type FileApplicationOptions = {
  readonly source: ReadAppFile;
  /** Of whoever started us: what a command of the team expects to find. */
  readonly env: Readonly<Record<string, string>>;
  readonly logs: string;
  readonly clock: Clock;
};

const migrateWithinMs = 600_000;
/** A worker that lives this long has started. */
const bornMs = 300;
const watchedFilesMax = 10_000;

export async function fileApplication(options: FileApplicationOptions): Promise<LocalApplication> {
  const { app } = options.source;
  const stores = await storesOf(options);
  return {
    name: app.name,
    stores,
    processes: Object.entries(app.services).flatMap(([name, service]) =>
      Array.from({ length: service.instances }, (_, index) =>
        processOf(options, { name, service, instance: index + 1 }),
      ),
    ),
    services: new Map(
      Object.entries(app.services)
        .filter(([, { port }]) => port)
        .map(([name, { health }]) => [name, health]),
    ),
    ownerLogsIn: true,
  };
}

/** Requests that no route of a service names go to the one that has none. */
export function wishesOf({ app }: ReadAppFile, demo: boolean): FleetWishes {
  const services = Object.entries(app.services).filter(([, { port }]) => port);
  const routes = services.flatMap(([service, one]) =>
    one.routes.map(
      ({ host, pathPrefix, class: kind, deadlineMs }): ServiceRoute => ({
        ...(host === undefined ? {} : { host }),
        ...(pathPrefix === undefined ? {} : { pathPrefix }),
        service,
        ...(kind === undefined ? {} : { class: kind }),
        ...(deadlineMs === undefined ? {} : { deadlineMs }),
      }),
    ),
  );
  const rest = services.find(([, one]) => one.routes.length === 0)?.[0];
  const others = rest === undefined ? [] : [{ pathPrefix: "/", service: rest }];
  return {
    routing: { tenantSources: app.tenantKey, serviceRoutes: [...routes, ...others] },
    guardMode: app.guardMode,
    tenants: demo ? app.tenants : [],
    path: undefined,
  };
}

async function storesOf(options: FileApplicationOptions): Promise<LocalApplication["stores"]> {
  const { source } = options;
  const stores = await Promise.all(
    Object.entries(source.app.stores).map(([name, store]) => storeOf(options, name, store)),
  );
  const withTenants = stores.filter(hasTenants);
  const first = named(withTenants) ?? withTenants[0] ?? named(stores) ?? stores[0] ?? noStore;
  const other = stores.find((store) => store !== first && store.name === defaultService);
  if (other !== undefined) {
    throw new CellError(
      "CONFIG_INVALID",
      `The store ${defaultService} has no tables of tenants, but ${first.name} has, and ${defaultService} is what the first store with tenants is called in a cell. Nothing was started.`,
      { nextSteps: [`give the store ${defaultService} another name in cellfleet.yaml`] },
    );
  }
  return [first, ...stores.filter((store) => store !== first)];
}

const named = (stores: readonly LocalStore[]): LocalStore | undefined =>
  stores.find(({ name }) => name === defaultService);

/** Of an application that keeps nothing: the cell's lease and ownership still lie in a database. */
const noStore: LocalStore = {
  name: defaultService,
  database: "app",
  keyColumn: "tenant_id",
  manifest: { store: defaultService, keyColumn: "tenant_id", keyspace: defaultService, tables: [] },
  content: "",
  everyStart: false,
  migrate: async () => {},
};

async function storeOf(
  options: FileApplicationOptions,
  name: string,
  store: AppStore,
): Promise<LocalStore> {
  const { source, env, logs, clock } = options;
  const { migrate } = store;
  const manifest = await readManifest(resolve(source.folder, store.manifest), store);
  return {
    name,
    database: `app_${name}`,
    keyColumn: store.keyColumn,
    manifest,
    // Two checkouts of one application are two: what is watched may not be all that counts.
    content: JSON.stringify([
      await realpath(source.folder),
      migrate,
      store.env,
      await digestOf(source.folder, store.watch),
    ]),
    everyStart: migrate !== undefined && store.watch.length === 0,
    migrate: async ({ ownerUrl, label }) => {
      if (migrate === undefined) return;
      await runToEnd({
        name: `migrate of store ${name}`,
        command: migrate,
        cwd: source.folder,
        env: { ...env, [store.env]: ownerUrl },
        logFile: join(logs, `${label}-${name}-migrate.log`),
        withinMs: migrateWithinMs,
        clock,
      });
    },
  };
}

/** The key column of `cellfleet.yaml` stands where the manifest names none. */
async function readManifest(file: string, store: AppStore): Promise<Manifest> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new CellError("CONFIG_INVALID", `There is no manifest at ${file}. Nothing was started.`, {
      nextSteps: ["cellctl schema init   # proposes one from your database"],
      cause,
    });
  });
  const manifest = parseManifest(text);
  if (/^keyColumn\s*:/m.test(text)) return manifest;
  return parseManifest(`keyColumn: ${JSON.stringify(store.keyColumn)}\n${text}`);
}

type Instance = {
  readonly name: string;
  readonly service: AppService;
  readonly instance: number;
};

function processOf(options: FileApplicationOptions, which: Instance): AppProcess {
  const { name, service, instance } = which;
  return {
    name: `${name}-${instance}`,
    service: name,
    listens: service.port,
    program: (place) => programOf(options, which, place),
  };
}

function programOf(
  { source, env, clock }: FileApplicationOptions,
  { name, service, instance }: Instance,
  { cell, port, agentUrl, databaseUrls }: ProcessPlace,
): Program {
  const stores = Object.entries(source.app.stores).map(
    ([store, given]) => [given.env, databaseUrls.get(store) ?? ""] as const,
  );
  const startedMs = clock.monotonicMs();
  return {
    run: { command: service.command, cwd: source.folder },
    env: {
      ...env,
      ...service.env,
      ...Object.fromEntries(stores),
      ...(service.port ? { PORT: String(port) } : {}),
      CELL_ID: cell,
      SERVICE: name,
      INSTANCE: String(instance),
      CELLFLEET_AGENT_URL: agentUrl,
    },
    isUp: service.port
      ? () => isAnswering(`${urlOf(port)}${service.health}`)
      : async () => clock.monotonicMs() - startedMs >= bornMs,
    yields: true,
  };
}

/** As the agent judges: an application may well answer 404 or 401 there. */
async function isAnswering(url: string): Promise<boolean> {
  const status = await statusOf(url);
  return status !== undefined && status < 500;
}

/** Of the names and contents of files, folders with all that is in them. */
async function digestOf(folder: string, watch: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const path of watch) {
    const files = await filesOf(resolve(folder, path));
    if (files.length === 0 || files.length > watchedFilesMax) {
      const what = files.length === 0 ? "is not there" : `has more than ${watchedFilesMax} files`;
      throw new CellError("CONFIG_INVALID", `watch: ${path} ${what}. Nothing was started.`, {
        nextSteps: ["mend watch in cellfleet.yaml"],
      });
    }
    for (const file of files)
      hash
        .update(`${file}\0`)
        .update(await readFile(file))
        .update("\0");
  }
  return hash.digest("hex");
}

async function filesOf(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .toSorted();
  } catch {
    return (await readFile(path).then(
      () => true,
      () => false,
    ))
      ? [path]
      : [];
  }
}
