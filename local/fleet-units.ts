/** The parts of a local fleet that are not cells: control plane, its database, routers. */
import { access, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generateKey } from "../runtime/signing.ts";
import { type ControlDatabase, openControlDatabase } from "./control-database.ts";
import { type DataFolder, keepSecret, secretFile, writeJson } from "./data-folder.ts";
import type { DevFlags } from "./dev-options.ts";
import type { FleetClient } from "./fleet-client.ts";
import { launchProgram } from "./node-process.ts";
import type { FleetPorts } from "./ports.ts";
import type { TemplateTools } from "./postgres/template.ts";
import { controlPlaneProgram, type Program, routerProgram, urlOf } from "./programs.ts";
import { createUnit, type Unit, type UnitStatus } from "./unit.ts";

export type FleetUnits = {
  readonly all: () => readonly Unit[];
  readonly startControlPlane: () => Promise<void>;
  readonly routers: ReadonlyArray<{
    readonly name: string;
    /** It has been given its token, and needs no control plane to start. */
    readonly isKnown: () => Promise<boolean>;
    readonly start: (api: FleetClient) => Promise<void>;
  }>;
  readonly stopRouters: () => Promise<void>;
  readonly stopControlPlane: () => Promise<void>;
};

export type FleetUnitsOptions = {
  readonly folder: DataFolder;
  readonly ports: FleetPorts;
  readonly tools: TemplateTools;
  readonly env: Readonly<Record<string, string>>;
  readonly databaseUrl: string | undefined;
  readonly flags: Pick<
    DevFlags,
    "standbyPartners" | "standby" | "standbyApplications" | "failover"
  >;
  /** The sample application runs: it is known what it answers to. */
  readonly isSample: boolean;
  readonly say: (line: string) => void;
  readonly onChange: (status: UnitStatus) => void;
};

const graceMs = 7000;
const keyName = "key-1";

export function createFleetUnits(options: FleetUnitsOptions): FleetUnits {
  const { folder, ports, tools, env, onChange } = options;
  let database: ControlDatabase | undefined;

  const unit = (name: string, program: () => Promise<Program>): Unit =>
    createUnit({
      name,
      restart: true,
      clock: tools.clock,
      onChange,
      launch: async () =>
        launchProgram(await program(), {
          name,
          env,
          folders: { logs: folder.logs, notes: folder.notes },
          clock: tools.clock,
          graceMs,
        }),
    });

  const controlPlane = unit("control-plane", async () =>
    controlPlaneProgram({
      port: ports.controlPlane,
      adminPort: ports.controlPlaneAdmin,
      databaseUrlFile: secretFile(folder, "control-plane-database-url"),
      signingKeyFile: await keepSigningKey(folder),
      providerUrl: urlOf(ports.provider),
      providerTokenFile: secretFile(folder, "provider-token"),
      bootstrapTokenFile: secretFile(folder, "cli-token"),
      standbyPartners: options.flags.standbyPartners,
      standby: options.flags.standby,
      standbyApplications: options.flags.standbyApplications,
      failover: options.flags.failover,
      canary: options.isSample ? canaryOfSample(ports) : undefined,
    }),
  );

  const routers = ports.routers.map(({ name, port, adminPort }) =>
    unit(name, async () => {
      const stateDir = join(folder.root, name);
      await mkdir(stateDir, { recursive: true, mode: 0o700 });
      return routerProgram({
        name,
        port,
        adminPort,
        controlPlaneUrl: urlOf(ports.controlPlane),
        tokenFile: secretFile(folder, `${name}-token`),
        trustKeysFile: trustKeysFile(folder),
        stateDir,
      });
    }),
  );

  return {
    all: () => [...(database?.unit === undefined ? [] : [database.unit]), controlPlane, ...routers],
    startControlPlane: async () => {
      database = await openControlDatabase(options);
      await controlPlane.start();
    },
    routers: routers.map((router) => ({
      name: router.name,
      isKnown: () => exists(secretFile(folder, `${router.name}-token`)),
      start: async (api) => {
        const token = secretFile(folder, `${router.name}-token`);
        if (!(await exists(token))) {
          await writeFile(token, `${await api.mintToken("router", router.name)}\n`, {
            mode: 0o600,
          });
        }
        await router.start();
      },
    })),
    stopRouters: async () => {
      await Promise.all(routers.map((router) => router.stop()));
    },
    stopControlPlane: async () => {
      await controlPlane.stop();
      await database?.unit?.stop();
    },
  };
}

export const trustKeysFile = (folder: DataFolder): string => join(folder.root, "trust-keys.json");

/** Made once; the public half lies beside it for routers. */
export async function keepSigningKey(folder: DataFolder): Promise<string> {
  const file = secretFile(folder, "signing-key.json");
  if (!(await exists(file))) {
    const { privateKey, publicKeys } = generateKey(keyName);
    // The public half first: a private key without it would never be trusted.
    await writeJson(trustKeysFile(folder), publicKeys, 0o644);
    await keepSecret(file, () => JSON.stringify(privateKey));
  }
  return file;
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Read for any tenant, written for those that are labelled for it. */
function canaryOfSample({ routers }: FleetPorts) {
  const [router] = routers;
  if (router === undefined) return undefined;
  const order = { path: "/orders", body: { item: "canary", quantity: 1 } };
  return { url: `${urlOf(router.port)}/whoami`, write: JSON.stringify(order) };
}
