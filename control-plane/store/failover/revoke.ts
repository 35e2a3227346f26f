/**
 * Ownership is taken away from a cell, and given back while nothing was severed (rule R3). Each is one
 * transaction, so a grant of its lease comes before or after it, never in between.
 */
import { and, eq, inArray, ne, sql } from "drizzle-orm";
import { must } from "../../../runtime/assert.ts";
import type { AnnexFact, FailoverRun } from "../../core/failover/phases.ts";
import { type LastLease, leaseWaitMs } from "../../core/failover/stopped.ts";
import type { Reader, Tx } from "../database.ts";
import { changeRouting } from "../routing-change.ts";
import { cell } from "../schema.ts";
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

/** All of REVOKING. From its commit on no lease is granted, and routers pass no answer of the cell on. */
export async function revokeCell(
  tx: Tx,
  run: FailoverRun,
  attempt: number,
  steadyMs: (ageMs: number) => number,
): Promise<FailoverPatch> {
  const revision = await changeRouting(tx, { config: true });
  const { rows } = await tx.execute<{
    state: string;
    goal: string;
    acked: number;
    ttl_ms: number;
    since_ms: number | null;
  }>(sql`
    select state, goal, partner_acked::float8 as acked, lease_ttl_ms as ttl_ms,
           extract(epoch from clock_timestamp() - lease_granted_at)::float8 * 1000 as since_ms
      from cellfleet_control.cell where id = ${run.cell} for update`);
  const before = must(rows[0], `cell ${run.cell}`);
  await tx
    .update(cell)
    .set({ ...{ revoking: true, halted: true }, ...{ state: "quarantined", goal: "quarantined" } })
    .where(eq(cell.id, run.cell));
  await stopMovesBeforeCommit(tx, run.cell, `${run.cell} is failed over (${run.id})`);
  const annexes = await orderTakeover(tx, run, attempt, before.acked);
  const lease = leaseOf(before.ttl_ms, before.since_ms, steadyMs);
  const known = run.evidence.before;
  return {
    revoked: true,
    evidence: {
      ...run.evidence,
      // A second failover of the same cell finds what the first one made of it.
      before: known ?? { state: before.state, goal: before.goal },
      lease: { ...lease, waitMs: leaseWaitMs(lease) },
      annexes,
    },
    progress: { ...run.progress, keys: await keysOf(tx, run.cell, revision) },
  };
}

function leaseOf(
  ttlMs: number,
  sinceMs: number | null,
  steadyMs: (ageMs: number) => number,
): LastLease {
  const sinceGrantMs = sinceMs;
  return { ttlMs, sinceGrantMs, steadyMs: sinceGrantMs === null ? 0 : steadyMs(sinceGrantMs) };
}

async function keysOf(tx: Tx, id: string, upTo: number): Promise<number> {
  const { rows } = await tx.execute<{ keys: number }>(sql`
    select count(*)::int as keys from cellfleet_control.placement
     where cell = ${id} and not deleted and revision <= ${upTo}`);
  return rows[0]?.keys ?? 0;
}

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
  const facts: Record<string, AnnexFact> = {};
  for (const row of rows) {
    const fit = isAdoptable(row, partnerAcked);
    facts[row.annex] = fit
      ? { status: "ordered", reason: "" }
      : { status: "left-out", reason: `it was ${row.state}${why(row, partnerAcked)}` };
    await tx
      .update(standby)
      .set({
        ...{ orderFailover: run.id, orderAttempt: attempt, orderOpen: false },
        ...(fit ? { state: "adopting" as const, reason: `${run.id} takes its keys` } : {}),
        updatedAt: sql`clock_timestamp()`,
      })
      .where(eq(standby.annex, row.annex));
  }
  await wakeAnnexes(tx);
  return facts;
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

/** A new executor goes on: what an earlier attempt ordered is ordered again, so that its answers are new. */
export async function orderAgain(tx: Tx, run: FailoverRun, attempt: number): Promise<void> {
  await tx
    .update(standby)
    .set({ orderAttempt: attempt, updatedAt: sql`clock_timestamp()` })
    .where(and(eq(standby.origin, run.cell), eq(standby.orderFailover, run.id)));
  await wakeAnnexes(tx);
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
  for (const [annex, fact] of Object.entries(run.evidence.annexes)) {
    if (fact.status !== "severed") continue;
    const lsns = fact.severed?.stores ?? [];
    await tx
      .update(standby)
      .set({
        ...{ orderOpen: true, severedAt: sql`clock_timestamp()` },
        remoteLsn: lsns.map(({ remoteLsn }) => remoteLsn).find((lsn) => lsn !== null) ?? null,
        updatedAt: sql`clock_timestamp()`,
      })
      .where(and(eq(standby.annex, annex), eq(standby.orderFailover, run.id)));
  }
  await wakeAnnexes(tx);
}

/** Before anything was severed: the cell may have its lease again, and its annexes follow it as before. */
export async function giveBackCell(tx: Tx, run: FailoverRun): Promise<FailoverPatch> {
  await changeRouting(tx, { config: true });
  const { state, goal } = stateBefore(run);
  await tx
    .update(cell)
    .set({ revoking: false, halted: false, state, goal })
    .where(eq(cell.id, run.cell));
  await tx
    .update(standby)
    .set({
      ...{ state: "ready", reason: "", orderFailover: null, orderOpen: false },
      updatedAt: sql`clock_timestamp()`,
    })
    .where(
      and(
        eq(standby.origin, run.cell),
        eq(standby.orderFailover, run.id),
        inArray(standby.state, ["adopting"]),
      ),
    );
  await tx
    .update(standby)
    .set({ orderFailover: null, orderOpen: false })
    .where(and(eq(standby.origin, run.cell), eq(standby.orderFailover, run.id)));
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
