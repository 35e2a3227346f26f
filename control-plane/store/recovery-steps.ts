/**
 * The steps of a recovery as transactions. Each takes the fleet's lock, looks again whether its step
 * is still the one to take, and writes audit entry and event with the effect: any process may stop
 * between any two of them, and any process may take the next.
 */
import { eq, inArray, sql } from "drizzle-orm";
import { must } from "../../runtime/assert.ts";
import { opMachines } from "../core/ops/kinds.ts";
import {
  nextRecoveryStep,
  type RecoveryCell,
  type RecoveryEvent,
  type RecoveryStep,
  type RecoveryView,
} from "../core/recovery.ts";
import { type Actor, recordAudit } from "./audit.ts";
import type { Database, Reader, Tx } from "./database.ts";
import { recordEvents } from "./events.ts";
import { settleFailoversOfBefore } from "./failover/after-restore.ts";
import { endMovesOfBefore } from "./moves/after-restore.ts";
import { channels } from "./notify.ts";
import { insertOp } from "./ops.ts";
import { enterIn, recoveryActor } from "./recovery-evidence.ts";
import { writeLosers, writePlacements } from "./recovery-merge.ts";
import { recoverStages } from "./recovery-stage.ts";
import { type FleetRow, lockFleet } from "./routing-change.ts";
import { fleet } from "./schema.ts";
import { recoveryCell } from "./schema-recovery.ts";

export type RecoveryRead = Pick<
  RecoveryView,
  "step" | "cells" | "fenceRevision" | "sinceMs" | "nowMs"
> & { readonly leaseTtlMsMax: number };

export async function readRecovery(reader: Reader): Promise<RecoveryRead> {
  const { rows } = await reader.execute<{
    step: RecoveryStep;
    fence: number;
    since: number;
    now: number;
    ttl: number;
    cells: RecoveryCell[];
  }>(sql`
    select f.recovery_step as step, f.fence_revision::float8 as fence,
           coalesce(extract(epoch from f.recovery_since) * 1000, 0)::float8 as since,
           (extract(epoch from clock_timestamp()) * 1000)::float8 as now,
           coalesce((select max(lease_ttl_ms) from cellfleet_control.cell), 0) as ttl,
           coalesce((select jsonb_agg(jsonb_build_object('cell', r.cell, 'state', r.state,
               'appliedRevision', c.applied_revision,
               'fenced', (select count(*) from cellfleet_control.disowned as d
                           where d.cell = r.cell and d.revision > f.revision)) order by r.cell)
             from cellfleet_control.recovery_cell as r
             join cellfleet_control.cell as c on c.id = r.cell), '[]') as cells
      from cellfleet_control.fleet as f`);
  const row = must(rows[0], "fleet row");
  return {
    step: row.step,
    cells: row.cells,
    fenceRevision: row.fence,
    sinceMs: row.since,
    nowMs: row.now,
    leaseTtlMsMax: row.ttl,
  };
}

/** What is waited for, where an operator looks: `modeReason` and the events. Only news is written. */
export async function noteRecovery(database: Database, text: string): Promise<void> {
  const [row] = await database.read.select({ reason: fleet.modeReason }).from(fleet);
  if (row?.reason === text) return;
  await database.transaction(async (tx) => {
    const current = await lockFleet(tx);
    if (current.mode === "normal" || current.modeReason === text) return;
    await tx.update(fleet).set({ modeReason: text }).where(eq(fleet.one, true));
    await recordEvents(tx, [{ kind: "recovery.waiting", object: current.id, text }]);
  });
}

/** Goes on without these cells: their keys stay unavailable until they report. */
export async function freezeCells(
  database: Database,
  cells: readonly string[],
  why: { readonly actor: Actor; readonly reason: string },
  nowMs: number,
): Promise<void> {
  await database.transaction((tx) => freezeIn(tx, cells, why, nowMs));
}

