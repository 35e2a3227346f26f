/**
 * Failovers for tests: a control plane's database, executors over it that a test starts, replaces and
 * stops, and everything around them as plain values: streams, a provider, annexes' agents that record
 * orders and apply ownership as the real ones do, moves that go through at once. Each fleet has cells of
 * its own, so that many fit into one database.
 */
import { eq, inArray, like, sql } from "drizzle-orm";
import type { ProvidedCell } from "../../../contract/provider-api.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import type { StandbyPair, StandbyProvider } from "../../../standby/ports.ts";
import { startTestPostgres } from "../../../tests/postgres.ts";
import { eventually, openCell } from "../../control.fixture.ts";
import type { FailoverRun } from "../../core/failover/phases.ts";
import { type Database, openDatabase, prepareDatabase } from "../../store/database.ts";
import { findRun } from "../../store/failover/evidence.ts";
import { channels, startListener } from "../../store/notify.ts";
import { insertOp } from "../../store/ops.ts";
import { cell, leader, placement, tenant } from "../../store/schema.ts";
import { failover, standby } from "../../store/schema-standby.ts";
import { createWakeHub } from "../../store/wake-hub.ts";
import { annexesRecord, type FakeAnnex, live, settle } from "./fake-annexes.fixture.ts";
import { type Failing, failoverPatience, startFailing } from "./start.ts";
import type { FailoverBoundary, FailoverPatience } from "./world.ts";

/** Keys by which annex has them: the bucket of these names. */
export const keyOf = (id: string) => `default/tenant/${id}`;

export type FakeFleet = {
  readonly origin: string;
  readonly annexes: readonly [FakeAnnex, FakeAnnex];
  /** `sever sb-…`, `activate sb-…`, `adopt KEY`, in the order in which they happened. */
  readonly log: string[];
  readonly begin: (asked?: {
    readonly mode?: "planned" | "unplanned";
    readonly provedDead?: boolean;
  }) => Promise<string>;
  /** `cell epoch state` of each tenant, by id. */
  readonly placed: () => Promise<Record<string, string>>;
  readonly tenants: readonly string[];
};

export type FailingFixture = {
  readonly database: Database;
  readonly fleet: (options?: {
    readonly tenants?: number;
    readonly leaseTtlMs?: number;
    readonly tiers?: readonly ("gold" | "standard" | "free")[];
  }) => Promise<FakeFleet>;
  readonly lead: (options?: {
    readonly onBoundary?: FailoverBoundary;
    readonly patience?: Partial<FailoverPatience>;
  }) => Promise<{
    readonly failing: Failing;
    readonly term: number;
    readonly close: () => Promise<void>;
  }>;
  readonly see: (id: string) => Promise<FailoverRun>;
  readonly until: (id: string, isGood: (run: FailoverRun) => boolean) => Promise<FailoverRun>;
  readonly wish: (id: string, wish: "abort" | "resume") => Promise<void>;
  /** Of provider calls: `serve sb-…`. */
  readonly asked: string[];
  readonly provedDead: Set<string>;
  /** Streams that cannot be cut. */
  readonly unseverable: Set<string>;
  readonly reports: string[];
  readonly errors: string[];
  readonly close: () => Promise<void>;
};

/** Short where a test waits for its end; long where its end would be a fault of the machine. */
const quick: Partial<FailoverPatience> = {
  ...{
    graceMs: 20,
    answerMs: 1500,
    drainMs: 200,
    annexMs: 1500,
    serverMs: 1500,
    ownMs: 500,
    serveMs: 1500,
  },
  ...{ canaryMs: 20, canaryMostMs: 20_000, routeMs: 20_000, watchMs: 60 },
  marksMs: 100,
};

