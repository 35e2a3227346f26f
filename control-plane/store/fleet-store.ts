/** Reads the fleet as decisions want it: one consistent snapshot, plain values. */
import { asc, eq, ne, sql } from "drizzle-orm";
import { z } from "zod";
import { type Capacity, type Cell, cellSchema } from "../../contract/control-api.ts";
import { serviceSchema, storeSchema } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import type { AgentView, CellView, FleetSnapshot, RouterView } from "../core/fleet.ts";
import { type Database, databaseNowMs, type Reader } from "./database.ts";
import { openOps, toOpView } from "./ops.ts";
import { agent, cell, fleet, placement, router } from "./schema.ts";

export type CellRow = typeof cell.$inferSelect;
export type AgentRow = typeof agent.$inferSelect;

/** Operations looked at in one turn; what is younger waits for the next. */
export const openOpsMax = 500;

export async function readFleet(database: Database): Promise<FleetSnapshot> {
  return database.snapshot(async (tx) => {
    const [head] = await tx.select().from(fleet);
    const row = must(head, "fleet row");
    return {
      nowMs: await databaseNowMs(tx),
      revision: row.revision,
      mode: row.mode,
      auditEntries: row.auditEntries,
      cells: await readCells(tx),
      routers: await readRouters(tx),
      ops: (await openOps(tx, openOpsMax)).map(toOpView),
      pending: await readPending(tx),
    };
  });
}

/** All cells, retired ones too, with their agents. */
export async function readCells(reader: Reader): Promise<CellView[]> {
  const rows = await reader.select().from(cell).orderBy(asc(cell.id));
  const agents = groupBy(await reader.select().from(agent), (one) => one.cell);
  return rows.map((row) => toCellView(row, agents.get(row.id) ?? []));
}

export async function readCell(reader: Reader, id: string): Promise<CellView | undefined> {
  const [row] = await reader.select().from(cell).where(eq(cell.id, id));
  if (row === undefined) return undefined;
  return toCellView(row, await reader.select().from(agent).where(eq(agent.cell, id)));
}

export const cellIds = async (reader: Reader): Promise<string[]> =>
  (await reader.select({ id: cell.id }).from(cell).where(ne(cell.state, "retired"))).map(
    ({ id }) => id,
  );

export async function readRouters(reader: Reader): Promise<RouterView[]> {
  const rows = await reader
    .select({ id: router.id, revision: router.revision, seenAt: router.seenAt })
    .from(router);
  return rows.map(({ id, revision, seenAt }) => ({ id, revision, seenAtMs: seenAt.getTime() }));
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

export function toCellView(row: CellRow, agents: readonly AgentRow[]): CellView {
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
    appliedRevision: row.appliedRevision,
    agents: agents.map(toAgentView),
  };
}

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

/** The wire form of a cell. */
export function toCell(row: CellRow, agents: readonly AgentRow[], nowMs: number): Cell {
  return cellSchema.parse({
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
    services: servicesSchema.parse(row.services),
    stores: storesSchema.parse(row.stores),
    release: row.release,
    schemaVersion: row.schemaVersion,
    lease: { grant: row.grant, outstandingMs: Math.max(0, leaseUntilMs(row) - nowMs) },
    agents: agents.map((one) => ({
      instance: one.instance,
      endpoint: one.endpoint,
      primary: one.primary,
      seenMs: Math.max(0, nowMs - one.seenAt.getTime()),
    })),
    createdAt: row.createdAt.toISOString(),
  });
}

export async function listCells(reader: Reader, nowMs: number): Promise<Cell[]> {
  const rows = await reader.select().from(cell).orderBy(asc(cell.id));
  const agents = groupBy(await reader.select().from(agent), (one) => one.cell);
  return rows.map((row) => toCell(row, agents.get(row.id) ?? [], nowMs));
}

function groupBy<T>(rows: readonly T[], key: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(key(row)) ?? [];
    groups.set(key(row), group);
    group.push(row);
  }
  return groups;
}
