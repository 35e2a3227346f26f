/**
 * Assembles a router and runs it: `startRouter` for whoever holds one in the hand, `runRouter` for the
 * command line, which lives until it is told to stop.
 */
import { release } from "../contract/release.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { createLifecycle, type Lifecycle } from "../runtime/lifecycle.ts";
import { createLog, errorFields, type Log } from "../runtime/log.ts";
import type { Metrics } from "../runtime/metrics.ts";
import type { Random } from "../runtime/random.ts";
import { resolveSecret } from "../runtime/secret-ref.ts";
import { parseRouterConfig, type RouterConfig } from "./config.ts";
import { isQueueMigrated, migrationSetting } from "./listen/queue-migration.ts";
import { type ReadyCheck, startAdmin } from "./observe/admin.ts";
import type { RouterEvents } from "./observe/events.ts";
import { createThreadPlane, type Plane } from "./plane.ts";
import { openTable } from "./table/open-table.ts";
import { createLineBatch } from "./workers/line-batch.ts";
import { createWorkersPlane } from "./workers/plane.ts";

export type RouterOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  /** Of the control plane; empty in static mode. */
  readonly token: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Where whole lines of the workers' logs go; absent: to standard output. */
  readonly write?: (lines: string) => void;
  /** Where a worker's thread begins; for tests of threads that break. */
  readonly workerThread?: URL;
};

export type Router = {
  readonly port: number;
  /** Of cleartext HTTP/2, if it is served. */
  readonly h2cPort: number | undefined;
  /** Of HTTP/1 and HTTP/2 over TLS, if it is served. */
  readonly tlsPort: number | undefined;
  readonly adminPort: number;
  readonly metrics: Metrics;
  /** Certificates, and in static mode the table, are read again. A bad one is refused and logged. */
  readonly reload: () => Promise<void>;
  /** Finishes what is in flight, within the configured time. */
  readonly close: () => Promise<void>;
  /** Ends the drain of `close`: what is in flight is cut. */
  readonly hurry: () => void;
  /** Replaces the workers, one after the other; false: not all of them, or there are none. */
  readonly restart: () => Promise<boolean>;
  /** Resolves when requests cannot be carried any more: the process has to end. */
  readonly failed: Promise<Error>;
};

export async function startRouter(options: RouterOptions): Promise<Router> {
  const { config, log, clock = systemClock } = options;
  const lifecycle = createLifecycle({
    clock,
    graceMs: config.drainDelayMs + config.drainMs + 5000,
    onTrouble: (where, error) => log.event("router.trouble", { where, ...errorFields(error) }),
  });
  try {
    return await start(options, choosePlane(options), lifecycle);
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

/** One thread needs no others: what `--workers 1` says is what a router always was. */
function choosePlane(options: RouterOptions): Plane {
  const { workers } = options.config;
  if (workers === 1) return createThreadPlane(options);
  const { write = (lines: string) => void process.stdout.write(lines), workerThread } = options;
  return createWorkersPlane({ ...options, write, thread: workerThread });
}

async function start(
  { config, log, token }: RouterOptions,
  plane: Plane,
  lifecycle: Lifecycle,
): Promise<Router> {
  await plane.prepare(lifecycle);
  const table = await openTable({ ...plane.parts, token });
  lifecycle.onClose("table", () => table.close());
  plane.parts.doubt.follow(table.refresh);
  plane.addGauges(table);
  const admin = await startAdmin({
    ...plane.admin,
    address: config.admin,
    view: plane.parts.served.view,
    checks: () => checks(plane),
    ageMs: table.ageMs,
  });
  lifecycle.onClose("admin", () => admin.close());
  table.follow(`http://${urlHost(config.admin.host)}:${admin.address.port}`);
  const doors = await plane.open(lifecycle);
  log.event("router.started", {
    id: config.id,
    listen: `${config.listen.host}:${doors.port}`,
    admin: `${config.admin.host}:${admin.address.port}`,
    mode: config.source.kind,
    release,
  });
  if (config.reusePort && !(await isQueueMigrated())) {
    log.event("router.queue-not-migrated", { setting: migrationSetting }, "warn");
  }
  const { port, h2cPort, tlsPort, hurry, failed } = doors;
  return {
    ...{ port, h2cPort, tlsPort, hurry, failed },
    adminPort: admin.address.port,
    metrics: plane.registry,
    reload: async () => {
      await Promise.all([table.reload(), doors.reloadTls()]);
    },
    restart: async () => {
      if (doors.restart !== undefined) return doors.restart();
      log.event("router.not-restarted", { reason: "it serves in one thread" }, "warn");
      return false;
    },
    close: async () => {
      await lifecycle.close();
      log.event("router.stopped", { id: config.id });
    },
  };
}

const checks = ({ status, parts: { served, trust } }: Plane): readonly ReadyCheck[] => [
  { name: "running", ok: !status.draining, text: status.draining ? "draining" : "not draining" },
  {
    name: "table",
    ok: served.view() !== undefined,
    text: tableText(served.view()?.table.revision),
  },
  {
    name: "key",
    ok: trust.ready(),
    text: trust.ready() ? "cells can know its key" : "the table does not name its key yet",
  },
  {
    name: "listener",
    ok: status.listening,
    text: status.listening ? "listening" : "not listening yet",
  },
];

const tableText = (revision: number | undefined): string =>
  revision === undefined ? "no routing table yet" : `routing table at revision ${revision}`;

const urlHost = (host: string): string => (host.includes(":") ? `[${host}]` : host);

export type RunRouterOptions = {
  /** As on the command line, by their names in camel case: see `config.ts`. */
  readonly flags: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
};

/**
 * Runs until SIGTERM or SIGINT; a second one does not wait for what is in flight. SIGHUP reads a static
 * table and the certificates again, SIGUSR2 replaces the workers. Resolves to the exit code: 1 when
 * workers died faster than they could be replaced.
 */
export async function runRouter(options: RunRouterOptions): Promise<number> {
  const config = parseRouterConfig(options.flags);
  const { source } = config;
  const token = source.kind === "static" ? "" : await resolveSecret(source.token, options.env);
  // A write per line would cost more than the line.
  const lines = createLineBatch(systemClock, (text) => process.stdout.write(text));
  process.once("exit", lines.flush);
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: config.logLevel,
    write: lines.write,
  });
  const stopped = new Promise<undefined>((resolve) => {
    process.once("SIGTERM", () => resolve(undefined));
    process.once("SIGINT", () => resolve(undefined));
  });
  const router = await startRouter({ config, log, token });
  const onHangUp = () => void router.reload();
  const onRestart = () => void router.restart();
  process.on("SIGHUP", onHangUp);
  process.on("SIGUSR2", onRestart);
  const failure = await Promise.race([stopped, router.failed]);
  // A second signal ends the process: the command line tells it from an echo of the first.
  await router.close();
  process.off("SIGHUP", onHangUp);
  process.off("SIGUSR2", onRestart);
  process.off("exit", lines.flush);
  lines.flush();
  return failure === undefined ? 0 : 1;
}
