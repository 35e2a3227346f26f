/**
 * How the leases of cells end, as it is recorded: what somebody wants, under a number, and what the cell's
 * database has acknowledged (core/lease-mode.ts).
 */
import { eq, or, sql } from "drizzle-orm";
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import { type LeaseMode, type LeaseModeWord, timedFromBirth } from "../../contract/lease-mode.ts";
import { hearLeaseMode, type LeaseModeView, wantLeaseMode } from "../core/lease-mode.ts";
import type { Reader, Tx } from "./database.ts";
import { cell } from "./schema.ts";

type LeaseModeColumns = {
  readonly leaseMode: LeaseMode;
  readonly leaseModeNumber: number;
  readonly leaseModeAcked: number;
};

export const leaseModeOf = (row: LeaseModeColumns): LeaseModeView => ({
  ...{ mode: row.leaseMode, number: row.leaseModeNumber, acked: row.leaseModeAcked },
});

export const leaseModeColumns = ({ mode, number, acked }: LeaseModeView): LeaseModeColumns => ({
  ...{ leaseMode: mode, leaseModeNumber: number, leaseModeAcked: acked },
});

/** Of a new cell: its database has not heard of it. */
export const bornWith = (mode: LeaseMode): LeaseModeColumns =>
  leaseModeColumns({ mode, number: mode === "timed" ? 0 : 1, acked: 0 });

/** What the primary agent says of its stores; only news is written. */
export async function recordLeaseMode(
  reader: Reader,
  said: AgentSyncRequest,
  known: LeaseModeView,
): Promise<void> {
  if (!said.primary || !said.database.reachable) return;
  const next = hearLeaseMode(known, said.leaseMode ?? timedFromBirth);
  if (next.mode === known.mode && next.number === known.number && next.acked === known.acked)
    return;
  // Somebody may have changed it since it was read: then the next call says it again.
  await reader.execute(sql`
    update cellfleet_control.cell set lease_mode = ${next.mode},
           lease_mode_number = ${next.number}, lease_mode_acked = ${next.acked}
     where id = ${said.cell} and lease_mode = ${known.mode} and lease_mode_number = ${known.number}`);
}

export type LeaseModeNews = { readonly word: LeaseModeWord; readonly isNews: boolean };

/** Undefined: nobody has ever said anything. An agent of an earlier release is told, and not waited for. */
export async function leaseModeWord(
  reader: Reader,
  said: AgentSyncRequest,
): Promise<LeaseModeNews | undefined> {
  if (!said.primary) return undefined;
  const { rows } = await reader.execute<LeaseModeWord>(sql`
    select lease_mode as mode, lease_mode_number::float8 as number
      from cellfleet_control.cell where id = ${said.cell} and lease_mode_number > 0`);
  const [word] = rows;
  if (word === undefined) return undefined;
  return { word, isNews: said.leaseMode !== undefined && said.leaseMode.number < word.number };
}

/** The cell, and the annexes that it hosts, which fall and stand with it. */
export async function setLeaseMode(tx: Tx, id: string, mode: LeaseMode): Promise<void> {
  const rows = await tx
    .select()
    .from(cell)
    .where(or(eq(cell.id, id), eq(cell.annexHost, id)))
    .orderBy(cell.id)
    .for("update");
  for (const row of rows) {
    const next = wantLeaseMode(leaseModeOf(row), mode);
    if (next === undefined) continue;
    await tx.update(cell).set(leaseModeColumns(next)).where(eq(cell.id, row.id));
  }
}

/** This control plane was restored: what a cell was told since, only the cell knows. */
export const forgetAcknowledged = (tx: Tx): Promise<unknown> =>
  tx.update(cell).set({ leaseModeAcked: -1 });
