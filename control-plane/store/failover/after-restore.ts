/**
 * Failovers after a restore of the control plane's database, in the transaction that ends recovery: those
 * that are open go on or end (core/failover/after-restore.ts), and a cell that was let back since the backup,
 * by a control plane that granted it leases, is in service here too.
 */
import { and, eq, inArray, sql } from "drizzle-orm";
import {
  type AfterRestore,
  afterRestore,
  type RestoredFacts,
} from "../../core/failover/after-restore.ts";
import type { FailoverRun } from "../../core/failover/phases.ts";
import { databaseNowMs, type Tx } from "../database.ts";
import type { NewEvent } from "../events.ts";
import { changeOp } from "../ops.ts";
import { cell, op, placement } from "../schema.ts";
import { recoveryCell } from "../schema-recovery.ts";
import { failover, standby } from "../schema-standby.ts";
import { openRuns } from "./evidence.ts";
import { annexesOf, giveBackCell, uncordonCell } from "./revoke.ts";

/** Attempts that were made after the backup stay below it. */
const attemptMargin = 1000;

/** Before what cells have presented of their grants replaces what this database knows. */
export async function settleFailoversOfBefore(
  tx: Tx,
  recoveryOp: string,
): Promise<readonly NewEvent[]> {
  const events: NewEvent[] = [];
  const served = await servedSince(tx);
  const frozen = await frozenCells(tx);
  const runs = await openRuns(tx);
  for (const run of runs) {
    const facts = await factsOf(tx, run, served, frozen);
    const what = afterRestore(run, facts);
    if (what === "resume") await letTake(tx, run, recoveryOp);
    events.push(await settleOne(tx, run, what));
  }
  const judged = new Set<string>(runs.map((run) => run.cell));
  const back = served.filter((id) => !judged.has(id));
  if (served.length > 0) await forgetDatabases(tx, served);
  if (back.length > 0) await letServe(tx, back);
  return [...events, ...back.map(inService), ...(await takenOverSince(tx))];
}

/** Of failovers that began and ended after the backup nothing is left but who has the keys. */
async function takenOverSince(tx: Tx): Promise<NewEvent[]> {
  const { rows } = await tx.execute<{ origin: string; keys: number }>(sql`
    select a.annex_origin as origin, count(*)::float8 as keys
      from cellfleet_control.placement as p
      join cellfleet_control.cell as a on a.id = p.cell
      join cellfleet_control.cell as o on o.id = a.annex_origin and not o.revoking
      join cellfleet_control.recovery_claim as c on c.key = p.key and c.cell = a.annex_origin
     where c.state in ('active', 'fenced') and not p.deleted group by 1 order by 1`);
  return rows.map(({ origin, keys }) => ({
    kind: "recovery.taken-over",
    object: origin,
    text: `${keys} keys of ${origin} are its standbys' since the backup, by a failover that is not known any more. Rows that never reached a standby are in its database until a tenant comes home: copy what you need before.`,
  }));
}

/** Kept apart in the backup, and granted leases by a control plane after it. */
async function servedSince(tx: Tx): Promise<string[]> {
  const rows = await tx
    .select({ id: cell.id })
    .from(cell)
    .innerJoin(recoveryCell, eq(recoveryCell.cell, cell.id))
    .where(
      and(
        eq(cell.revoking, true),
        eq(recoveryCell.state, "reported"),
        sql`${cell.controlGrantSeen} > ${cell.grant}`,
      ),
    );
  return rows.map(({ id }) => id);
}

async function frozenCells(tx: Tx): Promise<string[]> {
  const rows = await tx
    .select({ id: recoveryCell.cell })
    .from(recoveryCell)
    .where(eq(recoveryCell.state, "frozen"));
  return rows.map(({ id }) => id);
}

async function factsOf(
  tx: Tx,
  run: FailoverRun,
  served: readonly string[],
  frozen: readonly string[],
): Promise<RestoredFacts> {
  const rows = await annexesOf(tx, run.cell);
  const known = rows.filter(({ annex }) => !frozen.includes(annex));
  const hosted = await tx
    .select({ annex: standby.annex })
    .from(standby)
    .where(eq(standby.host, run.cell));
  return {
    ...{ servedSince: served.includes(run.cell), frozen },
    annexes: new Map(known.map((row) => [row.annex, { failover: row.takeoverFailover }])),
    hosted: new Set(hosted.map(({ annex }) => annex)),
  };
}

