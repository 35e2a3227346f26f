/**
 * Which program is which process: the command lines of docs/ARCHITECTURE.md, "The processes".
 *
 * Secrets are given by reference to files; only the sample application gets its database URL in its
 * environment, as applications do.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { FailoverPolicy } from "../contract/failover-api.ts";
import type { StandbyApplications, StandbyProviderName } from "../contract/standby-api.ts";
import { answersOk } from "./http-probe.ts";

/** One of our programs, or a command line of somebody else's for the shell. */
export type Program = {
  readonly run:
    | { readonly args: readonly string[] }
    | { readonly command: string; readonly cwd: string };
  readonly env: Readonly<Record<string, string>>;
  readonly isUp: () => Promise<boolean>;
  /**
   * An application's. On a machine that is too busy it waits rather than what holds leases and routes: a
   * lease that is not renewed in time costs everybody's requests, not some.
   */
  readonly yields?: boolean;
};

/** In a checkout the sources run as they are; a published package carries them built. */
function entryOf(...path: readonly string[]): string {
  const source = `${join(import.meta.dirname, "..", ...path)}.ts`;
  return existsSync(source) ? source : source.replace(/\.ts$/, ".js");
}

export const host = "127.0.0.1";
const at = (port: number): string => `${host}:${port}`;
export const urlOf = (port: number): string => `http://${at(port)}`;

export function controlPlaneProgram(options: {
  readonly port: number;
  readonly adminPort: number;
  readonly databaseUrlFile: string;
  readonly signingKeyFile: string;
  readonly providerUrl: string;
  readonly providerTokenFile: string;
  readonly bootstrapTokenFile: string;
  readonly standbyPartners: number;
  readonly standby: StandbyProviderName;
  readonly standbyApplications: StandbyApplications;
  readonly failover: FailoverPolicy;
  /** What is asked of the application after a takeover; undefined: nothing is known of it. */
  readonly canary: { readonly url: string; readonly write: string } | undefined;
}): Program {
  const flags = {
    "--listen": at(options.port),
    "--admin": at(options.adminPort),
    "--database-url": `file:${options.databaseUrlFile}`,
    "--signing-key": options.signingKeyFile,
    "--provider-url": options.providerUrl,
    "--provider-token": `file:${options.providerTokenFile}`,
    "--bootstrap-token": `file:${options.bootstrapTokenFile}`,
    "--standby-partners": String(options.standbyPartners),
    "--standby": options.standby,
    "--standby-applications": options.standbyApplications,
    "--failover": options.failover,
    ...(options.canary === undefined
      ? {}
      : { "--canary": options.canary.url, "--canary-write": options.canary.write }),
  };
  return cellctl("control-plane", flags, `${urlOf(options.adminPort)}/readyz`);
}

export function routerProgram(options: {
  readonly name: string;
  readonly port: number;
  readonly adminPort: number;
  readonly controlPlaneUrl: string;
  readonly tokenFile: string;
  readonly trustKeysFile: string;
  readonly stateDir: string;
}): Program {
  const flags = {
    "--id": options.name,
    "--listen": at(options.port),
    "--admin": at(options.adminPort),
    "--control-plane": options.controlPlaneUrl,
    "--token": `file:${options.tokenFile}`,
    "--trust-keys": options.trustKeysFile,
    "--state-dir": options.stateDir,
    // Nothing stands in front of it that would have to notice first.
    "--drain-delay-ms": "0",
    "--drain-announce-ms": "0",
  };
  return cellctl("router", flags, `${urlOf(options.adminPort)}/livez`);
}

export function agentProgram(options: {
  readonly cell: string;
  readonly port: number;
  readonly adminPort: number;
  /** `[NAME=]URL`, one per instance. */
  readonly upstreams: readonly string[];
  /** `NAME=/path`. */
  readonly health: readonly string[];
  readonly databaseUrlFile: string;
  /** `NAME=REF`, of the further stores. */
  readonly stores: readonly string[];
  readonly queryDatabaseUrlFile: string;
  readonly standbyServerFile: string | undefined;
  readonly controlPlaneUrl: string;
  readonly tokenFile: string;
  readonly trustKeysFile: string;
  readonly stateDir: string;
}): Program {
  const flags = {
    "--cell": options.cell,
    "--listen": at(options.port),
    "--admin": at(options.adminPort),
    "--upstream": options.upstreams,
    "--health": options.health,
    "--database-url": `file:${options.databaseUrlFile}`,
    "--store": options.stores,
    "--query-database-url": `file:${options.queryDatabaseUrlFile}`,
    "--control-plane": options.controlPlaneUrl,
    "--token": `file:${options.tokenFile}`,
    "--trust-keys": options.trustKeysFile,
    "--state-dir": options.stateDir,
    ...(options.standbyServerFile === undefined
      ? {}
      : { "--standby-server": `file:${options.standbyServerFile}` }),
  };
  return cellctl("agent", flags, `${urlOf(options.adminPort)}/livez`);
}

export function sampleProgram(options: {
  readonly cell: string;
  readonly port: number;
  readonly databaseUrl: string;
}): Program {
  const probe = `${urlOf(options.port)}/livez`;
  return {
    run: { args: [entryOf("cell", "sample", "main")] },
    env: { PORT: String(options.port), DATABASE_URL: options.databaseUrl, CELL_ID: options.cell },
    isUp: () => answersOk(probe),
    yields: true,
  };
}

type Flags = Readonly<Record<string, string | readonly string[]>>;

function cellctl(part: string, flags: Flags, probe: string): Program {
  const words = Object.entries(flags).flatMap(([name, value]) =>
    (typeof value === "string" ? [value] : value).flatMap((one) => [name, one]),
  );
  return {
    run: { args: [entryOf("cli", "main"), part, ...words] },
    env: {},
    isUp: () => answersOk(probe),
  };
}
