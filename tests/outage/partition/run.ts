/**
 * One scenario in a fleet of its own: load, cut, heal, read back, salvage, and the history checker's word on
 * what customers were told, what every database committed, and what reports and salvage name.
 */
import { readFile, rm } from "node:fs/promises";
import pg from "pg";
import { z } from "zod";
import type { Failover, RpoReport } from "../../../contract/failover-api.ts";
import { defaultKeyspace, parseTenantId } from "../../../contract/ids.ts";
import { bucketOf } from "../../../contract/placement-key.ts";
import { salvagedRowSchema } from "../../../contract/salvage-api.ts";
import { checkHistory } from "../../../history/check.ts";
import { installCommitLog, readCommitLog } from "../../../history/commit-log.ts";
import type { Entry, EntryOf, Verdict } from "../../../history/model.ts";
import { createRecorder } from "../../../history/recorder.ts";
import { entriesOfReport, entriesOfSalvage } from "../../../history/rpo-entries.ts";
import { readTenant } from "../../../history/workload.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { until } from "../../fleet.ts";
import { inDatabase } from "../../moves/cell-databases.ts";
import { type OpenLoad, startOpenLoad } from "../../moves/open-load.ts";
import { type FleetClient, openFleetClient, routerOrigins } from "../fleet-client.ts";
import { type DirectWriter, startDirectWriter } from "./direct-writer.ts";
import type { Scenario } from "./scenarios.ts";
import { type OwnersWatch, watchOwners } from "./two-owners.ts";
import { openWorld, type World } from "./world.ts";

export type Outcome = {
  readonly name: string;
  /** What is wrong; empty: nothing. */
  readonly faults: readonly string[];
  readonly verdict: Verdict;
  readonly failovers: readonly Failover[];
  readonly refused: ReadonlyMap<string, number>;
  /** Before anything was cut: what a slow machine costs by itself. */
  readonly refusedBefore: number;
  readonly direct: { readonly done: number; readonly refused: number } | undefined;
  readonly history: readonly Entry[];
  /** Commits that only the returned cell had. */
  readonly salvaged: number;
  /** How often every database was asked what it owns. */
  readonly looks: number;
};

const run = "cut";
const victim = "cell-02";
const others = ["cell-01", "cell-03"];
const tenantsPerCell = 4;
const perSecond = 30;
const readyMs = 90_000;
const adoptedMs = 90_000;
const calmMs = 3000;

