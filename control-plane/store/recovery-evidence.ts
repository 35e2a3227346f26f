/**
 * The door into recovery: somebody presented what this database has never handed out, or the
 * database itself is not the one that was served before. One transaction, under the fleet's lock,
 * writes audit entry, mode and the list of cells to hear (corrections A5).
 */
import { eq, sql } from "drizzle-orm";
import { type Evidence, nextRecoveryStep } from "../core/recovery.ts";
import { recordAudit } from "./audit.ts";
import type { Database, Tx } from "./database.ts";
import { recordEvents } from "./events.ts";
import { forgetAcknowledged } from "./lease-mode.ts";
import { channels } from "./notify.ts";
import { lockFleet } from "./routing-change.ts";
import { fleet } from "./schema.ts";
import { recoveryCell, recoveryClaim } from "./schema-recovery.ts";

export const recoveryActor = { name: "recovery", role: "system" } as const;

export type RestoreEvidence = {
  /** `router router-1`, `cell cell-02`, `this database`. */
  readonly who: string;
  /** The whole sentence. */
  readonly text: string;
  readonly presented: Evidence;
  /** It was given up, and speaks again. */
  readonly returned?: string | undefined;
};

/** Called again while recovering, it only raises the numbers to surpass, or starts a fencing over. */
export async function enterRecovery(
  database: Database,
  evidence: RestoreEvidence,
  nowMs: number,
): Promise<void> {
  await database.transaction((tx) => enterIn(tx, evidence, nowMs));
}

/** As part of a transaction that knows why. */
export async function enterIn(tx: Tx, evidence: RestoreEvidence, nowMs: number): Promise<void> {
  const row = await lockFleet(tx);
  const { revision, epoch } = evidence.presented;
  const isNews =
    row.mode === "normal" ||
    (row.recoveryStep === "fencing" && revision >= row.fenceRevision) ||
    (row.recoveryStep === "fencing" && epoch > row.epochMaxSeen);
  const step = nextRecoveryStep(row.recoveryStep, "evidence") ?? "collecting";
  await tx
    .update(fleet)
    .set({
      mode: "recovering",
      revisionMaxSeen: Math.max(row.revisionMaxSeen, revision),
      epochMaxSeen: Math.max(row.epochMaxSeen, epoch),
      ...(isNews
        ? {
            modeReason: evidence.text,
            recoveryStep: step,
            recoverySince: sql`clock_timestamp()`,
            fenceRevision: 0,
          }
        : {}),
    })
    .where(eq(fleet.one, true));
  if (!isNews) return;
  await recordAudit(
    tx,
    {
      actor: recoveryActor,
      action: "fleet.recover",
      object: row.id,
      reason: evidence.text,
      outcome: "accepted",
      before: { mode: row.mode, revision: row.revision },
      after: { mode: "recovering", presented: evidence.presented },
    },
    nowMs,
  );
  if (evidence.returned !== undefined) await hearAgain(tx, evidence.returned);
  await awaitAllCells(tx, row.mode === "recovering");
  await forgetAcknowledged(tx);
  await tx.execute(sql`select pg_notify(${channels.revision}, '')`);
  await recordEvents(tx, [
    {
      kind: "fleet.recovering",
      object: row.id,
      text: `${evidence.text}. Nothing is changed or granted until every cell has reported.`,
    },
  ]);
}

/**
 * Every cell that may own a key is asked anew: what it said before may be older than the evidence. That it held
 * a lease when it was first heard stays true in the middle of a recovery, for nothing is taken over meanwhile.
 */
async function awaitAllCells(tx: Tx, again: boolean): Promise<void> {
  await tx.delete(recoveryClaim);
  await tx.execute(sql`
    delete from cellfleet_control.recovery_cell as r
     where not exists (select from cellfleet_control.cell as c where c.id = r.cell and c.state <> 'retired')`);
  await tx.execute(sql`
    insert into cellfleet_control.recovery_cell as r (cell, state)
    select id, 'awaited' from cellfleet_control.cell where state <> 'retired'
    on conflict (cell) do update set state = 'awaited', claims = 0, reason = '',
       leased = r.leased and ${again}, steady = r.steady and ${again}, updated_at = clock_timestamp()
     where r.state <> 'lost'`);
}

const hearAgain = (tx: Tx, cell: string): Promise<unknown> =>
  tx.update(recoveryCell).set({ state: "frozen" }).where(eq(recoveryCell.cell, cell));
