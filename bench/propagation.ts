/**
 * From commit to every router: a placement changes in the control plane's database, and three router
 * processes are asked, each over its own connection, until they answer by the new state. Prints the
 * distribution of the time until the last of the three.
 */
import pg from "pg";
import { Client, request } from "undici";
import { z } from "zod";
import { importResultSchema } from "../contract/control-api.ts";
import {
  type BenchFleet,
  type BenchProcess,
  print,
  printLoad,
  startBenchFleet,
  untilReady,
} from "./fleet-processes.ts";

const changesDefault = 300;
const pauseMs = 20;
const tenants = 300;

export async function run(args: readonly string[]): Promise<void> {
  const changes = Number(args[0] ?? changesDefault);
  if (!Number.isSafeInteger(changes) || changes < 1)
    throw new Error("usage: propagation [CHANGES]");
  const fleet = await startBenchFleet({ cells: 3, tenantsPerCellMax: 10_000 });
  try {
    await createTenants(fleet);
    const since = performance.now();
    const ids = ["router-1", "router-2", "router-3"];
    const routers = await Promise.all(ids.map((id) => fleet.router(id)));
    await Promise.all(routers.map((router) => untilReady(router, since)));
    const took = await measure(fleet, routers, changes);
    report(took);
    printLoad();
  } finally {
    await fleet.stop();
  }
}

async function createTenants(fleet: BenchFleet): Promise<void> {
  const ids = Array.from({ length: tenants }, (_, at) => `{"id":"tenant-${at}"}\n`);
  const { body } = await request(`${fleet.control.listen}/v1/tenants/import`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${fleet.secret}`,
      "content-type": "application/x-ndjson",
    },
    body: ids.join(""),
  });
  const { op } = importResultSchema.parse(await body.json());
  if (op !== null) await fleet.finish(op);
}

/** The same statement that the control plane's own transactions make: revision, row, notification. */
const changeSql = `
  with head as (
    update cellfleet_control.fleet set revision = revision + 1 returning revision
  ), row as (
    update cellfleet_control.placement as p set state = $2, revision = head.revision
      from head where p.key = $1
  )
  select revision::float8 as revision, pg_notify('cellfleet_revision', revision::text) from head`;
const changedSchema = z.object({ revision: z.number() });

async function measure(
  fleet: BenchFleet,
  routers: readonly BenchProcess[],
  changes: number,
): Promise<number[]> {
  const database = new pg.Client(fleet.databaseUrl);
  await database.connect();
  const watchers = routers.map(({ admin }) => new Client(admin));
  const took: number[] = [];
  try {
    for (let at = 0; at < changes; at += 1) {
      const key = `default/tenant/tenant-${at % tenants}`;
      const state = Math.floor(at / tenants) % 2 === 0 ? "unavailable" : "active";
      const { rows } = await database.query(changeSql, [key, state]);
      const committed = performance.now();
      const { revision } = changedSchema.parse(rows[0]);
      await Promise.all(watchers.map((watcher) => untilServed(watcher, revision)));
      took.push(performance.now() - committed);
      // Each change alone, as most are; a burst would share its reading of the log.
      await new Promise((done) => setTimeout(done, pauseMs));
    }
  } finally {
    await Promise.all(watchers.map((watcher) => watcher.destroy()));
    await database.end();
  }
  return took;
}

const servedSchema = z.object({ revision: z.number() });

/** Asks as fast as the router answers: the figure is too large by one such question at the most. */
async function untilServed(watcher: Client, revision: number): Promise<void> {
  for (;;) {
    const { body } = await watcher.request({ method: "GET", path: "/table" });
    if (servedSchema.parse(await body.json()).revision >= revision) return;
  }
}

function report(took: readonly number[]): void {
  const sorted = took.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  print("changes, each to 3 routers", String(sorted.length));
  for (const [name, share] of [
    ["p50", 0.5],
    ["p90", 0.9],
    ["p99", 0.99],
  ] as const) {
    print(`from commit to all routers, ${name}`, `${at(share).toFixed(1)} ms`);
  }
  print("from commit to all routers, longest", `${(sorted.at(-1) ?? 0).toFixed(1)} ms`);
}
