/**
 * Ownership is taken away from a cell, and given back while nothing was severed (rule R3). Each is one
 * transaction, so a grant of its lease comes before or after it, never in between.
 */
import { and, eq, inArray, ne, sql } from "drizzle-orm";
import { manualLeaseMsMax } from "../../../contract/lease-mode.ts";
import { must } from "../../../runtime/assert.ts";
import type { AnnexFact, FailoverRun } from "../../core/failover/phases.ts";
import { type LastLease, leaseWaitMs, ownLeaseWaitMs } from "../../core/failover/stopped.ts";
import { countsAsManual, type LeaseModeView } from "../../core/lease-mode.ts";
import type { Reader, Tx } from "../database.ts";
import { changeRouting } from "../routing-change.ts";
import { cell, placement } from "../schema.ts";
import { standby } from "../schema-standby.ts";
import type { FailoverPatch } from "./enter.ts";
import { stopMovesBeforeCommit } from "./motion.ts";

/** Annexes of a cell that are not history, as a failover looks at them. */
export type AnnexRow = typeof standby.$inferSelect;

export const annexesOf = (reader: Reader, origin: string): Promise<AnnexRow[]> =>
  reader
    .select()
    .from(standby)
    .where(and(eq(standby.origin, origin), ne(standby.state, "gone")))
    .orderBy(standby.annex);

/**
 * May be adopted from: the origin has durably stored a list that names it, and none that leaves it out
 * (corrections A2). An annex that an earlier failover of the same cell ordered is one of them still.
 */
export function isAdoptable(row: AnnexRow, partnerAcked: number): boolean {
  const isListed = row.listedAt !== null && row.listedAt <= partnerAcked && row.unlistedAt === null;
  return isListed && ["ready", "adopting", "adopted"].includes(row.state);
}

/** How far back the database's word about the age of a grant is believed. */
export type SteadyMs = (ageMs: number) => number;

/** All of REVOKING. From its commit on no lease is granted, and routers pass no answer of the cell on. */
export async function revokeCell(
  tx: Tx,
  run: FailoverRun,
  attempt: number,
  steadyMs: SteadyMs,
): Promise<FailoverPatch> {
  await changeRouting(tx, { config: true });
  const [before] = await tx
    .select({ state: cell.state, goal: cell.goal, acked: cell.partnerAcked })
    .from(cell)
    .where(eq(cell.id, run.cell))
    .for("update");
  const was = must(before, `cell ${run.cell}`);
  await tx
    .update(cell)
    .set({ revoking: true, halted: true, state: "quarantined", goal: "quarantined" })
    .where(eq(cell.id, run.cell));
  await stopMovesBeforeCommit(tx, run.cell, `${run.cell} is failed over (${run.id})`);
  const annexes = await orderTakeover(tx, run, attempt, was.acked);
  return {
    revoked: true,
    evidence: {
      before: { state: was.state, goal: was.goal },
      lease: await readLease(tx, run.cell, steadyMs),
      annexes,
    },
    progress: { ...run.progress, keys: await ownedKeys(tx, run.cell) },
  };
}

/** While nothing is granted: how long the last grant may still be used, from now on. */
async function readLease(
  tx: Tx,
  id: string,
  steadyMs: SteadyMs,
): Promise<NonNullable<FailoverRun["evidence"]["lease"]>> {
  const { rows } = await tx.execute<{
    ttlMs: number;
    sinceGrantMs: number | null;
    mode: LeaseModeView;
  }>(sql`
    select lease_ttl_ms as "ttlMs",
           jsonb_build_object('mode', lease_mode, 'number', lease_mode_number,
                              'acked', lease_mode_acked) as mode,
           extract(epoch from clock_timestamp() - lease_granted_at)::float8 * 1000 as "sinceGrantMs"
      from cellfleet_control.cell where id = ${id}`);
  const { ttlMs, sinceGrantMs, mode } = must(rows[0], `cell ${id}`);
  const lease: LastLease = {
    ...{ ttlMs, sinceGrantMs },
    steadyMs: sinceGrantMs === null ? 0 : steadyMs(sinceGrantMs),
  };
  const ownMs = countsAsManual(mode) ? ownLeaseWaitMs(manualLeaseMsMax) : 0;
  return { ttlMs, sinceGrantMs, waitMs: Math.max(leaseWaitMs(lease), ownMs) };
}

