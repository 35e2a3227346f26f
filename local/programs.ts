/**
 * Which program is which process: the command lines of docs/ARCHITECTURE.md, "The processes".
 *
 * Secrets are given by reference to files; only the sample application gets its database URL in its
 * environment, as applications do.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

export type Program = {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Answers 200 when the process is up. */
  readonly probe: string;
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
}): Program {
  const flags = {
    "--listen": at(options.port),
    "--admin": at(options.adminPort),
    "--database-url": `file:${options.databaseUrlFile}`,
    "--signing-key": options.signingKeyFile,
    "--provider-url": options.providerUrl,
    "--provider-token": `file:${options.providerTokenFile}`,
    "--bootstrap-token": `file:${options.bootstrapTokenFile}`,
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
  };
  return cellctl("router", flags, `${urlOf(options.adminPort)}/livez`);
}

export function agentProgram(options: {
  readonly cell: string;
  readonly port: number;
  readonly adminPort: number;
  readonly appPort: number;
  readonly databaseUrlFile: string;
  readonly controlPlaneUrl: string;
  readonly tokenFile: string;
}): Program {
  const flags = {
    "--cell": options.cell,
    "--listen": at(options.port),
    "--admin": at(options.adminPort),
    "--upstream": urlOf(options.appPort),
    "--database-url": `file:${options.databaseUrlFile}`,
    "--control-plane": options.controlPlaneUrl,
    "--token": `file:${options.tokenFile}`,
  };
  return cellctl("agent", flags, `${urlOf(options.adminPort)}/livez`);
}

export function applicationProgram(options: {
  readonly cell: string;
  readonly port: number;
  readonly databaseUrl: string;
}): Program {
  return {
    args: [entryOf("cell", "sample", "main")],
    env: { PORT: String(options.port), DATABASE_URL: options.databaseUrl, CELL_ID: options.cell },
    probe: `${urlOf(options.port)}/livez`,
  };
}

function cellctl(part: string, flags: Readonly<Record<string, string>>, probe: string): Program {
  return { args: [entryOf("cli", "main"), part, ...Object.entries(flags).flat()], env: {}, probe };
}
