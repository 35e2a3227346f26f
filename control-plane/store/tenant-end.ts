/**
 * The states of one placement that an operator asks for (suspended, held on the way back, deleting),
 * and the end of a tenant: purges that cells have to confirm, the tombstone, the receipt.
 *
 * A key of a directory is dropped and forgotten. An override of slots or ranges must not be: its
 * container would serve the tenant again. It stays fenced in its cell and suspended at the routers.
 */
import { and, desc, eq, sql } from "drizzle-orm";
import { z } from "zod";
import { type Receipt, receiptSchema } from "../../contract/adoption-api.ts";
import {
  type AgentSyncRequest,
  type OwnershipChange,
  type OwnershipState,
  ownershipChangeSchema,
} from "../../contract/cell-protocol.ts";
import { type PlacementState, placementStates } from "../../contract/control-api.ts";
import { must } from "../../runtime/assert.ts";
import type { OpView } from "../core/fleet.ts";
import { ownershipOf } from "../core/ownership-view.ts";
import { Abandoned } from "./abandoned.ts";
import { releaseClaimsOf } from "./claims.ts";
import type { Reader, Tx } from "./database.ts";
import { findPlacement, removeTenantsUnder } from "./placements.ts";
import { changeRouting } from "./routing-change.ts";
import { cell, keyspace, op as opTable, placement } from "./schema.ts";
import { purge, tombstone } from "./schema-adoption.ts";

/** Purges told in one answer; the others come when these are confirmed. */
const openPurgesMax = 500;
const placementStateSchema = z.enum(placementStates);

/** Told to its cell and the routers, as the first word of an operation. Returns the revision. */
export async function markPlacement(
  tx: Tx,
  key: string,
  state: PlacementState,
  opId: string,
): Promise<number> {
  const revision = await changeRouting(tx, { config: false });
  await tx
    .update(placement)
    .set({ state, revision, op: opId, attempt: 0 })
    .where(eq(placement.key, key));
  return revision;
}

/** A later word of the same operation. */
export async function setKeyState(
  tx: Tx,
  change: { readonly key: string; readonly from: PlacementState; readonly to: PlacementState },
): Promise<void> {
  const revision = await changeRouting(tx, { config: false });
  const rows = await tx
    .update(placement)
    .set({ state: change.to, revision, attempt: sql`${placement.attempt} + 1` })
    .where(and(eq(placement.key, change.key), eq(placement.state, change.from)))
    .returning({ key: placement.key });
  if (rows.length === 0) throw new Abandoned("raced");
}

/**
 * Asks every cell that has ever spoken to us, or owns the key, to remove the rows. Repeated, it asks
 * those that have not confirmed. The owner is told by its placement, the others as losers of the key.
 */
export async function askPurge(tx: Tx, key: string, op: OpView): Promise<void> {
  const revision = await changeRouting(tx, { config: false });
  await tx.execute(sql`
    insert into cellfleet_control.purge (op, cell, key)
    select ${op.id}, c.id, ${key} from cellfleet_control.cell as c
     where (c.state <> 'retired'
       and (exists (select 1 from cellfleet_control.agent as a where a.cell = c.id)
            or c.grant_no > 0 or c.applied_revision > 0
            or c.id = (select p.cell from cellfleet_control.placement as p where p.key = ${key})))
       -- Destroyed since it was asked for: nobody confirms that any more, and the receipt says so.
       or (c.state = 'retired' and exists (
         select from cellfleet_control.op as d
           join cellfleet_control.op as mine on mine.id = ${op.id}
          where d.kind = 'cell.destroy' and d.object = c.id and d.updated_at >= mine.created_at))
    on conflict (op, cell) do nothing`);
  // Asked again because a cell obeys but does not confirm, an older command may stand in the way there
  // (after a recovery): a new epoch is above it.
  const again = op.step === "purging" ? 1 : 0;
  await tx
    .update(placement)
    .set({
      revision,
      op: op.id,
      epoch: sql`${placement.epoch} + ${again}::integer`,
      attempt: sql`${placement.attempt} + 1`,
    })
    .where(eq(placement.key, key));
  await tx.execute(sql`
    insert into cellfleet_control.disowned as d (cell, key, state, epoch, op, attempt, revision)
    select u.cell, u.key, 'dropped', p.epoch, ${op.id}, p.attempt, ${revision}
      from cellfleet_control.purge as u
      join cellfleet_control.placement as p on p.key = u.key and p.cell <> u.cell
      join cellfleet_control.cell as c on c.id = u.cell and c.state <> 'retired'
     where u.op = ${op.id} and u.confirmed_at is null
    on conflict (cell, key) do update set state = 'dropped', epoch = greatest(d.epoch, excluded.epoch),
      op = excluded.op, attempt = excluded.attempt, revision = excluded.revision`);
}