const ownedKeys = (tx: Tx, id: string): Promise<number> =>
  tx.$count(placement, and(eq(placement.cell, id), eq(placement.deleted, false)));

/** Every annex that the origin may ask for a promise is told to give none: only some are adopted from. */
async function orderTakeover(
  tx: Tx,
  run: FailoverRun,
  attempt: number,
  partnerAcked: number,
): Promise<Record<string, AnnexFact>> {
  const rows = (await annexesOf(tx, run.cell)).filter(
    ({ state }) => !["planned", "dropping"].includes(state),
  );
  const apart = await keptApart(tx);
  const facts: Record<string, AnnexFact> = {};
  for (const row of rows) {
    const isApart = apart.has(row.host);
    const fit = isAdoptable(row, partnerAcked) && !isApart;
    const reason = isApart
      ? `its host ${row.host} is quarantined`
      : `it was ${row.state}${why(row, partnerAcked)}`;
    facts[row.annex] = fit ? { status: "ordered", reason: "" } : { status: "left-out", reason };
    await tx
      .update(standby)
      .set({
        ...{ orderFailover: run.id, orderAttempt: attempt, orderOpen: false },
        orderProved: false,
        ...(fit ? { state: "adopting" as const, reason: `${run.id} takes its keys` } : {}),
        updatedAt: sql`clock_timestamp()`,
      })
      .where(eq(standby.annex, row.annex));
  }
  await wakeAnnexes(tx);
  return facts;
}

/**
 * A host that was set back in time has copies with a hole: what arrived in between is not sent again, and
 * the stream's position goes on as if it were there, so no report could name it.
 */
async function keptApart(tx: Tx): Promise<ReadonlySet<string>> {
  const rows = await tx.select({ id: cell.id }).from(cell).where(eq(cell.state, "quarantined"));
  return new Set(rows.map(({ id }) => id));
}

function why(row: AnnexRow, acked: number): string {
  if (row.unlistedAt !== null) return " and its origin was told to forget it";
  if (row.listedAt === null || row.listedAt > acked) {
    return " and its origin had not acknowledged a list that names it";
  }
  return row.reason === "" ? "" : `: ${row.reason}`;
}

/** Agents wait for news of the routing log. */
const wakeAnnexes = (tx: Tx): Promise<unknown> => changeRouting(tx, { config: false });

/**
 * A new executor goes on: what an earlier attempt ordered is ordered again, so that its answers are new,
 * and the lease is waited out in full, unless it is certainly over.
 */
export async function orderAgain(
  tx: Tx,
  run: FailoverRun,
  attempt: number,
  steadyMs: SteadyMs,
): Promise<FailoverPatch> {
  await wakeAnnexes(tx);
  await tx
    .update(standby)
    .set({ orderAttempt: attempt, updatedAt: sql`clock_timestamp()` })
    .where(and(eq(standby.origin, run.cell), eq(standby.orderFailover, run.id)));
  return { evidence: { lease: await readLease(tx, run.cell, steadyMs) } };
}

/** What the executor's wait is made of, as the annexes said it last. */
export type StoppingRow = {
  readonly annex: string;
  readonly recorded: boolean;
  readonly open: boolean;
  readonly promiseRemainingMs: number;
};

export async function readOrders(
  reader: Reader,
  run: Pick<FailoverRun, "id" | "cell">,
  attemptMin: number,
): Promise<StoppingRow[]> {
  const rows = await annexesOf(reader, run.cell);
  return rows
    .filter(({ orderFailover }) => orderFailover === run.id)
    .map((row) => ({
      annex: row.annex,
      recorded: row.takeoverFailover === run.id && row.takeoverAttempt >= attemptMin,
      open: row.takeoverFailover === run.id && row.takeoverOpen,
      promiseRemainingMs: row.promiseRemainingMs,
    }));
}