export async function freezeIn(
  tx: Tx,
  cells: readonly string[],
  why: { readonly actor: Actor; readonly reason: string },
  nowMs: number,
): Promise<void> {
  const row = await lockFleet(tx);
  if (row.mode === "normal") return;
  await recordAudit(
    tx,
    {
      actor: why.actor,
      action: "recovery.freeze",
      object: cells.join(","),
      reason: why.reason,
      outcome: "accepted",
      after: { cells, state: "frozen" },
    },
    nowMs,
  );
  await tx
    .update(recoveryCell)
    .set({ state: "frozen", reason: why.reason, updatedAt: sql`clock_timestamp()` })
    .where(inArray(recoveryCell.cell, [...cells]));
  await tx.execute(sql`delete from cellfleet_control.recovery_claim
    where cell = any (${sql.param(cells)}::text[]) and ${row.recoveryStep} = 'collecting'`);
  await tx.execute(sql`select pg_notify(${channels.op}, '')`);
  await recordEvents(
    tx,
    cells.map((cell) => ({
      kind: "recovery.frozen",
      object: cell,
      text: `Recovery goes on without ${cell}; its keys stay unavailable until it reports. ${why.reason}`,
    })),
  );
}

/** A cell that recovery went on without, and the standbys in it. */
export async function frozenOf(reader: Reader, id: string): Promise<readonly string[]> {
  const { rows } = await reader.execute<{ cell: string }>(sql`
    select r.cell from cellfleet_control.recovery_cell as r
      join cellfleet_control.cell as c on c.id = r.cell
     where r.state = 'frozen' and (c.id = ${id} or c.annex_host = ${id}) order by 1`);
  return rows.map(({ cell }) => cell);
}

/**
 * They are given up: what they may have acknowledged since the backup is lost, and who claims their keys is
 * believed. In the middle of a recovery it goes on with that; else one is begun that decides anew.
 */
export async function giveUpIn(
  tx: Tx,
  id: string,
  cells: readonly string[],
  why: { readonly actor: Actor; readonly reason: string },
  nowMs: number,
): Promise<void> {
  const row = await lockFleet(tx);
  await tx
    .update(recoveryCell)
    .set({ state: "lost", reason: why.reason, updatedAt: sql`clock_timestamp()` })
    .where(inArray(recoveryCell.cell, [...cells]));
  const text = `${id} is given up: what it has acknowledged since the backup is lost, and keys that it may have taken over are their former owners' again. ${why.reason}`;
  await recordEvents(tx, [{ kind: "recovery.given-up", object: id, text }]);
  if (row.mode !== "normal") {
    await tx.execute(sql`select pg_notify(${channels.op}, '')`);
    return;
  }
  const presented = { revision: 0, epoch: 0, grant: 0 };
  await enterIn(tx, { who: why.actor.name, text, presented }, nowMs);
}

/** The step is taken only from where the table says it may be; false: somebody else was quicker. */
async function advance(
  tx: Tx,
  event: RecoveryEvent,
): Promise<{ readonly row: FleetRow; readonly to: RecoveryStep } | undefined> {
  const row = await lockFleet(tx);
  const to = nextRecoveryStep(row.recoveryStep, event);
  return to === undefined ? undefined : { row, to };
}

/** Whole tables are read: the statement's usual limit is for faults, not for this. */
const unhurried = (tx: Tx) =>
  tx.execute(
    sql`set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0`,
  );

export async function fenceLosers(database: Database, opId: string, nowMs: number): Promise<void> {
  await database.transaction(async (tx) => {
    await unhurried(tx);
    const step = await advance(tx, "all-reported");
    if (step === undefined || (await isAwaiting(tx))) return;
    const { row, to } = step;
    const { losers, fenceRevision, epochMax } = await writeLosers(tx, row, opId);
    await recordAudit(
      tx,
      {
        actor: recoveryActor,
        action: "recovery.fence",
        object: row.id,
        reason: row.modeReason,
        outcome: "accepted",
        before: { step: row.recoveryStep },
        after: { step: to, losers, fenceRevision },
      },
      nowMs,
    );
    // Losers will present the epochs they were told: that must not look like another restore.
    const epochMaxSeen = Math.max(row.epochMaxSeen, epochMax);
    await tx
      .update(fleet)
      .set({ recoveryStep: to, fenceRevision, epochMaxSeen })
      .where(eq(fleet.one, true));
    await tx.execute(sql`select pg_notify(${channels.revision}, '')`);
    await recordEvents(tx, [
      {
        kind: "recovery.fencing",
        object: row.id,
        text: `All cells have reported. ${losers} keys are claimed by a cell with a lower epoch; those are fenced first.`,
      },
    ]);
  });
}

async function isAwaiting(tx: Tx): Promise<boolean> {
  const [row] = await tx
    .select({ cell: recoveryCell.cell })
    .from(recoveryCell)
    .where(eq(recoveryCell.state, "awaited"))
    .limit(1);
  return row !== undefined;
}

