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
import { type ReadyCheck, startAdmin } from "./observe/admin.ts";
import type { RouterEvents } from "./observe/events.ts";
import { addGauges } from "./observe/gauges.ts";
import { createServing, openDoors, type Serving } from "./serving.ts";
import { openTable } from "./table/open-table.ts";

export type RouterOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  /** Of the control plane; empty in static mode. */
  readonly token: string;
  readonly clock?: Clock;
  readonly random?: Random;
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
};

export async function startRouter(options: RouterOptions): Promise<Router> {
  const { config, log } = options;
  const serving = createServing(options);
  const lifecycle = createLifecycle({
    clock: serving.clock,
    graceMs: config.drainDelayMs + config.drainMs + 5000,
    onTrouble: (where, error) => log.event("router.trouble", { where, ...errorFields(error) }),
  });
  try {
    return await start(options, serving, lifecycle);
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

async function start(
  { token }: RouterOptions,
  serving: Serving,
  lifecycle: Lifecycle,
): Promise<Router> {
  const { config, log, served, registry } = serving;
  lifecycle.onClose("endpoints", () => serving.endpoints.close());
  lifecycle.onClose("trust", () => serving.trust.close());
  await serving.trust.open();
  const table = await openTable({ ...serving, token });
  lifecycle.onClose("table", () => table.close());
  addGauges({ ...serving, table: () => served.view()?.table, ageMs: table.ageMs });
  const admin = await startAdmin({
    address: config.admin,
    metrics: registry,
    view: served.view,
    checks: () => checks(serving),
    ageMs: table.ageMs,
    remembered: serving.remembered,
  });
  lifecycle.onClose("admin", () => admin.close());
  table.follow(`http://${urlHost(config.admin.host)}:${admin.address.port}`);
  const doors = await openDoors(serving, lifecycle);
  log.event("router.started", {
    id: config.id,
    listen: `${config.listen.host}:${doors.port}`,
    admin: `${config.admin.host}:${admin.address.port}`,
    mode: config.source.kind,
    release,
  });
  return {
    port: doors.port,
    h2cPort: doors.h2cPort,
    tlsPort: doors.tlsPort,
    adminPort: admin.address.port,
    metrics: registry,
    reload: async () => {
      await Promise.all([table.reload(), doors.reloadTls()]);
    },
    hurry: doors.hurry,
    close: async () => {
      await lifecycle.close();
      log.event("router.stopped", { id: config.id });
    },
  };
}

const checks = ({ status, served, trust }: Serving): readonly ReadyCheck[] => [
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
 * table and the certificates again. Resolves to the exit code.
 */
export async function runRouter(options: RunRouterOptions): Promise<number> {
  const config = parseRouterConfig(options.flags);
  const { source } = config;
  const token = source.kind === "static" ? "" : await resolveSecret(source.token, options.env);
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: config.logLevel,
    write: (line) => process.stdout.write(line),
  });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  const router = await startRouter({ config, log, token });
  const onHangUp = () => void router.reload();
  process.on("SIGHUP", onHangUp);
  await stopped;
  for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, router.hurry);
  await router.close();
  for (const signal of ["SIGTERM", "SIGINT"]) process.off(signal, router.hurry);
  process.off("SIGHUP", onHangUp);
  return 0;
}
