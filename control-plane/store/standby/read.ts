/** Reads standbys and open failovers as decisions want them. */
import { and, eq, inArray, ne, or, type SQL, sql } from "drizzle-orm";
import { type FailoverStep, failoverSteps } from "../../../contract/failover-api.ts";
import { type RoutedKeyspace, routedKeyspaceSchema } from "../../../contract/routing-table.ts";
import type { StandbyView, TakeoverView } from "../../core/standby/standby-view.ts";
import type { Reader } from "../database.ts";
import { moveKind } from "../moves/read.ts";
import { agent, cell, keyspace, op, placement } from "../schema.ts";
import { move } from "../schema-moves.ts";
import { failover, standby } from "../schema-standby.ts";

/** All that are not history. */
export const readStandbys = (reader: Reader): Promise<StandbyView[]> =>
  readWhere(reader, ne(standby.state, "gone"));

export async function findStandby(reader: Reader, annex: string): Promise<StandbyView | undefined> {
  const [one] = await readWhere(reader, eq(standby.annex, annex));
  return one;
}

async function readWhere(reader: Reader, which: SQL | undefined): Promise<StandbyView[]> {
  const rows = await reader
    .select({ row: standby, cellProvider: cell.provider, warm: isWarm })
    .from(standby)
    .innerJoin(cell, eq(cell.id, standby.annex))
    .where(which)
    .orderBy(standby.origin, standby.bucketLo, standby.annex);
  const keys = await keysOf(
    reader,
    rows.map(({ row }) => row.annex),
  );
  return rows.map(({ row, cellProvider, warm }) => ({
    ...toView(row, cellProvider),
    ...{ keys: keys.get(row.annex) ?? 0, warm },
  }));
}

const isWarm = sql<boolean>`exists (
  select from ${agent} where ${agent.cell} = ${standby.annex} and ${agent.primary} and ${agent.appReachable})`;

async function keysOf(reader: Reader, annexes: readonly string[]): Promise<Map<string, number>> {
  if (annexes.length === 0) return new Map();
  const rows = await reader
    .select({ cell: placement.cell, keys: sql<number>`count(*)::int` })
    .from(placement)
    .where(and(inArray(placement.cell, [...annexes]), eq(placement.deleted, false)))
    .groupBy(placement.cell);
  return new Map(rows.map((row) => [row.cell, row.keys]));
}

const takeover = (name: string | null, attempt: number, open: boolean): TakeoverView | null =>
  name === null ? null : { failover: name, attempt, open };

const toView = (
  row: typeof standby.$inferSelect,
  cellProvider: string,
): Omit<StandbyView, "keys" | "warm"> => ({
  annex: row.annex,
  origin: row.origin,
  host: row.host,
  generation: row.generation,
  provider: row.provider,
  buckets: { lo: row.bucketLo, hi: row.bucketHi },
  state: row.state,
  reason: row.reason,
  listedAt: row.listedAt,
  unlistedAt: row.unlistedAt,
  lagBytes: row.lagBytes,
  heartbeatAgeMs: row.heartbeatAgeMs,
  sees: row.sees,
  promiseRemainingMs: row.promiseRemainingMs,
  reportedAtMs: row.reportedAt?.getTime() ?? null,
  order: takeover(row.orderFailover, row.orderAttempt, row.orderOpen),
  takeover: takeover(row.takeoverFailover, row.takeoverAttempt, row.takeoverOpen),
  severedAtMs: row.severedAt?.getTime() ?? null,
  remoteLsn: row.remoteLsn,
  createdAtMs: row.createdAt.getTime(),
  changedAtMs: row.updatedAt.getTime(),
  byHand: cellProvider === "none",
});

/** Open failovers by cell: how far each is. */
export async function openFailovers(reader: Reader): Promise<Map<string, FailoverStep>> {
  const rows = await reader
    .select({ cell: failover.cell, step: op.step })
    .from(failover)
    .innerJoin(op, eq(op.id, failover.op))
    .where(eq(failover.open, true));
  return new Map(
    rows.map(({ cell: id, step }) => [
      id,
      failoverSteps.find((one) => one === step) ?? "confirmed",
    ]),
  );
}

/** Open moves from or to each of these cells. */
export async function openMovesAt(
  reader: Reader,
  cells: readonly string[],
): Promise<Map<string, number>> {
  if (cells.length === 0) return new Map();
  const rows = await reader
    .select({ source: move.source, target: move.target })
    .from(op)
    .innerJoin(move, eq(move.op, op.id))
    .where(
      and(
        eq(op.kind, moveKind),
        inArray(op.state, ["pending", "running"]),
        or(inArray(move.source, [...cells]), inArray(move.target, [...cells])),
      ),
    );
  const counts = new Map<string, number>();
  for (const id of rows.flatMap(({ source, target }) => [source, target])) {
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return counts;
}

export type PartnerNumbers = { readonly told: number; readonly acked: number };

/** The partner lists of all cells: what each is told, and what each has stored. */
export async function readPartnerNumbers(reader: Reader): Promise<Map<string, PartnerNumbers>> {
  const rows = await reader
    .select({ id: cell.id, told: cell.partnerRevision, acked: cell.partnerAcked })
    .from(cell);
  return new Map(rows.map(({ id, told, acked }) => [id, { told, acked }]));
}

export async function routedKeyspaces(reader: Reader): Promise<RoutedKeyspace[]> {
  const rows = await reader.select().from(keyspace).orderBy(keyspace.name);
  return rows.map(({ name, strategy, slotCount, guardMode }) =>
    routedKeyspaceSchema.parse({
      ...{ name, strategy, guardMode },
      ...(slotCount === null ? {} : { slotCount }),
    }),
  );
}

/** Annexes whose rows are in a server that follows their origin's: what is to be seen there is the origin's. */
export async function followerIds(reader: Reader): Promise<ReadonlySet<string>> {
  const { rows } = await reader.execute<{ annex: string }>(sql`
    select annex from cellfleet_control.standby where provider = 'physical' and state not in ('adopted', 'gone')`);
  return new Set(rows.map(({ annex }) => annex));
}