async function settleOne(tx: Tx, run: FailoverRun, what: AfterRestore): Promise<NewEvent> {
  const nowMs = await databaseNowMs(tx);
  if (what === "resume") {
    const attempt = run.attempt + attemptMargin;
    await tx.update(op).set({ attempt }).where(eq(op.id, run.id));
    await tx
      .update(standby)
      .set({ orderAttempt: attempt })
      .where(and(eq(standby.origin, run.cell), eq(standby.orderFailover, run.id)));
    const text = `${run.id} was ${run.step} when the control plane's database was restored; it goes on from there.`;
    return { kind: "failover.resumed", object: run.cell, text };
  }
  if (what === "undo")
    await (run.mode === "planned" ? uncordonCell(tx, run) : giveBackCell(tx, run));
  else await markOwners(tx, run);
  const { message, nextSteps } = ended(run, what);
  const failure = { code: "OP_FAILED" as const, message, nextSteps };
  const change = { step: "failed", state: "failed", headline: message, failure } as const;
  await changeOp(tx, run, change, nowMs);
  await tx.update(failover).set({ open: false, wish: "none" }).where(eq(failover.op, run.id));
  return { kind: "failover.ended", object: run.cell, text: message };
}

/**
 * What the silent cell owned, and nobody who spoke has ever heard of at its epoch: all have spoken that could
 * have it, so the failover may give it away.
 */
async function letTake(tx: Tx, run: FailoverRun, recoveryOp: string): Promise<void> {
  await tx.execute(sql`
    update cellfleet_control.placement as p set op = ${run.id}, attempt = 0
     where p.cell = ${run.cell} and p.state = 'unavailable' and p.op = ${recoveryOp} and not p.deleted
       and not exists (select from cellfleet_control.recovery_claim as c
                        where c.key = p.key and c.epoch >= p.epoch)`);
}

function ended(
  { id, cell: of, step }: FailoverRun,
  what: "undo" | "leave-apart",
): { readonly message: string; readonly nextSteps: string[] } {
  const was = `${id} was ${step} when the control plane's database was restored. The cells said who owns its keys`;
  if (what === "undo") {
    return {
      message: `${was}; ${of} stands as it did before it, and is judged anew.`,
      nextSteps: ["cellctl failover status", `cellctl failover plan ${of}`],
    };
  }
  return {
    message: `${was}, and not all who might were heard; it goes no further, and ${of} stays apart with what it still owns.`,
    nextSteps: ["cellctl failover status", `cellctl failover plan ${of}`, `cellctl cell get ${of}`],
  };
}

/** What an annex of it owns is emptied into whole cells; it must be neither copied anew nor removed. */
async function markOwners(tx: Tx, run: FailoverRun): Promise<void> {
  const owners = tx
    .select({ id: placement.cell })
    .from(placement)
    .where(eq(placement.deleted, false));
  await tx
    .update(standby)
    .set({ state: "adopted", reason: "it owns keys", updatedAt: sql`clock_timestamp()` })
    .where(
      and(
        eq(standby.origin, run.cell),
        eq(standby.state, "adopting"),
        inArray(standby.annex, owners),
      ),
    );
}

/** It may be another database than the one that was kept apart, after a wipe; the next one that asks is the cell's. */
async function forgetDatabases(tx: Tx, ids: readonly string[]): Promise<void> {
  await tx
    .update(cell)
    .set({ systemIdentifier: "", timeline: 0, boot: "", bootInstance: "" })
    .where(inArray(cell.id, [...ids]));
}

async function letServe(tx: Tx, ids: readonly string[]): Promise<void> {
  await tx
    .update(cell)
    .set({ state: "cordoned", goal: "cordoned", revoking: false, halted: false })
    .where(inArray(cell.id, [...ids]));
}

const inService = (id: string): NewEvent => ({
  kind: "recovery.in-service",
  object: id,
  text: `${id} was kept apart in the backup, and has been let back since: it serves, and takes no new tenants until somebody says so (cellctl cell uncordon ${id}).`,
});
