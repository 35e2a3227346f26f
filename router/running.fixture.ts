/** For tests only: a whole router in this process, what it logs, and requests to it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type RequestListener,
} from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, vi } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { createLog } from "../runtime/log.ts";
import { closeServer, keys, listenOn } from "../table/table.fixture.ts";
import { parseRouterConfig } from "./config.ts";
import type { RouterEvents } from "./observe/events.ts";
import { type Router, type RouterOptions, startRouter } from "./run.ts";

export type Lines = Array<Record<string, unknown> & { event: string }>;
export const of = (lines: Lines, event: string) => lines.filter((line) => line.event === event);

/** Waits for a condition, never for a time. */
export const until = <T>(check: () => T | Promise<T>) =>
  vi.waitFor(check, { timeout: 25_000, interval: 10 });

export type Bench = {
  readonly dir: () => string;
  /** Closed after the test, last first. */
  readonly closers: Array<() => Promise<unknown>>;
  readonly start: (flags: Record<string, unknown>) => Promise<{ router: Router; lines: Lines }>;
  /** Follows the control plane at `url`. */
  readonly startRemote: (
    url: string,
    flags?: Record<string, unknown>,
  ) => Promise<{ router: Router; lines: Lines }>;
  /** In static mode. */
  readonly startStatic: (
    table: object,
    flags?: Record<string, unknown>,
  ) => Promise<{ router: Router; lines: Lines; file: string }>;
  /** A plain server; its URL. */
  readonly startApp: (serve: RequestListener) => Promise<string>;
};

/** A folder and a list of things to close, per test. */
export function createBench(more: Pick<RouterOptions, "workerThread" | "clock"> = {}): Bench {
  let dir = "";
  const closers: Array<() => Promise<unknown>> = [];
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "cellfleet-router-"));
  });
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
    await rm(dir, { recursive: true, force: true });
  });
  const start = async (flags: Record<string, unknown>) => {
    const lines: Lines = [];
    const log = createLog<RouterEvents>({
      clock: systemClock,
      part: "router",
      level: "debug",
      write: (line) => lines.push(JSON.parse(line)),
    });
    const config = parseRouterConfig({
      ...{
        listen: "127.0.0.1:0",
        admin: "127.0.0.1:0",
        drainDelayMs: 0,
        drainAnnounceMs: 0,
        drainMs: 500,
        // How late a turn comes says how busy the machine is, and not what is tested.
        shedLateMs: 0,
      },
      ...flags,
    });
    const write = (text: string) => {
      for (const line of text.trimEnd().split("\n")) lines.push(JSON.parse(line));
    };
    const router = await startRouter({ config, log, token: "t", write, ...more });
    closers.push(router.close);
    return { router, lines };
  };
  return {
    dir: () => dir,
    closers,
    start,
    startRemote: async (url, flags = {}) => {
      await writeFile(join(dir, "keys.json"), JSON.stringify(keys.publicKeys));
      return start({
        ...{ id: "router-1", controlPlane: url, token: "env:TOKEN" },
        ...{ trustKeys: join(dir, "keys.json"), stateDir: join(dir, "state") },
        ...flags,
      });
    },
    startStatic: async (table, flags = {}) => {
      const file = join(dir, "table.json");
      await writeFile(file, JSON.stringify(table));
      return { ...(await start({ table: file, ...flags })), file };
    },
    startApp: async (serve) => {
      const server = createServer(serve);
      const port = await listenOn(server, 0);
      closers.push(() => closeServer(server));
      return `http://127.0.0.1:${port}`;
    },
  };
}

export type Answer = {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
};
export type Ask = {
  readonly path?: string;
  readonly method?: string;
  readonly body?: string;
  readonly headers?: Record<string, string>;
};

/** Each on a connection of its own. Without a tenant no `x-tenant-id` is sent. */
export const ask = (
  port: number,
  tenant: string | undefined,
  { path = "/orders", method = "GET", body, headers = {} }: Ask = {},
) =>
  new Promise<Answer>((resolve, reject) => {
    const named = tenant === undefined ? {} : { "x-tenant-id": tenant };
    const out = httpRequest({
      port,
      path,
      method,
      agent: false,
      headers: { ...named, ...headers },
    });
    out.on("error", reject);
    out.on("response", (res) => {
      let text = "";
      res.on("data", (chunk) => {
        text += chunk;
      });
      res.on("error", reject);
      res.on("end", () => resolve({ status: res.statusCode ?? 0, headers: res.headers, text }));
    });
    out.end(body);
  });

export const admin = (router: Router, path: string) => ask(router.adminPort, undefined, { path });
export const adminJson = async (router: Router, path: string) =>
  JSON.parse((await admin(router, path)).text);
/** `404 TENANT_UNKNOWN`; `200 undefined` for an answer of an application. */
export const codeOf = ({ status, headers }: Answer) => `${status} ${headers["x-cellfleet-error"]}`;
/** The value of a metric's series, as it stands in the text; undefined if there is none. */
export const metric = async (router: Router, series: string): Promise<number | undefined> => {
  const line = (await admin(router, "/metrics")).text
    .split("\n")
    .find((one) => one.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
};