export async function startFailingFixture(): Promise<FailingFixture> {
  const postgres = await startTestPostgres();
  const url = await postgres.createDatabase("control");
  const errors: string[] = [];
  const database = openDatabase({ url, onConnectionError: () => {} });
  await prepareDatabase(database, systemRandom);
  await database.read.execute(sql.raw(annexesRecord));
  const annexes = new Map<string, { readonly annex: FakeAnnex; readonly log: string[] }>();
  const asked: string[] = [];
  const provedDead = new Set<string>();
  const unseverable = new Set<string>();
  const reports: string[] = [];
  const stop = new AbortController();
  const living = live(database, annexes, stop.signal);
  const executors: Array<{ readonly close: () => Promise<void> }> = [];
  const standbys = fakeStreams(annexes, unseverable);
  const provider = {
    act: async (id: string, action: string) => {
      asked.push(`${action} ${id}`);
      return provided(id);
    },
    look: async (id: string) => ({ ...provided(id), provedDead: provedDead.has(id) }),
  };
  const around: Around = { database, url, provider, standby: standbys, reports, errors };
  let fleets = 0;
  const see: FailingFixture["see"] = async (id) => must(await findRun(database.read, id), id);
  const until: FailingFixture["until"] = (id, isGood) => eventually(() => see(id), isGood);
  return {
    ...{ database, see, until, asked, provedDead, unseverable, reports, errors },
    fleet: async (options = {}) => {
      fleets += 1;
      return createFleet(database, annexes, `f${fleets}`, options);
    },
    lead: async (options = {}) => {
      const executor = await startExecutor(around, options);
      executors.push(executor);
      return executor;
    },
    wish: async (id, wish) => {
      await database.read.update(failover).set({ wish }).where(eq(failover.op, id));
      await database.read.execute(sql`select pg_notify(${channels.op}, ${id})`);
    },
    close: async () => {
      for (const one of executors) await one.close();
      stop.abort();
      await living;
      await database.close();
      await postgres.stop();
    },
  };
}

type Around = Pick<FailingFixture, "database" | "errors" | "reports"> & {
  readonly url: string;
  readonly provider: Parameters<typeof startFailing>[0]["provider"];
  readonly standby: Parameters<typeof startFailing>[0]["standby"];
};

async function startExecutor(
  { database, url, provider, standby: streams, reports, errors }: Around,
  options: {
    readonly onBoundary?: FailoverBoundary;
    readonly patience?: Partial<FailoverPatience>;
  },
) {
  const [row] = await database.read
    .update(leader)
    .set({ term: sql`${leader.term} + 1` })
    .returning({ term: leader.term });
  const term = must(row, "leader").term;
  const hub = createWakeHub(systemClock);
  const failing = startFailing({
    ...{ database, hub, clock: systemClock, random: systemRandom, provider },
    standby: streams,
    lead: { term: () => term },
    resolve: async () => "postgres://nowhere",
    pairOf: async (one) => ({ annex: one.annex, origin: one.origin }) as unknown as StandbyPair,
    report: async (id) => {
      reports.push(id);
      return { totals: {}, method: "exact" } as never;
    },
    patience: { ...failoverPatience, ...quick, ...options.patience },
    onBoundary: options.onBoundary,
    logTo: {
      ...{ clock: systemClock, part: "test", level: "error" },
      write: (line) => errors.push(line),
    },
    onError: (error) => errors.push(String(error)),
  });
  const listener = startListener({
    ...{ url, clock: systemClock, onError: () => {} },
    onWake: (channel, topic) => {
      hub.wake(channel, topic);
      failing.wake();
    },
  });
  let closing: Promise<void> | undefined;
  const end = async () => {
    await failing.close();
    await listener.close();
  };
  return { failing, term, close: () => (closing ??= end()) };
}

const provided = (id: string): ProvidedCell => ({
  ...{ id: id as ProvidedCell["id"], state: "running", text: "it runs" },
  ...{ services: {}, stores: {} },
});

function fakeStreams(
  annexes: ReadonlyMap<string, { readonly log: string[] }>,
  unseverable: ReadonlySet<string>,
): Pick<StandbyProvider, "status" | "sever" | "activate"> {
  const note = (id: string, what: string) => annexes.get(id)?.log.push(`${what} ${id}`);
  return {
    status: async () => {
      throw new Error("the origin is gone");
    },
    sever: async ({ annex }) => {
      if (unseverable.has(annex)) throw new Error("its database does not answer");
      note(annex, "sever");
      return { stores: [{ name: "main", remoteLsn: "0/10" }], heartbeatAgeMs: 40 };
    },
    activate: async ({ annex }) => {
      note(annex, "activate");
    },
  };
}