export async function runScenario(
  scenario: Scenario,
  say: (line: string) => void,
): Promise<Outcome> {
  const world = await openWorld(2);
  const client = await openFleetClient(world.fleet);
  let load: OpenLoad | undefined;
  let direct: DirectWriter | undefined;
  let owners: OwnersWatch | undefined;
  try {
    const homes = await settle(world, client);
    const tenants = [...homes.keys()];
    const kept = await keptBy(client, homes);
    const mine = tenants.filter((tenant) => homes.get(tenant) === victim);
    const history: Entry[] = [];
    const recorder = createRecorder({
      ...{ clock: systemClock, run },
      write: (entry) => history.push(entry),
    });
    load = startOpenLoad({
      ...{ recorder, run, router: await routerOrigins(world.fleet) },
      streams: [{ tenants, perSecond }],
    });
    await served(world, load, tenants, 0, readyMs);
    const url = (await world.fleet.endpoints()).cells[victim]?.database ?? "";
    if (scenario.direct === true) {
      direct = startDirectWriter({ url, tenants: mine, recorder, run });
    }
    // A database whose clock was set is believed by nobody, itself excepted.
    if (scenario.clocks !== true) owners = watchOwners(world.fleet, [victim, ...others]);
    await systemClock.sleep(calmMs);
    const sinceMs = systemClock.monotonicMs();
    await scenario.act({
      ...{ world, victim, others, tenants: mine, recorder, run, say },
      adopted: () => reaches(client, "adopted", past),
      ended: () => reaches(client, "failed over", ["done"]),
    });
    say("healing");
    await world.heal();
    await served(world, load, tenants, systemClock.monotonicMs(), readyMs);
    // Annexes that have done their part are taken down, with what they tell.
    const early = await readCommits(world);
    const failovers = await ended(client);
    await systemClock.sleep(calmMs);
    await load.stop();
    await direct?.close();
    const splits = (await owners?.stop()) ?? [];
    for (const entry of await salvaged(world, failovers)) recorder.note(entry);
    const deadlineMs = systemClock.monotonicMs() + readyMs;
    for (const tenant of tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, deadlineMs);
    }
    for (const { report } of failovers) {
      if (report === null) continue;
      for (const entry of [...entriesOfReport(report), ...withinBound(report, history)]) {
        recorder.note(entry);
      }
    }
    const commits = merged(early, await readCommits(world));
    for (const { entry } of commits) recorder.note(entry);
    const verdict = checkHistory(history);
    const refusable = {
      ...{ nobody: [], anybody: [], "its tenants": mine },
      "its tenants and those it keeps": [...mine, ...kept],
    };
    const refused = refusals(load, sinceMs, refusable[scenario.refused]);
    return {
      ...{ name: scenario.name, verdict, failovers, refused, history },
      refusedBefore: load.samples.filter((one) => one.outcome !== "ok" && one.sentMs < sinceMs)
        .length,
      direct: direct?.counts(),
      salvaged: history.filter(({ kind }) => kind === "salvaged").length,
      looks: owners?.looks() ?? 0,
      faults: [
        ...splits,
        ...faultsOf(scenario, { verdict, commits, history, failovers, refused, direct }),
      ],
    };
  } finally {
    await owners?.stop();
    await direct?.close().catch(() => {});
    await world.heal().catch(() => {});
    await load?.close();
    await client.close();
    await world.close();
  }
}

function faultsOf(
  scenario: Scenario,
  seen: Pick<Outcome, "verdict" | "failovers" | "refused" | "history"> & {
    readonly commits: readonly Commit[];
    readonly direct: DirectWriter | undefined;
  },
): readonly string[] {
  const { verdict, commits, history, failovers, refused, direct } = seen;
  return [
    ...verdict.violations.map(({ kind, text, tenant }) => `${kind}: ${tenant}: ${text}`),
    ...twoDatabases(commits),
    ...savedInVain(history),
    ...(direct?.counts().done === 0 ? ["the job never wrote: nothing of it is proved"] : []),
    ...(failovers.length === scenario.failovers
      ? []
      : [`${failovers.length} failovers, not ${scenario.failovers}`]),
    ...failovers
      .filter(({ step }) => step === "failed" || step === "halted")
      .map(({ id, step, headline }) => `${id} is ${step}: ${headline}`),
    ...(scenario.refused === "anybody"
      ? []
      : [...refused].map(([reason, count]) => `refused ${count} times: ${reason}`)),
  ];
}

async function settle(world: World, client: FleetClient): Promise<ReadonlyMap<string, string>> {
  const cells = [victim, ...others];
  const homes = new Map(
    Array.from({ length: tenantsPerCell * cells.length }, (_one, at): [string, string] => [
      `tenant-${at + 1}`,
      cells[at % cells.length] ?? "",
    ]),
  );
  await client.importTenants([...homes].map(([id, cell]) => ({ id, cell })));
  await until(
    "standbys are ready",
    async () => {
      const standbys = await client.standbys();
      return standbys.length >= 2 * cells.length && standbys.every((one) => one.state === "ready");
    },
    readyMs,
  );
  for (const { url } of await databases(world)) {
    await inDatabase(url, (database) =>
      installCommitLog(database, {
        ...{ schema: "public", table: "orders", keyspace: "default" },
        ...{ keyColumn: "tenant_id", valueColumn: "item" },
      }),
    );
  }
  return homes;
}

