/**
 * Moves for tests: two real cells' databases, a control plane's database, and executors over it that a
 * test starts, replaces and stops. No HTTP; rows of moves are written as the API writes them.
 */
import { eq, sql } from "drizzle-orm";
import { type MoveOptions, moveOptionsSchema, movePlanSchema } from "../../../contract/move-api.ts";
import { startTwoCells, type TwoCells } from "../../../moving/two-cells.fixture.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createMetrics, type Metrics } from "../../../runtime/metrics.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import { type CellStore, openClient } from "../../../tests/cell-store.ts";
import { startTestPostgres } from "../../../tests/postgres.ts";
import { eventually, openCell } from "../../control.fixture.ts";
import { planSteps } from "../../core/move/move-plan.ts";
import { isMoveEnd } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { type Database, openDatabase, prepareDatabase } from "../../store/database.ts";
import { askMove, closeKeys, insertMove } from "../../store/moves/ask.ts";
import { findMove, toMoveView } from "../../store/moves/read.ts";
import { takeRoom } from "../../store/moves/room.ts";
import { startListener } from "../../store/notify.ts";
import { cell, leader, placement, tenant } from "../../store/schema.ts";
import { moveObject } from "../../store/schema-moves.ts";
import { createWakeHub } from "../../store/wake-hub.ts";
import { type Moving, startMoving } from "./start.ts";
import type { MoveBoundary } from "./world.ts";

export type Executor = {
  readonly moving: Moving;
  readonly metrics: Metrics;
  readonly term: number;
  /** What it logged. */
  readonly lines: readonly string[];
  readonly close: () => Promise<void>;
};

export type MovingFixture = {
  readonly cells: TwoCells;
  readonly database: Database;
  /** A tenant that cell-a serves, with rows. Fresh each time. */
  readonly createTenant: (rows?: number) => Promise<string>;
  /** The next term's executor. */
  readonly lead: (options?: {
    readonly onBoundary?: MoveBoundary;
    readonly perSource?: number;
  }) => Promise<Executor>;
  /** As the API records one. `reverses`: from where that one went. */
  readonly begin: (
    tenants: readonly string[],
    options?: Partial<MoveOptions>,
    reverses?: string,
  ) => Promise<string>;
  readonly ask: (
    id: string,
    asked: { readonly wish?: MoveView["wish"]; readonly paused?: boolean },
  ) => Promise<void>;
  readonly see: (id: string) => Promise<MoveView>;
  readonly until: (id: string, isGood: (view: MoveView) => boolean) => Promise<MoveView>;
  readonly untilOver: (id: string) => Promise<MoveView>;
  /** `cell epoch state` of a tenant's placement. */
  readonly placed: (tenant: string) => Promise<string>;
  /** One line per thing that moves have left where it should not be. */
  readonly leftovers: () => Promise<readonly string[]>;
  /** What may be somewhere, by the control plane's books. */
  readonly recorded: (id: string) => Promise<number>;
  /** Tenants counted as placed in cell-a and in cell-b. */
  readonly used: () => Promise<readonly number[]>;
  readonly close: () => Promise<void>;
};

const keyOf = (id: string) => `default/tenant/${id}`;

/** `apart`: a server for each cell and for the control plane, so that one can die. */
export async function startMovingFixture(
  options: { readonly apart?: boolean } = {},
): Promise<MovingFixture> {
  const isApart = options.apart === true;
  const cells = await startTwoCells({ servers: isApart ? 2 : 1 });
  const { a, b } = cells;
  const own = isApart ? await startTestPostgres() : undefined;
  const url = await (own ?? cells.serverOf(a)).createDatabase("control");
  const database = openDatabase({ url, onConnectionError: () => {} });
  await prepareDatabase(database, systemRandom);
  for (const store of [a, b]) {
    await openCell(database, store.name);
    const stores = { main: { database: "env:NONE", mover: `env:${store.name}` } };
    await database.read.update(cell).set({ stores }).where(eq(cell.id, store.name));
  }
  const executors: Executor[] = [];
  let tenants = 0;
  const see = async (id: string) => toMoveView(must(await findMove(database.read, id), id));
  const until: MovingFixture["until"] = (id, isGood) => eventually(() => see(id), isGood);

  const begin: MovingFixture["begin"] = async (ids, options = {}, reverses = undefined) => {
    const id = await recordMove(database, cells, { ids, options, reverses });
    for (const one of executors) one.moving.wake();
    return id;
  };
  return {
    ...{ cells, database, see, until, begin },
    createTenant: async (rows = 3) => {
      tenants += 1;
      const id = `tenant-${tenants}`;
      await cells.own(a, keyOf(id), "active");
      for (let row = 0; row < rows; row += 1) await cells.write(a.app, id, row + 1);
      await database.read.insert(placement).values({
        ...{ key: keyOf(id), keyspace: "default", kind: "tenant", value: id, cell: a.name },
        ...{ epoch: 1, state: "active", revision: 0, op: "op_0createdkey" },
      });
      await database.read.insert(tenant).values({
        ...{ id, keyspace: "default", tier: "standard", sizeBytes: 0, sizeRps: 0, labels: {} },
        placementKey: keyOf(id),
      });
      const room = { tenants: 1, bytes: 0, rps: 0 };
      await database.transaction((tx) => takeRoom(tx, a.name, room));
      return id;
    },
    lead: async (options = {}) => {
      const executor = await startExecutor(database, url, cells, options);
      executors.push(executor);
      return executor;
    },
    ask: (id, asked) => database.transaction((tx) => askMove(tx, id, asked)),
    untilOver: (id) => until(id, ({ step }) => isMoveEnd(step)),
    placed: async (id) => {
      const rows = await database.read
        .select()
        .from(placement)
        .where(eq(placement.key, keyOf(id)));
      const row = must(rows[0], id);
      return `${row.cell} ${row.epoch} ${row.state}`;
    },
    leftovers: async () => [...(await leftIn(cells, a)), ...(await leftIn(cells, b))],
    recorded: (id) => database.read.$count(moveObject, eq(moveObject.op, id)),
    used: async () => {
      const rows = await database.read.select().from(cell).orderBy(cell.id);
      return rows.map(({ usedTenants }) => usedTenants);
    },
    close: async () => {
      for (const one of executors) await one.close();
      await database.close();
      await cells.close();
      await own?.stop();
    },
  };
}