async function createFleet(
  database: Database,
  known: Map<string, { readonly annex: FakeAnnex; readonly log: string[] }>,
  name: string,
  options: {
    readonly tenants?: number;
    readonly leaseTtlMs?: number;
    readonly tiers?: readonly ("gold" | "standard" | "free")[];
  },
): Promise<FakeFleet> {
  const { read } = database;
  const origin = `${name}-cell-01`;
  const hosts = [`${name}-cell-02`, `${name}-cell-03`] as const;
  const log: string[] = [];
  for (const id of [origin, ...hosts]) await openCell(database, id);
  const ttl = options.leaseTtlMs ?? 40;
  await read
    .update(cell)
    .set({
      ...{ leaseTtlMs: ttl, partnerAcked: 1, grant: 7 },
      leaseGrantedAt: sql`clock_timestamp()`,
    })
    .where(eq(cell.id, origin));
  const make = async (host: string, bucketLo: number, bucketHi: number): Promise<FakeAnnex> => {
    const id = `sb-${origin}-${host}`;
    await openCell(database, id);
    await read.update(cell).set({ annexOrigin: origin, annexHost: host }).where(eq(cell.id, id));
    await read.insert(standby).values({
      ...{ annex: id, origin, host, provider: "logical", bucketLo, bucketHi },
      ...{ state: "ready", listedAt: 1, sees: "silent" },
    });
    const annex: FakeAnnex = {
      ...{ id, host, answers: true, appReachable: true, instance: `${id}-1`, boot: "1" },
      ...{ promiseMs: 0, recordsOpen: true, applies: true, onApplied: () => {} },
    };
    known.set(id, { annex, log });
    return annex;
  };
  const annexes = [await make(hosts[0], 0, 127), await make(hosts[1], 128, 255)] as const;
  const count = options.tenants ?? 12;
  const tenants = Array.from({ length: count }, (_, index) => `${name}-t${index + 1}`);
  const tiers = options.tiers ?? ["standard"];
  await read.insert(placement).values(
    tenants.map((id) => ({
      ...{ key: keyOf(id), keyspace: "default", kind: "tenant" as const, value: id },
      ...{ cell: origin, epoch: 3, state: "active" as const, revision: 0, op: "op_0createdkey" },
    })),
  );
  await read.insert(tenant).values(
    tenants.map((id, index) => ({
      ...{ id, keyspace: "default", sizeBytes: 10 + index, sizeRps: 1, labels: {} },
      ...{ tier: tiers[index % tiers.length] ?? "standard", placementKey: keyOf(id) },
    })),
  );
  await read.update(cell).set({ usedTenants: count }).where(eq(cell.id, origin));
  return {
    ...{ origin, annexes, log, tenants },
    begin: async (asked = {}) => {
      const nowMs = systemClock.nowMs();
      const id = newOpId(systemRandom, nowMs);
      const mode = asked.mode ?? "unplanned";
      for (const annex of annexes) await settle(database, annex);
      await database.transaction(async (tx) => {
        await insertOp(tx, {
          ...{ id, kind: "cell.failover", object: origin, step: "confirmed", state: "running" },
          ...{ headline: "begun", plan: { kind: "cell.failover", steps: [], skipped: [] }, nowMs },
          ...{ input: {}, actor: "test", reason: "", revision: null, deadlineMs: undefined },
        });
        const options = { provedDead: asked.provedDead ?? false };
        const row = { op: id, cell: origin, region: "local", mode, startedBy: "test", plan: {} };
        await tx.insert(failover).values({ ...row, options });
      });
      return id;
    },
    placed: async () => {
      const rows = await read
        .select()
        .from(placement)
        .where(inArray(placement.key, tenants.map(keyOf)));
      return Object.fromEntries(
        rows.map(({ value, cell: at, epoch, state }) => [value, `${at} ${epoch} ${state}`]),
      );
    },
  };
}

/** Tenants counted in each cell of a fleet, by cell. */
export async function usedIn(
  database: Database,
  fleet: FakeFleet,
): Promise<Record<string, number>> {
  const name = fleet.origin.split("-")[0] ?? "";
  const rows = await database.read
    .select()
    .from(cell)
    .where(like(cell.id, `%${name}-cell-%`));
  return Object.fromEntries(rows.map(({ id, usedTenants }) => [id, usedTenants]));
}
