/** Reads the fleet as decisions want it: one consistent snapshot, plain values. */
import { and, asc, eq, inArray, isNull, ne, type SQL, sql } from "drizzle-orm";
import { z } from "zod";
import { type Capacity, type Cell, cellSchema } from "../../contract/control-api.ts";
import { serviceSchema, storeSchema } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import type {
  AgentView,
  CellView,
  Closed,
  FleetSnapshot,
  Holding,
  OpView,
  PlacementView,
  RouterView,
  StageView,
} from "../core/fleet.ts";
import { nothingClosed } from "../core/fleet.ts";
import { countsAsManual, isSettled, type LeaseModeView } from "../core/lease-mode.ts";
import { adoptingCell } from "../core/stage.ts";
import { withReserves } from "../core/standby/reserve.ts";
import { toUnclassed } from "./coverage-record.ts";
import { type Database, databaseNowMs, type Reader } from "./database.ts";
import { failoversByCell } from "./failover/view.ts";
import { leaseModeOf } from "./lease-mode.ts";
import { openOps, toOpView } from "./ops.ts";
import { toPlacementView } from "./placements.ts";
import { agent, cell, fleet, placement, router } from "./schema.ts";
import { purge } from "./schema-adoption.ts";
import { standby } from "./schema-standby.ts";

export type CellRow = typeof cell.$inferSelect;
export type AgentRow = typeof agent.$inferSelect;

/** Operations looked at in one turn; what is younger waits for the next. */
export const openOpsMax = 500;

/** Whoever leads knows since when it has listened; here it is this moment. */
export async function readFleet(database: Database): Promise<FleetSnapshot> {
  return database.snapshot(async (tx) => {
    const [head] = await tx.select().from(fleet);
    const row = must(head, "fleet row");
    const nowMs = await databaseNowMs(tx);
    const ops = (await openOps(tx, openOpsMax)).map(toOpView);
    const stages = ops.some(({ kind }) => changesStage(kind));
    return {
      nowMs,
      listeningSinceMs: nowMs,
      revision: row.revision,
      mode: row.mode,
      auditEntries: row.auditEntries,
      cells: await readCells(tx),
      routers: await readRouters(tx),
      ops,
      pending: await readPending(tx),
      holdings: stages ? await readHoldings(tx) : new Map(),
      closed: stages ? await readClosed(tx) : nothingClosed,
      placements: await readNamed(tx, ops),
      purges: await readPurges(tx, ops),
    };
  });
}

const changesStage = (kind: string): boolean => kind === "cell.stage" || kind === "cell.adopt";

/** All cells, retired ones too, with their agents. */
export async function readCells(reader: Reader): Promise<CellView[]> {
  const rows = await reader.select().from(cell).orderBy(asc(cell.id));
  const agents = groupBy(await reader.select().from(agent), (one) => one.cell);
  const adopting = adoptingCell(rows.map((row) => ({ ...row, stage: stageOf(row) })));
  const cells = rows.map((row) => toCellView(row, agents.get(row.id) ?? [], adopting));
  return withReserves(cells, await readBonds(reader));
}

/** Who keeps whose standby: what is kept free for a failover follows from it. */
async function readBonds(reader: Reader) {
  const { origin, host, state, bucketLo: lo, bucketHi: hi } = standby;
  const rows = await reader
    .select({ origin, host, state, lo, hi })
    .from(standby)
    .where(ne(standby.state, "gone"));
  return rows.map(({ lo: from, hi: to, ...one }) => ({ ...one, buckets: { lo: from, hi: to } }));
}

export const readCell = async (reader: Reader, id: string): Promise<CellView | undefined> =>
  (await readCells(reader)).find((one) => one.id === id);

/** Placements that are not on their way out, per cell. Reads the whole table: for rare questions. */
export async function readHoldings(reader: Reader): Promise<Map<string, Holding>> {
  const rows = await reader
    .select({
      cell: placement.cell,
      keys: sql<number>`count(*)::int`,
      waiting: sql<number>`count(*) filter (where state in ('pending', 'hold', 'unavailable'))::int`,
    })
    .from(placement)
    .where(and(eq(placement.deleted, false), ne(placement.state, "deleting")))
    .groupBy(placement.cell);
  return new Map(rows.map(({ cell: id, keys, waiting }) => [id, { keys, waiting }]));
}

/** Who is refused on purpose, and what is still to be removed. Reads the whole table, as above. */
export async function readClosed(reader: Reader): Promise<Closed> {
  const { rows } = await reader.execute<Closed>(sql`
    select (select count(*)::int from cellfleet_control.placement
             where state = 'suspended' and not deleted) as suspended,
           (select count(*)::int from (
              select id as op from cellfleet_control.op
               where kind = 'tenant.delete' and state in ('pending', 'running')
              union select op from cellfleet_control.placement where state = 'deleting' and not deleted
              union select p.op from cellfleet_control.purge as p
                join cellfleet_control.cell as c on c.id = p.cell and c.state <> 'retired'
               where p.confirmed_at is null) as d) as deletions`);
  return rows[0] ?? nothingClosed;
}