/**
 * What a cell has not confirmed yet, told with every answer: an agent that was started again remembers
 * no purge. As the cell was told it with the change of ownership, so that it knows the command again.
 */
export async function readOpenPurges(reader: Reader, cellId: string): Promise<OwnershipChange[]> {
  const { rows } = await reader.execute<{
    key: string;
    own: boolean;
    state: OwnershipState | PlacementState;
    epoch: number;
    op: string;
    attempt: number;
  }>(sql`
    select u.key, d.key is null as own, coalesce(d.state, p.state) as state,
           coalesce(d.epoch, p.epoch)::float8 as epoch, u.op, coalesce(d.attempt, p.attempt) as attempt
      from cellfleet_control.purge as u
      left join cellfleet_control.placement as p on p.key = u.key and p.cell = u.cell and p.op = u.op
      left join cellfleet_control.disowned as d
        on d.key = u.key and d.cell = u.cell and d.op = u.op and p.key is null
     where u.cell = ${cellId} and u.confirmed_at is null and (p.key is not null or d.key is not null)
     order by u.op limit ${openPurgesMax}`);
  return rows.map(({ own, state, ...row }) =>
    ownershipChangeSchema.parse({
      ...row,
      state: own
        ? ownershipOf({ state: placementStateSchema.parse(state), deleted: false })
        : state,
      purge: true,
    }),
  );
}

/** What agents report as removed, until it is answered; the first word counts. */
export async function recordPurged(
  reader: Reader,
  cellId: string,
  purged: NonNullable<AgentSyncRequest["purged"]>,
): Promise<void> {
  for (const { key, op, rows } of purged) {
    await reader.execute(sql`
      update cellfleet_control.purge set rows = ${JSON.stringify(rows)}::jsonb,
             confirmed_at = clock_timestamp()
       where op = ${op} and cell = ${cellId} and key = ${key} and confirmed_at is null`);
  }
}

/** All have confirmed. Forgets the tenant, gives back what it took, completes the receipt. */
export async function erase(
  tx: Tx,
  key: string,
  op: OpView,
  nowMs: number,
): Promise<{ readonly receipt: Receipt }> {
  const revision = await changeRouting(tx, { config: false });
  const row = must(await findPlacement(tx, key), `placement ${key}`);
  const released = await releaseClaimsOf(tx, row.keyspace, row.value, revision);
  await removeTenantsUnder(tx, [row]);
  const [home] = await tx.select().from(keyspace).where(eq(keyspace.name, row.keyspace));
  if (home?.strategy === "directory") {
    await tx.update(placement).set({ deleted: true, revision }).where(eq(placement.key, key));
  }
  const at = new Date(nowMs);
  const draft = must(await readReceipt(tx, row.value), `receipt of ${key}`);
  const receipt: Receipt = {
    ...draft,
    complete: true,
    completedAt: at.toISOString(),
    claims: released,
  };
  await tx
    .update(tombstone)
    .set({ receipt, deletedAt: at })
    .where(and(eq(tombstone.tenant, row.value), eq(tombstone.op, op.id)));
  return { receipt };
}