/** The point of no return: placements, revision and mode in one commit. */
export async function finishRecovery(
  database: Database,
  opId: string,
  nowMs: number,
): Promise<void> {
  await database.transaction(async (tx) => {
    await unhurried(tx);
    const step = await advance(tx, "all-fenced");
    if (step === undefined) return;
    const { row, to } = step;
    const counts = await writePlacements(tx, row, opId);
    await recoverStages(tx, nowMs);
    const ended = [...(await endMovesOfBefore(tx)), ...(await settleFailoversOfBefore(tx, opId))];
    const { revision, kept, owned, unavailable, gone } = counts;
    const text = `Recovered: ${kept} keys as they were, ${owned} at a new epoch, ${unavailable} unavailable, ${gone} gone; revision ${revision} is above all that was seen.`;
    await recordAudit(
      tx,
      {
        actor: recoveryActor,
        action: "fleet.recovered",
        object: row.id,
        reason: row.modeReason,
        outcome: "accepted",
        before: { mode: row.mode, revision: row.revision },
        after: { mode: "normal", ...counts },
      },
      nowMs,
    );
    await insertOp(tx, {
      id: opId,
      kind: "fleet.recover",
      object: row.id,
      step: opMachines["fleet.recover"].first,
      state: "running",
      headline: text,
      plan: { kind: "fleet.recover", steps: [], skipped: [] },
      input: {},
      actor: recoveryActor.name,
      reason: row.modeReason,
      revision: null,
      nowMs,
      deadlineMs: opMachines["fleet.recover"].deadlineMs(opMachines["fleet.recover"].first),
    });
    await tx.execute(
      sql`update cellfleet_control.cell set grant_no = greatest(grant_no, grant_seen)`,
    );
    await retellPartners(tx);
    await tx
      .update(fleet)
      .set({
        mode: "normal",
        modeReason: "",
        recoveryStep: to,
        recoverySince: null,
        fenceRevision: 0,
        revision,
        configRevision: revision,
      })
      .where(eq(fleet.one, true));
    await tx.execute(sql`delete from cellfleet_control.recovery_claim`);
    await tx.execute(
      sql`delete from cellfleet_control.recovery_cell where state not in ('frozen', 'lost')`,
    );
    await tx.execute(sql`select pg_notify(${channels.revision}, ${String(revision)})`);
    const strangers =
      unavailable === 0
        ? []
        : [
            {
              kind: "recovery.unavailable",
              object: row.id,
              text: `${unavailable} keys belong, or may belong since the backup, to cells that did not report (cellctl recovery show). Bring those back; one that is lost for good is given up by cellctl recovery give-up CELL. A cell that was created after the backup is not known here: register it again (cellctl cell create) and give its agent the new token.`,
            },
          ];
    await recordEvents(tx, [
      { kind: "fleet.recovered", object: row.id, text },
      ...strangers,
      ...ended,
    ]);
  });
}

/** Server, timeline and database: what a restored copy cannot share with the original. */
export async function recordIncarnation(
  database: Database,
): Promise<{ readonly before: string; readonly now: string }> {
  return database.transaction(async (tx) => {
    const row = await lockFleet(tx);
    const { rows } = await tx.execute<{ now: string }>(sql`
      select concat_ws('/', s.system_identifier, c.timeline_id, d.oid) as now
        from pg_control_system() as s, pg_control_checkpoint() as c, pg_database as d
       where d.datname = current_database()`);
    const now = must(rows[0], "incarnation").now;
    if (row.incarnation !== now) {
      await tx.update(fleet).set({ incarnation: now }).where(eq(fleet.one, true));
    }
    return { before: row.incarnation, now };
  });
}

/**
 * Cells may have stored lists of partners, under these same numbers, that were told after the backup: none
 * counts as acknowledged before it was told anew (corrections A2).
 */
async function retellPartners(tx: Tx): Promise<void> {
  await tx.execute(sql`
    update cellfleet_control.cell set partner_revision = partner_revision + 1, partner_acked = 0
     where partner_revision > 0`);
  await tx.execute(sql`
    update cellfleet_control.standby as s set listed_at = c.partner_revision
      from cellfleet_control.cell as c
     where c.id = s.origin and s.listed_at is not null and s.unlisted_at is null`);
}