/** SEVERED: the streams are cut, the old owner has stopped; keys may become active there from now on. */
export async function openOrders(tx: Tx, run: FailoverRun): Promise<void> {
  // It ends what was promised there, too: nothing of the origin runs any more.
  const proved = run.provedDead || (run.evidence.proof ?? "") !== "";
  for (const [annex, fact] of Object.entries(run.evidence.annexes)) {
    if (fact.status !== "severed") continue;
    const lsns = fact.severed?.stores ?? [];
    await tx
      .update(standby)
      .set({
        ...{ orderOpen: true, orderProved: proved, severedAt: sql`clock_timestamp()` },
        remoteLsn: lsns.map(({ remoteLsn }) => remoteLsn).find((lsn) => lsn !== null) ?? null,
        updatedAt: sql`clock_timestamp()`,
      })
      .where(and(eq(standby.annex, annex), eq(standby.orderFailover, run.id)));
  }
}

/** Before anything was severed: the cell may have its lease again, and its annexes follow it as before. */
export async function giveBackCell(tx: Tx, run: FailoverRun): Promise<FailoverPatch> {
  await changeRouting(tx, { config: true });
  const { state, goal } = stateBefore(run);
  await tx
    .update(cell)
    .set({ revoking: false, halted: false, state, goal })
    .where(eq(cell.id, run.cell));
  const ordered = and(eq(standby.origin, run.cell), eq(standby.orderFailover, run.id));
  // In step again or not, and announced or not: its keeper looks.
  await tx
    .update(standby)
    .set({ state: "announcing", reason: "", updatedAt: sql`clock_timestamp()` })
    .where(and(ordered, eq(standby.state, "adopting")));
  // Without an order it is told that the one which it has recorded is withdrawn.
  await tx.update(standby).set({ orderFailover: null, orderOpen: false }).where(ordered);
  return { wish: "none" };
}

const livingStates = ["active", "cordoned", "draining"] as const;

function stateBefore(run: FailoverRun): {
  state: (typeof livingStates)[number];
  goal: (typeof livingStates)[number];
} {
  const found = (raw: string | undefined) => livingStates.find((one) => one === raw) ?? "cordoned";
  return { state: found(run.evidence.before?.state), goal: found(run.evidence.before?.goal) };
}

/** Mode planned: nobody is placed there any more; it serves until its last tenant has left. */
export async function cordonCell(tx: Tx, run: FailoverRun): Promise<FailoverPatch> {
  await changeRouting(tx, { config: false });
  const [was] = await tx
    .select({ state: cell.state, goal: cell.goal })
    .from(cell)
    .where(eq(cell.id, run.cell))
    .for("update");
  const before = must(was, `cell ${run.cell}`);
  if (before.state === "active") {
    await tx.update(cell).set({ state: "cordoned", goal: "cordoned" }).where(eq(cell.id, run.cell));
  }
  return {
    evidence: { before },
    progress: { ...run.progress, keys: await ownedKeys(tx, run.cell) },
  };
}

/** A planned failover is called off: what has left stays where it is. */
export async function uncordonCell(tx: Tx, run: FailoverRun): Promise<FailoverPatch> {
  await changeRouting(tx, { config: false });
  if (run.evidence.before?.state === "active") {
    await tx
      .update(cell)
      .set({ state: "active", goal: "active" })
      .where(and(eq(cell.id, run.cell), eq(cell.state, "cordoned")));
  }
  return { wish: "none" };
}

/** Their keeper removes them when their keys are in whole cells. */
export async function markAdopted(tx: Tx, annexes: readonly string[], id: string): Promise<void> {
  if (annexes.length === 0) return;
  await tx
    .update(standby)
    .set({ state: "adopted", reason: `${id} gave it keys`, updatedAt: sql`clock_timestamp()` })
    .where(and(inArray(standby.annex, [...annexes]), eq(standby.orderFailover, id)));
}