/** Tenants whose deletion waits, or will, until this cell confirms it. */
export async function deletionsAwaiting(reader: Reader, cellId: string): Promise<string[]> {
  const { rows } = await reader.execute<{ object: string }>(sql`
    select o.object from cellfleet_control.op as o
     where o.kind = 'tenant.delete' and o.state in ('pending', 'running')
       -- Every cell is asked, once nobody serves the tenant any more.
       and (o.step = 'fencing' or exists (
         select from cellfleet_control.purge as u
          where u.op = o.id and u.cell = ${cellId} and u.confirmed_at is null))
     order by o.id`);
  return rows.map(({ object }) => object);
}

/** From the record on the id is spent. */
export const bury = (
  tx: Tx,
  spent: { readonly keyspace: string; readonly tenant: string; readonly op: string },
): Promise<unknown> => tx.insert(tombstone).values(spent);

export const isSpent = async (reader: Reader, tenantId: string): Promise<boolean> =>
  (await reader.$count(tombstone, eq(tombstone.tenant, tenantId))) > 0;

export const backupsNote =
  "Backups, WAL archives and logs of the cells' databases are not reached by this; they end by their own retention.";

/** An agent counts what its own process removed, and remembers nothing across a restart. */
const countsNote =
  "Counts of removed rows are at least: what an agent removed before it was started again in the middle is not in them. That no row is left was counted in the end.";

/** Complete, or as far as the deletion has come; undefined: nobody with this id was deleted. */
export async function readReceipt(reader: Reader, tenantId: string): Promise<Receipt | undefined> {
  const [grave] = await reader.select().from(tombstone).where(eq(tombstone.tenant, tenantId));
  if (grave === undefined) return undefined;
  const whole = receiptSchema.safeParse(grave.receipt);
  if (whole.success) return whole.data;
  const [by] = await reader.select().from(opTable).where(eq(opTable.id, grave.op));
  const rows = await reader
    .select({ purge, state: cell.state, provider: cell.provider })
    .from(purge)
    .innerJoin(cell, eq(cell.id, purge.cell))
    .where(eq(purge.op, grave.op))
    .orderBy(purge.cell);
  return receiptSchema.parse({
    tenant: grave.tenant,
    keyspace: grave.keyspace,
    key: `${grave.keyspace}/tenant/${grave.tenant}`,
    op: grave.op,
    complete: false,
    requestedAt: (by?.createdAt ?? grave.deletedAt).toISOString(),
    completedAt: null,
    cells: rows.map(({ purge: { cell: id, confirmedAt, rows: removed }, state }) => ({
      cell: id,
      state: confirmedAt !== null ? "purged" : state === "retired" ? "retired" : "waiting",
      rows: removed ?? {},
      confirmedAt: confirmedAt?.toISOString() ?? null,
    })),
    claims: 0,
    notes: [backupsNote, countsNote, ...(await retiredNotes(reader, rows))],
  });
}

/** Of cells that were destroyed before they confirmed: who says that the rows are gone. */
async function retiredNotes(
  reader: Reader,
  rows: ReadonlyArray<{
    readonly purge: typeof purge.$inferSelect;
    readonly state: string;
    readonly provider: string;
  }>,
): Promise<string[]> {
  const notes: string[] = [];
  for (const { purge: asked, state, provider } of rows) {
    if (state !== "retired" || asked.confirmedAt !== null) continue;
    const id = asked.cell;
    const [by] = await reader
      .select()
      .from(opTable)
      .where(and(eq(opTable.object, id), eq(opTable.kind, "cell.destroy")))
      .orderBy(desc(opTable.id))
      .limit(1);
    if (provider !== "none") {
      notes.push(
        `${id} was destroyed (${by?.id ?? "no record"}) before it confirmed; its provider ${provider} removes its storage.`,
      );
    } else if (by?.input !== undefined && isStorageRemoved(by.input)) {
      notes.push(
        `The storage of ${id} was not removed by Cellfleet; ${by.actor} said on ${by.createdAt.toISOString()} that it is gone.`,
      );
    } else {
      notes.push(
        `${id} was destroyed before it confirmed; nobody said what became of its storage.`,
      );
    }
  }
  return notes;
}

const storageRemovedSchema = z.object({ storageRemoved: z.literal(true) });
export const isStorageRemoved = (input: unknown): boolean =>
  storageRemovedSchema.safeParse(input).success;
