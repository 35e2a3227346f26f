/**
 * The door to this room: runs `cellctl control-plane` until it is told to stop, and ends with an exit
 * code. Settings come as texts, secrets as references that are resolved here.
 */
import { readFile } from "node:fs/promises";
import { CellError } from "../contract/errors.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { resolveSecret } from "../runtime/secret-ref.ts";
import { createSigner, privateKeySchema, type Signer } from "../runtime/signing.ts";
import { type ControlPlaneConfig, instanceName, parseControlPlaneConfig } from "./config.ts";
import { type ControlPlaneOptions, startControlPlane } from "./control-plane.ts";

export type RunControlPlaneOptions = {
  /** As on the command line: `listen`, `admin`, `databaseUrl`, `signingKey`, …. */
  readonly flags: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
};

type Env = RunControlPlaneOptions["env"];

export async function runControlPlane(options: RunControlPlaneOptions): Promise<number> {
  const config = parseControlPlaneConfig(options.flags);
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  const control = await startControlPlane(await controlPlaneOptions(config, options.env));
  await stopped;
  await control.close();
  return 0;
}

/** What the settings come to, secrets resolved. */
export async function controlPlaneOptions(
  config: ControlPlaneConfig,
  env: Env,
): Promise<ControlPlaneOptions> {
  return {
    listen: config.listen,
    admin: config.admin,
    databaseUrl: await resolveSecret(config.databaseUrl, env),
    connections: config.connections,
    signer: await readSigner(config.signingKey),
    provider: await resolveProvider(config, env),
    bootstrapToken: await resolveOptional(config.bootstrapToken, env),
    leaseTtlMs: config.leaseTtl,
    leaseMode: config.leaseMode,
    promiseMs: config.failsafePromise,
    allowHookCommands: config.allowHookCommands,
    standbyPartners: partnersOf(config),
    standby: config.standby,
    warmStandbys: config.standbyApplications === "warm",
    goldOnPartnerLoss: config.goldPartnerLoss,
    failover: config.failover,
    canary: canaryOf(config),
    instance: instanceName(config, systemRandom.hex(3)),
    resolveSecret: (reference) => resolveSecret(reference, env),
    clock: systemClock,
    random: systemRandom,
    logTo: {
      clock: systemClock,
      part: "control-plane",
      level: config.logLevel,
      write: (line) => process.stdout.write(line),
    },
  };
}

/** A whole server has no parts that several could keep. */
const partnersOf = ({ standby, standbyPartners }: ControlPlaneConfig): number =>
  standby === "physical" ? Math.min(1, standbyPartners) : standbyPartners;

/** Tenants are named by the header that every fleet knows from its first day. */
function canaryOf({ canary, canaryWrite }: ControlPlaneConfig): ControlPlaneOptions["canary"] {
  if (canary === undefined) return undefined;
  const { origin, pathname, search } = new URL(canary);
  return {
    ...{ origin, readPath: `${pathname}${search}`, tenantHeader: "x-tenant-id" },
    write: canaryWrite,
  };
}

async function readSigner(file: string): Promise<Signer> {
  const wrong = (cause: unknown) =>
    new CellError("CONFIG_INVALID", `--signing-key: ${file} is not a private key of ours.`, {
      cause,
    });
  try {
    return createSigner(privateKeySchema.parse(JSON.parse(await readFile(file, "utf8"))));
  } catch (error) {
    throw wrong(error);
  }
}

async function resolveProvider(
  config: ControlPlaneConfig,
  env: Env,
): Promise<{ readonly url: string; readonly token: string } | undefined> {
  const token = await resolveOptional(config.providerToken, env);
  if (config.providerUrl === undefined || token === undefined) return undefined;
  return { url: config.providerUrl, token };
}

const resolveOptional = async (ref: string | undefined, env: Env): Promise<string | undefined> =>
  ref === undefined ? undefined : resolveSecret(ref, env);
