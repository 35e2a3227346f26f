/**
 * Placements and the room they take. Every writer has locked the fleet row before, so two of these
 * never run at once; the conditions in the statements hold all the same.
 */
import { and, desc, eq, inArray, ne, sql } from "drizzle-orm";
import { CellError } from "../../contract/errors.ts";
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";
import { slotKey, slotOf } from "../../contract/placement-key.ts";
import type { KeyspaceView, PlacementView } from "../core/fleet.ts";
import type { Reader, Tx } from "./database.ts";
import { cell, placement, tenant } from "./schema.ts";

export type PlacementRow = typeof placement.$inferSelect;

export const toPlacementView = (row: PlacementRow): PlacementView => ({
  key: row.key,
  cell: row.cell,
  epoch: row.epoch,
  state: row.state,
  revision: row.revision,
  deleted: row.deleted,
});

export async function findPlacement(
  reader: Reader,
  key: string,
): Promise<PlacementRow | undefined> {
  const [row] = await reader.select().from(placement).where(eq(placement.key, key));
  return row;
}

/** The container that a tenant of a slots or range keyspace belongs to; undefined in a directory. */
export async function findContainer(
  reader: Reader,
  keyspace: KeyspaceView,
  name: KeyspaceName,
  tenantId: TenantId,
): Promise<PlacementRow | undefined> {
  if (keyspace.strategy === "directory") return undefined;
  if (keyspace.strategy === "slots") {
    return findPlacement(reader, slotKey(name, slotOf(tenantId, keyspace.slotCount ?? 1)));
  }
  const [row] = await reader
    .select()
    .from(placement)
    .where(
      and(
        eq(placement.keyspace, name),
        eq(placement.kind, "range"),
        eq(placement.deleted, false),
        sql`${placement.value} collate "C" <= ${tenantId} collate "C"`,
      ),
    )
    .orderBy(desc(sql`${placement.value} collate "C"`))
    .limit(1);
  return row;
}

export type Load = { readonly tenants: number; readonly bytes: number; readonly rps: number };

/**
 * Takes room in a cell. Throws CAPACITY_EXHAUSTED: the filters have said yes before, under the same
 * lock, so that means that somebody writes without it.
 */
export async function reserve(tx: Tx, cellId: string, load: Load): Promise<void> {
  const rows = await tx
    .update(cell)
    .set({
      usedTenants: sql`${cell.usedTenants} + ${load.tenants}`,
      usedBytes: sql`${cell.usedBytes} + ${load.bytes}`,
      usedRps: sql`${cell.usedRps} + ${load.rps}`,
    })
    .where(
      and(
        eq(cell.id, cellId),
        sql`${cell.usedTenants} + ${load.tenants} <= ${cell.capacityTenants}`,
        sql`${cell.usedBytes} + ${load.bytes} <= ${cell.capacityBytes}`,
        sql`${cell.usedRps} + ${load.rps} <= ${cell.capacityRps}`,
      ),
    )
    .returning({ id: cell.id });
  if (rows.length === 0) {
    throw new CellError(
      "CAPACITY_EXHAUSTED",
      `${cellId} has no room for ${load.tenants} tenants more.`,
    );
  }
}

async function release(tx: Tx, cellId: string, load: Load): Promise<void> {
  await tx
    .update(cell)
    .set({
      usedTenants: sql`greatest(0, ${cell.usedTenants} - ${load.tenants})`,
      usedBytes: sql`greatest(0, ${cell.usedBytes} - ${load.bytes})`,
      usedRps: sql`greatest(0, ${cell.usedRps} - ${load.rps})`,
    })
    .where(eq(cell.id, cellId));
}

export type NewPlacement = Pick<PlacementRow, "key" | "keyspace" | "kind" | "value" | "cell"> & {
  readonly op: string;
  readonly revision: number;
  /** At least this; a tombstone of the same key raises it further. */
  readonly epochMin: number;
};

/**
 * A placement that waits for its cell. Where the key existed before, the row goes on at a greater
 * epoch: an epoch never falls, also not for an id that is created a second time.
 */
export async function insertPending(tx: Tx, fresh: readonly NewPlacement[]): Promise<void> {
  const batch = 5000;
  for (let at = 0; at < fresh.length; at += batch) {
    const values = fresh
      .slice(at, at + batch)
      .map(({ epochMin, ...row }) => ({ ...row, epoch: epochMin, state: "pending" as const }));
    await tx
      .insert(placement)
      .values(values)
      .onConflictDoUpdate({
        target: placement.key,
        set: {
          cell: sql`excluded.cell`,
          epoch: sql`greatest(${placement.epoch} + 1, excluded.epoch)`,
          state: "pending",
          revision: sql`excluded.revision`,
          op: sql`excluded.op`,
          attempt: 0,
          deleted: false,
        },
        setWhere: eq(placement.deleted, true),
      });
  }
}

/** A tombstone: routers forget the key, its cell drops it. */
export async function tombstone(
  tx: Tx,
  keys: readonly string[],
  how: { readonly revision: number; readonly op: string; readonly attempt: number },
): Promise<void> {
  await tx
    .update(placement)
    .set({ deleted: true, state: "unavailable", ...how })
    .where(inArray(placement.key, [...keys]));
}

/** What an operation placed and no cell has applied yet. */
export const pendingOf = (tx: Tx, op: string): Promise<PlacementRow[]> =>
  tx
    .select()
    .from(placement)
    .where(and(eq(placement.op, op), eq(placement.state, "pending")))
    .for("update");

/** Tenants placed under these keys are removed and their room is given back. */
export async function removeTenantsUnder(tx: Tx, rows: readonly PlacementRow[]): Promise<void> {
  for (const row of rows) {
    const gone = await tx.delete(tenant).where(eq(tenant.placementKey, row.key)).returning();
    await release(tx, row.cell, {
      tenants: gone.length,
      bytes: gone.reduce((sum, one) => sum + Math.max(one.sizeBytes, one.measuredBytes), 0),
      rps: gone.reduce((sum, one) => sum + Math.max(one.sizeRps, one.measuredRps), 0),
    });
  }
}

/** The books about a cell that leaves the fleet: what is placed there is nobody's any more. */
export async function forgetPlaced(tx: Tx, cellId: string, revision: number): Promise<void> {
  const here = and(
    eq(placement.cell, cellId),
    eq(placement.deleted, false),
    // A deletion goes on, and ends by itself.
    ne(placement.state, "deleting"),
  );
  await tx
    .delete(tenant)
    .where(
      inArray(tenant.placementKey, tx.select({ key: placement.key }).from(placement).where(here)),
    );
  await tx.update(placement).set({ deleted: true, state: "unavailable", revision }).where(here);
}

/**
 * What a cell owns: keys that are not tombstones, and tenants under them. What is being deleted is not
 * counted: a cell that will never come back can be destroyed, and the deletion ends with it.
 */
export async function ownedBy(
  reader: Reader,
  cellId: string,
): Promise<{ readonly keys: number; readonly tenants: number }> {
  const keys = await reader.$count(
    placement,
    and(eq(placement.cell, cellId), eq(placement.deleted, false), ne(placement.state, "deleting")),
  );
  const tenants = await reader.$count(
    tenant,
    inArray(
      tenant.placementKey,
      reader
        .select({ key: placement.key })
        .from(placement)
        .where(and(eq(placement.cell, cellId), ne(placement.state, "deleting"))),
    ),
  );
  return { keys, tenants };
}
