/**
 * The door to this room: runs `cellctl dev` until it is told to stop, and ends with an exit code.
 *
 * The first Ctrl-C (or SIGTERM, SIGHUP) stops every process in order; a later one kills them.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import type { Endpoints } from "../contract/provider-api.ts";
import type { TenantSource } from "../contract/tenant-source.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import type { FleetWishes } from "./bring-up.ts";
import { createDevFleet, type DevFleet } from "./dev-fleet.ts";
import { type DevFlags, type DevFlagsInput, parseDevFlags } from "./dev-options.ts";

export type RunDevOptions = {
  /** As on the command line: `cells`, `adminPort`, `ephemeral`, `demo`, `data`, …. */
  readonly flags: DevFlagsInput;
  readonly env: Readonly<Record<string, string | undefined>>;
};

const exitInterrupted = 130;
/** A signal that comes sooner than this is the same one, forwarded by the launcher or by npm. */
const sameSignalMs = 1000;
const killWithinMs = 5000;
const parentPauseMs = 250;
const dataFolderDefault = ".cellfleet";

export async function runDevFleet(options: RunDevOptions): Promise<number> {
  const { env } = options;
  const cwd = process.cwd();
  const flags = parseDevFlags(options.flags);
  const data = flags.ephemeral
    ? await mkdtemp(join(tmpdir(), "cellfleet-"))
    : resolve(cwd, flags.data ?? dataFolderDefault);
  const fleet = createDevFleet({
    env,
    flags: { ...flags, data },
    clock: systemClock,
    random: systemRandom,
    say,
  });
  const signals = listenForSignals(systemClock, fleet, env["npm_lifecycle_event"] !== undefined);
  try {
    const { endpoints, wishes } = await fleet.start(signals.stopped);
    const shown = { data: displayed(data, cwd), flags, wishes };
    process.stdout.write(endScreen(endpoints, shown));
    await signals.asked;
    return 0;
  } catch (error) {
    // Told to stop while starting: that was asked for, not a failure.
    if (signals.stopped.aborted) return exitInterrupted;
    throw error;
  } finally {
    await fleet.stop();
    if (flags.ephemeral) await rm(data, { recursive: true, force: true });
    signals.close();
  }
}

/** Steps are for people and go to standard error; the end screen alone goes to standard output. */
const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

type Signals = {
  readonly stopped: AbortSignal;
  /** Resolves with the first signal. */
  readonly asked: Promise<void>;
  readonly close: () => void;
};

function listenForSignals(clock: Clock, fleet: DevFleet, underNpm: boolean): Signals {
  const stop = new AbortController();
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
  let firstMs: number | undefined;
  const begin = () => {
    stop.abort();
    ask();
  };
  const onSignal = () => {
    const nowMs = clock.monotonicMs();
    if (firstMs !== undefined && nowMs - firstMs > sameSignalMs) {
      clock.after(killWithinMs, () => process.exit(exitInterrupted), { background: true });
      void fleet.kill().finally(() => process.exit(exitInterrupted));
    }
    firstMs ??= nowMs;
    begin();
  };
  if (underNpm) void whenParentGone(clock, stop.signal).then(begin);
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) process.on(name, onSignal);
  return {
    stopped: stop.signal,
    asked,
    close: () => {
      for (const name of names) process.off(name, onSignal);
    },
  };
}

/**
 * `npm start` told to end passes the signal to the shell in between, which dies of it without telling
 * us: that our parent is gone is the signal. Only under npm: started by hand we may outlive a shell.
 */
async function whenParentGone(clock: Clock, over: AbortSignal): Promise<void> {
  const parent = process.ppid;
  while (process.ppid === parent && !over.aborted) {
    await new Promise<void>((look) => clock.after(parentPauseMs, look, { background: true }));
  }
}

type Shown = {
  readonly data: string | undefined;
  readonly flags: DevFlags;
  readonly wishes: FleetWishes;
};

function endScreen(endpoints: Endpoints, { data, flags, wishes }: Shown): string {
  const tenant = wishes.tenants[0] ?? "TENANT";
  const [source = { header: "x-tenant-id" }] = wishes.routing?.tenantSources ?? [];
  const where = data === undefined ? "" : ` --data ${data}`;
  const cells = Object.keys(endpoints.cells);
  const tries =
    cells.length === 0
      ? [`  npx cellctl cell adopt --help${where}`]
      : [
          `  ${exampleRequest(source, tenant, endpoints.router, wishes.path ?? "/")}`,
          `  npx cellctl tenant locate ${tenant}${where}`,
        ];
  return [
    "",
    "cellfleet ready",
    "",
    `  router         ${endpoints.router}`,
    `  router admin   ${endpoints.routerAdmin}`,
    `  control plane  ${endpoints.controlPlane}   (API: /docs)`,
    `  cells          ${cells.length === 0 ? "none yet" : cells.join(" ")}`,
    `  data and logs  ${data ?? dataFolderDefault}`,
    "",
    "Try:",
    ...tries,
    `  npx cellctl status${where}`,
    "",
    `Ctrl-C stops everything; the data ${flags.ephemeral ? "is removed" : "stays"}.`,
    "",
  ].join("\n");
}

/** A request that names the tenant where this fleet looks first. */
function exampleRequest(
  source: TenantSource,
  tenant: string,
  router: string,
  path: string,
): string {
  if ("header" in source) return `curl -H '${source.header}: ${tenant}' ${router}${path}`;
  if ("cookie" in source) return `curl -b '${source.cookie}=${tenant}' ${router}${path}`;
  if ("query" in source) return `curl '${router}${path}?${source.query}=${tenant}'`;
  if ("path" in source) return `curl ${router}${source.path.replace("{tenant}", tenant)}${path}`;
  if ("jwt" in source) {
    const { header, cookie } = source.jwt;
    if (cookie !== undefined) return `curl -b '${cookie}=TOKEN' ${router}${path}`;
    return `curl -H '${header ?? "authorization: Bearer"}${header === undefined ? "" : ":"} TOKEN' ${router}${path}`;
  }
  return `curl -H 'host: ${source.host.replace("{tenant}", tenant)}' ${router}${path}`;
}

/** As the user would type it; undefined for the folder that the CLI looks into by itself. */
function displayed(data: string, cwd: string): string | undefined {
  const short = relative(cwd, data);
  if (short === dataFolderDefault) return undefined;
  return short.startsWith("..") ? data : short;
}