/** Tenants of other cells whose standby is on the victim. */
async function keptBy(client: FleetClient, homes: ReadonlyMap<string, string>) {
  const standbys = (await client.standbys()).filter(({ host }) => host === victim);
  return [...homes.keys()].filter((tenant) => {
    const id = must(parseTenantId(tenant), "tenant id");
    const key = { keyspace: defaultKeyspace, kind: "tenant", tenant: id } as const;
    const bucket = bucketOf(key, { strategy: "directory" });
    return standbys.some(
      ({ origin, buckets: { lo, hi } }) =>
        origin === homes.get(tenant) && lo <= bucket && bucket <= hi,
    );
  });
}

/** Also those of annexes, by the cell that answers for them. */
async function databases(world: World) {
  const found = [];
  for (const [cell, url] of world.superusers) {
    const names = await inDatabase(url, async (client) => {
      const own = new URL(url).pathname.slice(1);
      const { rows } = await client.query<{ datname: string }>(
        "select datname from pg_database where datname = $1 or datname like $2",
        [own, `${own}\\_\\_sb\\_%`],
      );
      return rows.map(({ datname }) => datname);
    });
    for (const name of names) {
      const one = new URL(url);
      one.pathname = `/${name}`;
      found.push({ cell, name: `${cell}/${name}`, url: one.href });
    }
  }
  return found;
}

type Commit = { readonly database: string; readonly entry: EntryOf<"commit"> };

async function readCommits(world: World): Promise<readonly Commit[]> {
  const found: Commit[] = [];
  for (const { cell, name, url } of await databases(world)) {
    const entries = await inDatabase(url, async (client) => {
      // An annex that came later has none, and has written nothing either.
      const { rows } = await client.query<{ there: boolean }>(
        "select to_regclass('cellfleet_history.commit_log') is not null as there",
      );
      return rows[0]?.there === true ? readCommitLog(client, cell) : [];
    }).catch((error: unknown) => {
      if (isDropped(error)) return [];
      throw error;
    });
    found.push(...entries.map((entry) => ({ database: name, entry })));
  }
  return found;
}

/** Annexes of a cell that is not trusted any more are removed, also while they are listed here. */
const isDropped = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && (error.code === "3D000" || error.code === "57P01");

function merged(...parts: ReadonlyArray<readonly Commit[]>): readonly Commit[] {
  const named = parts.flat().map((one): [string, Commit] => {
    const { txid, value } = one.entry;
    return [`${one.database} ${txid} ${value}`, one];
  });
  return [...new Map(named).values()];
}

/** The checker knows cells; an annex is one more owner in the same cell. */
function twoDatabases(commits: readonly Commit[]): readonly string[] {
  const writers = new Map<string, Set<string>>();
  for (const { database, entry } of commits) {
    const term = `${entry.tenant} epoch ${entry.epoch}`;
    writers.set(term, (writers.get(term) ?? new Set()).add(database));
  }
  return [...writers]
    .filter(([, by]) => by.size > 1)
    .map(([term, by]) => `two databases wrote ${term}: ${[...by].join(", ")}`);
}

/** A salvage names exactly what is gone: the checker holds it to all of that, and this to nothing else. */
function savedInVain(history: readonly Entry[]): readonly string[] {
  const present = new Set(history.flatMap((one) => (one.kind === "present" ? [one.value] : [])));
  return history.flatMap((one) =>
    one.kind === "salvaged" && present.has(one.value)
      ? [`salvaged, and not lost: ${one.tenant} ${one.value}`]
      : [],
  );
}

async function served(
  world: World,
  load: OpenLoad,
  tenants: readonly string[],
  sinceMs: number,
  withinMs: number,
): Promise<void> {
  const missing = () => {
    const ok = new Set(
      load.samples
        .filter(({ outcome, sentMs }) => outcome === "ok" && sentMs >= sinceMs)
        .map(({ tenant }) => tenant),
    );
    return tenants.filter((tenant) => !ok.has(tenant));
  };
  await until("every tenant is written to", () => missing().length === 0, withinMs).catch(
    async (error: unknown) => {
      const last = missing().map((tenant) => {
        const sample = load.samples.findLast((one) => one.tenant === tenant);
        return `${tenant}: ${sample?.reason}`;
      });
      const { stdout } = await world.fleet.cli("tenant", "locate", missing()[0] ?? "");
      throw new Error(`${String(error)}; never: ${last.join("; ")}\n${stdout}`);
    },
  );
}