/** The placements that operations on single tenants are about. */
async function readNamed(
  reader: Reader,
  ops: readonly OpView[],
): Promise<Map<string, PlacementView>> {
  const keys = ops.flatMap(({ kind, input }) =>
    namesKey.has(kind) && typeof input["key"] === "string" ? [input["key"]] : [],
  );
  if (keys.length === 0) return new Map();
  const rows = await reader.select().from(placement).where(inArray(placement.key, keys));
  return new Map(rows.map((row) => [row.key, toPlacementView(row)]));
}

const namesKey: ReadonlySet<string> = new Set(["tenant.suspend", "tenant.resume", "tenant.delete"]);

async function readPurges(
  reader: Reader,
  ops: readonly OpView[],
): Promise<Map<string, readonly string[]>> {
  const ids = ops.filter(({ kind }) => kind === "tenant.delete").map(({ id }) => id);
  if (ids.length === 0) return new Map();
  const rows = await reader
    .select({ op: purge.op, cell: purge.cell })
    .from(purge)
    .where(and(inArray(purge.op, ids), isNull(purge.confirmedAt)))
    .orderBy(asc(purge.cell));
  const groups = groupBy(rows, ({ op }) => op);
  return new Map([...groups].map(([op, cells]) => [op, cells.map((one) => one.cell)]));
}

export const cellIds = async (reader: Reader): Promise<string[]> =>
  (await reader.select({ id: cell.id }).from(cell).where(ne(cell.state, "retired"))).map(
    ({ id }) => id,
  );

export async function readRouters(reader: Reader): Promise<RouterView[]> {
  const rows = await reader
    .select({
      id: router.id,
      revision: router.revision,
      seenAt: router.seenAt,
      refusedAt: router.wouldRefuseAt,
    })
    .from(router);
  return rows.map(({ id, revision, seenAt, refusedAt }) => ({
    id,
    revision,
    seenAtMs: seenAt.getTime(),
    refusedAtMs: refusedAt?.getTime() ?? 0,
  }));
}

async function readPending(reader: Reader): Promise<Map<string, Map<string, number>>> {
  const rows = await reader
    .select({ op: placement.op, cell: placement.cell, keys: sql<number>`count(*)::int` })
    .from(placement)
    .where(eq(placement.state, "pending"))
    .groupBy(placement.op, placement.cell);
  const pending = new Map<string, Map<string, number>>();
  for (const row of rows) {
    const cells = pending.get(row.op) ?? new Map<string, number>();
    pending.set(row.op, cells.set(row.cell, row.keys));
  }
  return pending;
}

const capacityOf = (row: CellRow): Capacity => ({
  tenants: row.capacityTenants,
  bytes: row.capacityBytes,
  rps: row.capacityRps,
  maxTenantShare: row.maxTenantShare,
});

const usageOf = (row: CellRow) => ({
  tenants: row.usedTenants,
  bytes: row.usedBytes,
  rps: row.usedRps,
});

const leaseUntilMs = (row: CellRow): number =>
  row.leaseGrantedAt === null ? 0 : row.leaseGrantedAt.getTime() + row.leaseTtlMs;

/** That leases end by themselves nobody has to be told. */
const toldMode = (view: LeaseModeView): Pick<Cell["lease"], "mode" | "settled"> =>
  countsAsManual(view) ? { mode: view.mode, settled: isSettled(view) } : {};

const countsSchema = z.record(z.string(), z.number()).catch({});

const stageOf = (row: CellRow): StageView => ({
  adopted: row.adopted,
  now: row.stage,
  sinceMs: row.stageAt.getTime(),
  goal: row.stageGoal,
  applied: row.stageApplied,
  isCurrent: row.stageAppliedNumber === row.stageNumber,
  guardedTables: row.guardedTables,
  unclassed: toUnclassed(row.unclassed),
  wouldRefuse: countsSchema.parse(row.wouldRefuse),
  refusedAtMs: row.wouldRefuseAt?.getTime() ?? 0,
});

function toCellView(row: CellRow, agents: readonly AgentRow[], adopting: string | null): CellView {
  return {
    id: row.id,
    state: row.state,
    goal: row.goal,
    health: row.health,
    healthReason: row.healthReason,
    region: row.region,
    failureDomain: row.failureDomain,
    tiers: row.tiers,
    dedicated: row.dedicated,
    provider: row.provider,
    capacity: capacityOf(row),
    usage: usageOf(row),
    leaseUntilMs: leaseUntilMs(row),
    leaseMode: leaseModeOf(row),
    appliedRevision: row.appliedRevision,
    agents: agents.map(toAgentView),
    stage: stageOf(row),
    adopting,
    annex: annexOf(row),
    revoking: row.revoking,
    reserve: null,
  };
}

const annexOf = ({ annexOrigin: origin, annexHost: host }: CellRow): CellView["annex"] =>
  origin === null || host === null ? null : { origin, host };

