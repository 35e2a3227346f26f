/**
 * Which fleet a command speaks to, and with which token.
 *
 * The first of these that is there decides, whole: flags `--context` or `--data`; the environment
 * `CELLCTL_ADDR` with `CELLCTL_TOKEN`, `CELLCTL_CONTEXT`, `CELLFLEET_DATA`; the current context of the
 * configuration file; the folder `.cellfleet` here. A token never goes to an address that came from
 * elsewhere; only a context that names no token file takes `CELLCTL_TOKEN`.
 */
import { readFile } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import { CellError } from "../contract/errors.ts";
import { type Endpoints, endpointsSchema } from "../contract/provider-api.ts";
import { type Context, pickContext, readContexts } from "./contexts.ts";
import { CliError, usage } from "./failures.ts";
import type { Io } from "./io.ts";

export const dataFolderDefault = ".cellfleet";
/** Written by `cellctl dev`, mode 0600. */
export const cliTokenFile = join("secrets", "cli-token");

export type Fleet = {
  /** Of the control plane, without a slash at the end. */
  readonly origin: string;
  readonly token: string;
  /** One phrase for people: where this was found. */
  readonly from: string;
  /** A fleet on this machine: its data folder and where its parts listen. */
  readonly local?: { readonly folder: string; readonly endpoints: Endpoints };
};

export type FleetFlags = { readonly context?: string; readonly data?: string };
type Places = Pick<Io, "env" | "home" | "cwd">;

export async function findFleet(io: Places, flags: FleetFlags): Promise<Fleet> {
  if (flags.context !== undefined && flags.data !== undefined) {
    throw usage("--context and --data each name a fleet: give one of them");
  }
  if (flags.context !== undefined) return fleetOfContext(io, flags.context, "--context");
  if (flags.data !== undefined) return fleetOfFolder(io, flags.data);

  const { env } = io;
  const address = filled(env["CELLCTL_ADDR"]);
  if (address !== undefined) return fleetOfEnvironment(address, filled(env["CELLCTL_TOKEN"]));
  const named = filled(env["CELLCTL_CONTEXT"]);
  if (named !== undefined) return fleetOfContext(io, named, "CELLCTL_CONTEXT");
  const folder = filled(env["CELLFLEET_DATA"]);
  if (folder !== undefined) return fleetOfFolder(io, folder);

  const file = await readContexts(io);
  if (file.current !== undefined) return fleetOfContext(io, file.current, "the current context");
  return fleetOfFolder(io, dataFolderDefault);
}

/** The data folder of the local fleet, whether or not anything runs there. */
export function dataFolder(io: Pick<Io, "env" | "cwd">, flags: FleetFlags): string {
  return resolve(io.cwd, flags.data ?? filled(io.env["CELLFLEET_DATA"]) ?? dataFolderDefault);
}

function fleetOfEnvironment(address: string, token: string | undefined): Fleet {
  if (token === undefined) {
    throw new CliError("TOKEN_MISSING", "CELLCTL_ADDR is set, and CELLCTL_TOKEN is not", {
      nextSteps: [
        "export CELLCTL_TOKEN=…   (an admin makes one: cellctl token create NAME --role operator)",
      ],
    });
  }
  return { origin: originOf(address, "CELLCTL_ADDR"), token, from: "CELLCTL_ADDR" };
}

async function fleetOfContext(io: Places, name: string, from: string): Promise<Fleet> {
  const context = pickContext(await readContexts(io), name);
  return {
    origin: originOf(context.addr, `context ${name}`),
    token: await tokenOfContext(io, name, context),
    from: `context ${name} (${from})`,
  };
}

/** The context's own file wins: a token in the environment may be meant for another fleet. */
async function tokenOfContext(io: Places, name: string, context: Context): Promise<string> {
  const { addr, tokenFile } = context;
  const nextSteps = [`cellctl context set ${name} --addr ${addr} --token-file FILE`];
  if (tokenFile !== undefined) {
    const path = isAbsolute(tokenFile)
      ? tokenFile
      : resolve(io.home, tokenFile.replace(/^~\//, ""));
    return readToken(path, nextSteps);
  }
  const fromEnv = filled(io.env["CELLCTL_TOKEN"]);
  if (fromEnv !== undefined) return fromEnv;
  throw new CliError(
    "TOKEN_MISSING",
    `context ${name} names no token file, and CELLCTL_TOKEN is not set`,
    { nextSteps },
  );
}

async function fleetOfFolder(io: Places, name: string): Promise<Fleet> {
  const folder = resolve(io.cwd, name);
  const endpoints = await readEndpoints(folder);
  const token = await readToken(join(folder, cliTokenFile), [`cellctl dev --data ${name}`]);
  return {
    origin: originOf(endpoints.controlPlane, join(folder, "endpoints.json")),
    token,
    from: `data folder ${folder}`,
    local: { folder, endpoints },
  };
}

export async function readEndpoints(folder: string): Promise<Endpoints> {
  const path = join(folder, "endpoints.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new CliError("FLEET_NOT_FOUND", `no fleet is named, and there is none in ${folder}`, {
      cause,
      nextSteps: [
        "cellctl dev                   (starts a whole fleet on this machine)",
        "cellctl context set NAME --addr URL --token-file FILE   (a fleet that runs elsewhere)",
      ],
    });
  }
  const parsed = endpointsSchema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new CellError("CONFIG_INVALID", `${path} is not what cellctl dev writes`, {
    nextSteps: ["cellctl dev                   (writes it anew when it starts)"],
    cause: parsed.error,
  });
}

async function readToken(path: string, nextSteps: readonly string[]): Promise<string> {
  try {
    const token = (await readFile(path, "utf8")).trim();
    if (token !== "") return token;
  } catch (cause) {
    throw new CliError("TOKEN_MISSING", `cannot read the token file ${path}`, { cause, nextSteps });
  }
  throw new CliError("TOKEN_MISSING", `the token file ${path} is empty`, { nextSteps });
}

const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** True: whoever listens on the way reads the token. */
export function isOverheard({ origin }: Fleet): boolean {
  const { protocol, hostname } = new URL(origin);
  return protocol === "http:" && !loopback.test(hostname) && !hostname.endsWith(".localhost");
}

function originOf(raw: string, from: string): string {
  const url = URL.canParse(raw) ? new URL(raw) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.pathname !== "/") {
    throw new CellError("CONFIG_INVALID", `${from}: "${raw}" is not an http(s) URL without a path`);
  }
  return url.origin;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The schema says that it is not what was expected.
  }
}

/** An empty variable counts as none, as shells make it easy to set one by accident. */
const filled = (raw: string | undefined): string | undefined => (raw === "" ? undefined : raw);