/** Its tenants belong to others: known by the step, as routers that are cut off delay those after it. */
const past = ["routing", "verifying", "reprotecting", "done", "halted"];

async function reaches(client: FleetClient, what: string, steps: readonly string[]) {
  await until(
    `${victim} is ${what}`,
    async () => (await client.failovers()).some(({ step }) => steps.includes(step)),
    adoptedMs,
  );
}

/** All failovers, each to its report. */
async function ended(client: FleetClient): Promise<readonly Failover[]> {
  const find = async () =>
    Promise.all((await client.failovers()).map(({ id }) => client.failover(id)));
  await until(
    "failovers have their reports",
    async () => (await find()).every(({ report, step }) => report !== null || step === "cancelled"),
    adoptedMs,
  );
  return find();
}

/** What only the returned cell has: read there before anything is taken from it. */
async function salvaged(
  { fleet }: World,
  failovers: readonly Failover[],
): Promise<readonly Entry[]> {
  if (failovers.length === 0) return [];
  const read = await fleet.cli("cell", "salvage", victim, "--yes", "--wait");
  if (read.code !== 0) throw new Error(`salvage: ${read.stdout}${read.stderr}`);
  const file = `${fleet.dataDir}.salvage.ndjson`;
  try {
    await fleet.cliJson("cell", "salvage", victim, "show", "-O", file);
    const lines = (await readFile(file, "utf8")).split("\n").filter((line) => line !== "");
    const rows = z.array(salvagedRowSchema).parse(lines.map((line): unknown => JSON.parse(line)));
    // An order that arrived, and whose confirmation alone did not, is an update.
    return entriesOfSalvage(victim, rows, ({ table, kind, row }) => {
      const item = table.endsWith("orders") && kind === "insert" ? row?.["item"] : undefined;
      return item?.startsWith(`${run}/`) === true ? item : undefined;
    });
  } finally {
    await rm(file, { force: true });
  }
}

/**
 * A router that is cut off hands in nothing, and the report says so: then a tenant's bound is all it can say, and
 * what was acknowledged later than that may be gone without a name of its own.
 */
function withinBound(report: RpoReport, history: readonly Entry[]): readonly Entry[] {
  if (report.method !== "bound") return [];
  const wallAheadMs = systemClock.nowMs() - systemClock.monotonicMs();
  // Bounds count back from there.
  const cutOffMs = Date.parse(report.fencedAt ?? report.detectedAt);
  const bounds = new Map(report.tenants.map((one) => [one.tenant, one.boundSeconds]));
  const present = new Set(history.flatMap((one) => (one.kind === "present" ? [one.value] : [])));
  const open = new Map<string, { readonly tenant: string; readonly value: string }>();
  return history.flatMap((entry): Entry[] => {
    if (entry.kind === "invoke") open.set(entry.process, entry);
    const asked = entry.kind === "ok" ? open.get(entry.process) : undefined;
    if (entry.kind !== "ok" || asked === undefined || present.has(asked.value)) return [];
    const seconds = bounds.get(asked.tenant);
    if (seconds === undefined) return [];
    const isLate = seconds === null || entry.at + wallAheadMs >= cutOffMs - seconds * 1000;
    const { tenant, value } = asked;
    return isLate ? [{ kind: "reported-lost", tenant, value }] : [];
  });
}

function refusals(
  load: OpenLoad,
  sinceMs: number,
  allowed: readonly string[],
): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const { tenant, outcome, sentMs, tookMs, reason } of load.samples) {
    if (outcome === "ok" || sentMs + tookMs < sinceMs || allowed.includes(tenant)) continue;
    const text = `${tenant} +${Math.round((sentMs - sinceMs) / 1000)} s ${reason}`;
    found.set(text, (found.get(text) ?? 0) + 1);
  }
  return found;
}