const toAgentView = (row: AgentRow): AgentView => ({
  instance: row.instance,
  endpoint: row.endpoint,
  primary: row.primary,
  appReachable: row.appReachable,
  databaseReachable: row.databaseReachable,
  seenAtMs: row.seenAt.getTime(),
});

const servicesSchema = z.record(z.string(), serviceSchema).catch({});
const storesSchema = z.record(z.string(), storeSchema).catch({});

/** Those that are no database: operators speak of them, of cells of every provider. */
export const externalStores = (stores: unknown): Cell["stores"] =>
  Object.fromEntries(
    Object.entries(storesSchema.parse(stores)).filter(([, { kind }]) => kind === "external"),
  );

export async function cellStores(reader: Reader, id: string): Promise<Cell["stores"]> {
  const [row] = await reader.select({ stores: cell.stores }).from(cell).where(eq(cell.id, id));
  return storesSchema.parse(row?.stores);
}

/** Of one that was failed over nobody has to guess why it serves nobody, whatever its health is. */
const explained = ({ id, state, revoking, health, healthReason }: CellRow): string =>
  state === "quarantined" && revoking
    ? `failed over: its tenants are served elsewhere and it is granted no lease (${health === "down" ? `cellctl cell start ${id}, then ` : ""}cellctl cell salvage ${id}, then cellctl cell wipe ${id}); ${healthReason}`
    : healthReason;

/** The wire form of a cell. */
function toCell(
  row: CellRow,
  agents: readonly AgentRow[],
  {
    nowMs,
    counted,
  }: { readonly nowMs: number; readonly counted: Readonly<Record<string, number>> },
): Cell {
  return cellSchema.parse({
    id: row.id,
    state: row.state,
    goal: row.goal,
    health: row.health,
    healthReason: explained(row),
    region: row.region,
    failureDomain: row.failureDomain,
    tiers: row.tiers,
    dedicated: row.dedicated,
    provider: row.provider,
    capacity: capacityOf(row),
    usage: usageOf(row),
    services: servicesSchema.parse(row.services),
    stores: storesSchema.parse(row.stores),
    release: row.release,
    schemaVersion: row.schemaVersion,
    stage: row.stage,
    ...(row.adopted
      ? {
          adopted: true,
          wouldRefuse: wouldRefuse(row, counted),
          guardedTables: row.guardedTables,
        }
      : {}),
    unclassed: toUnclassed(row.unclassed) ?? undefined,
    lease: {
      grant: row.grant,
      outstandingMs: Math.max(0, leaseUntilMs(row) - nowMs),
      ...toldMode(leaseModeOf(row)),
    },
    agents: agents.map((one) => ({
      instance: one.instance,
      endpoint: one.endpoint,
      primary: one.primary,
      seenMs: Math.max(0, nowMs - one.seenAt.getTime()),
    })),
    createdAt: row.createdAt.toISOString(),
  });
}

/** Without annexes: those are told as standbys of their hosts, and each by its own id. */
export const listCells = (reader: Reader, nowMs: number): Promise<Cell[]> =>
  cellsWhere(reader, nowMs, isNull(cell.annexHost));

/** An annex too. */
export const findCell = async (
  reader: Reader,
  nowMs: number,
  id: string,
): Promise<Cell | undefined> => (await cellsWhere(reader, nowMs, eq(cell.id, id)))[0];

async function cellsWhere(reader: Reader, nowMs: number, which: SQL): Promise<Cell[]> {
  const rows = await reader.select().from(cell).where(which).orderBy(asc(cell.id));
  const agents = groupBy(await reader.select().from(agent), (one) => one.cell);
  const counted = rows.some(({ adopted }) => adopted) ? await routersWouldRefuse(reader) : {};
  const failovers = await failoversByCell(reader);
  return rows.map((row) => {
    const shown = toCell(row, agents.get(row.id) ?? [], { nowMs, counted });
    const failover = failovers.get(row.id);
    return failover === undefined ? shown : { ...shown, failover };
  });
}

/** What routers would have refused for the cell that is being adopted; there is one at most. */
async function routersWouldRefuse(reader: Reader): Promise<Record<string, number>> {
  const { rows } = await reader.execute<{ code: string; times: number }>(sql`
    select n.code, sum(n.times::numeric)::float8 as times
      from cellfleet_control.router as r, jsonb_each_text(r.would_refuse) as n(code, times)
     group by n.code`);
  return Object.fromEntries(rows.map(({ code, times }) => [code, times]));
}

/** Of a cell that does not refuse yet: guard and gate by what its agent says, routers by what they say. */
const wouldRefuse = (row: CellRow, counted: Readonly<Record<string, number>>) => ({
  ...(row.stage === "enforce" ? {} : counted),
  ...stageOf(row).wouldRefuse,
});

function groupBy<T>(rows: readonly T[], key: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(key(row)) ?? [];
    groups.set(key(row), group);
    group.push(row);
  }
  return groups;
}
