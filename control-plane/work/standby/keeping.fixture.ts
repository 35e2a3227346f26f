/**
 * A keeper of standbys for tests: a real database of the control plane; origins, annexes and streams by
 * plain values. Agents of origins store what they are told while `acks` is true.
 */
import { eq, sql } from "drizzle-orm";
import { cellIdSchema } from "../../../contract/ids.ts";
import type { ProvidedCell } from "../../../contract/provider-api.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemRandom } from "../../../runtime/random.ts";
import type { StandbyProvider, StandbyStatus } from "../../../standby/ports.ts";
import { startTestPostgres } from "../../../tests/postgres.ts";
import { eventually, openCell } from "../../control.fixture.ts";
import type { StandbyView } from "../../core/standby/standby-view.ts";
import { openDatabase, prepareDatabase } from "../../store/database.ts";
import { cell, leader } from "../../store/schema.ts";
import { readStandbys } from "../../store/standby/read.ts";
import type { Provider } from "../provider.ts";
import { type Keeper, type KeeperOptions, startKeeping } from "./keeper.ts";

export type KeepingFixture = Awaited<ReturnType<typeof startKeepingFixture>>;

const storesOf = (id: string): ProvidedCell["stores"] => ({
  main: { database: `file:/run/${id}`, mover: `file:/run/${id}-mover`, keyColumn: "tenant_id" },
});

export async function startKeepingFixture() {
  const postgres = await startTestPostgres();
  const url = await postgres.createDatabase("keeping");
  const database = openDatabase({ url, onConnectionError: () => {} });
  await prepareDatabase(database, systemRandom);
  const streams = createFakeStreams();
  const provider = createFakeProvider();
  const keepers: Keeper[] = [];
  const errors: unknown[] = [];
  let acks = true;
  const stop = new AbortController();
  const acking = (async () => {
    while (!stop.signal.aborted) {
      if (acks) await database.read.update(cell).set({ partnerAcked: cell.partnerRevision });
      await systemClock.sleep(20, stop.signal);
    }
  })();

  return {
    ...{ database, streams, provider, errors },
    setAcks: (on: boolean) => {
      acks = on;
    },
    addCell: async (id: string) => {
      await openCell(database, id);
      const set = { provider: "local", stores: storesOf(id) };
      await database.read.update(cell).set(set).where(eq(cell.id, id));
    },
    setCell: (id: string, set: Partial<typeof cell.$inferInsert>) =>
      database.read.update(cell).set(set).where(eq(cell.id, id)),
    /** The next term's keeper. */
    keep: async (options: Partial<KeeperOptions> = {}): Promise<Keeper> => {
      const rows = await database.read
        .update(leader)
        .set({ term: sql`${leader.term} + 1` })
        .returning({ term: leader.term });
      const keeper = startKeeping({
        ...{ database, clock: systemClock, random: systemRandom, kind: "logical", partners: 3 },
        lead: { term: () => rows[0]?.term },
        ...{ provider: provider.port, standby: streams.port, resolve: async (ref) => ref },
        limits: { settleMs: 50 },
        everyMs: 60,
        onError: (error) => errors.push(error),
        ...options,
      });
      keepers.push(keeper);
      return keeper;
    },
    standbys: () => readStandbys(database.read),
    until: (isGood: (standbys: readonly StandbyView[]) => boolean) =>
      eventually(() => readStandbys(database.read), isGood),
    close: async () => {
      for (const one of keepers) await one.close();
      stop.abort();
      await acking;
      await database.close();
      await postgres.stop();
    },
  };
}

/** Streams by plain values: what is ensured streams, unless a test says otherwise. */
function createFakeStreams() {
  const status = new Map<string, StandbyStatus>();
  const log: string[] = [];
  const streaming: StandbyStatus = {
    ...{ phase: "streaming", reason: "", lagBytes: 12, heartbeatAgeMs: 40, uncovered: [] },
  };
  const fake = {
    status,
    log,
    /** What `ensure` leads to. */
    ensured: streaming,
    /** Awaited by every call that changes something. */
    onCall: async (_what: string): Promise<void> => {},
  };
  const did = async (what: string) => {
    log.push(what);
    await fake.onCall(what);
  };
  const port: StandbyProvider = {
    ensure: async ({ annex }) => {
      await did(`ensure ${annex}`);
      status.set(annex, fake.ensured);
    },
    status: async ({ annex }) => status.get(annex) ?? { ...streaming, phase: "absent" },
    refresh: async ({ annex }) => {
      await did(`refresh ${annex}`);
      const known = status.get(annex) ?? streaming;
      status.set(annex, { ...known, uncovered: [] });
    },
    drop: async ({ annex }, origin) => {
      await did(`drop ${annex} ${origin}`);
      status.delete(annex);
    },
    sever: async () => ({ stores: [], heartbeatAgeMs: null }),
    activate: async () => {},
    salvage: async () => {},
    close: async () => {},
  };
  return Object.assign(fake, { port });
}

/** Annexes that a provider runs, by plain values. */
function createFakeProvider() {
  const running = new Set<string>();
  const log: string[] = [];
  const told = (id: string): ProvidedCell => ({
    ...{
      id: cellIdSchema.parse(id),
      state: running.has(id) ? "running" : "absent",
      text: "",
      services: {},
    },
    stores: running.has(id) ? storesOf(id) : {},
  });
  const port: Provider = {
    look: async (id) => told(id),
    act: async (id, action, { annex, agentToken }) => {
      log.push(`${action} ${id}${annex === undefined ? "" : ` ${annex.origin} in ${annex.host}`}`);
      if (action === "create" && agentToken !== undefined) running.add(id);
      if (action === "destroy") running.delete(id);
      return told(id);
    },
    close: async () => {},
  };
  return { port, running, log };
}