async function recordMove(
  database: Database,
  { a, b }: TwoCells,
  asked: {
    readonly ids: readonly string[];
    readonly options: Partial<MoveOptions>;
    readonly reverses: string | undefined;
  },
): Promise<string> {
  const { ids, reverses } = asked;
  const [source, target] = reverses === undefined ? [a.name, b.name] : [b.name, a.name];
  const keys = ids.map(keyOf);
  const options = moveOptionsSchema.parse({ switch: "auto", soakMs: 0, ...asked.options });
  const nowMs = systemClock.nowMs();
  const id = newOpId(systemRandom, nowMs);
  const isReversal = reverses !== undefined;
  const plan = movePlanSchema.parse({
    ...{ keyspace: "default", keys, source, target, stores: ["main"], tables: [], checks: [] },
    estimate: { rows: 0, bytes: 0, copyMs: 0, pauseMs: 0 },
    steps: planSteps({ source, target, options, isReversal }),
  });
  const room = { tenants: ids.length, bytes: 0, rps: 0 };
  await database.transaction(async (tx) => {
    if (reverses !== undefined) await closeKeys(tx, reverses);
    await takeRoom(tx, target, room);
    const rows = await tx.select().from(placement);
    await insertMove(tx, {
      ...{ plan, options, reverses: reverses ?? null },
      keys: rows.filter(({ key }) => keys.includes(key)),
      op: {
        ...{ id, object: ids.join(" "), headline: "waits", nowMs, actor: "test", reason: "" },
        plan: { kind: "tenant.move", steps: [], skipped: [] },
        input: { source, target, room },
      },
    });
  });
  return id;
}

async function startExecutor(
  database: Database,
  url: string,
  { a, b }: TwoCells,
  options: { readonly onBoundary?: MoveBoundary; readonly perSource?: number },
): Promise<Executor> {
  const [row] = await database.read
    .update(leader)
    .set({ term: sql`${leader.term} + 1` })
    .returning({ term: leader.term });
  const term = must(row, "leader").term;
  const hub = createWakeHub(systemClock);
  const metrics = createMetrics();
  const lines: string[] = [];
  const moving = startMoving({
    ...{ database, hub, clock: systemClock, random: systemRandom, metrics },
    lead: { term: () => term },
    resolve: async (reference) =>
      must(
        [a, b].find(({ name }) => reference === `env:${name}`),
        reference,
      ).moverUrl,
    allowHookCommands: false,
    // A cell that dies in a test is gone for good as soon as it is noticed.
    patience: { stepMs: 2000, releaseMs: 300, undoMs: 300 },
    sweepEveryMs: 500,
    soakLookEveryMs: 200,
    onBoundary: options.onBoundary,
    ...(options.perSource === undefined
      ? {}
      : { limits: { perSource: options.perSource, perTarget: options.perSource } }),
    logTo: {
      ...{ clock: systemClock, part: "test", level: "debug" },
      write: (line) => lines.push(line),
    },
    onError: (error) => lines.push(String(error)),
  });
  const listener = startListener({
    ...{ url, clock: systemClock, onError: () => {} },
    onWake: (channel, topic) => {
      hub.wake(channel, topic);
      moving.wake();
    },
  });
  let closing: Promise<void> | undefined;
  const close = async () => {
    await moving.close();
    await listener.close();
  };
  return { ...{ moving, metrics, term, lines }, close: () => (closing ??= close()) };
}

/** By a connection of its own: the server may have been started again. */
async function leftIn({ serverOf }: TwoCells, store: CellStore): Promise<string[]> {
  const { name } = store;
  const client = await openClient(serverOf(store).url(name));
  const { rows } = await client.query<{ what: string }>(`
    select 'slot ' || slot_name as what from pg_replication_slots
     where slot_name ~ '^(mv|rv)_' and database = current_database()
    union all select 'publication ' || pubname from pg_publication where pubname ~ '^(mv|rv)_'
    union all select 'subscription ' || subname from pg_subscription
      where subname ~ '^(mv|rv)_'
        and subdbid = (select oid from pg_database where datname = current_database())
    union all select 'gate ' || key from cellfleet.closed_gate
    union all select state || ' ' || key from cellfleet.ownership where state in ('importing', 'fenced')`);
  await client.end();
  return rows.map(({ what }) => `${name}: ${what}`);
}
