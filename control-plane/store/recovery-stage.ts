/**
 * Stages of adopted cells at the end of a recovery. What must always be true: what a cell's database
 * has made of its stage is stronger than a backup from before, and a fleet with a second owner has no
 * cell that refuses nothing. Without the first, a restore would open a guard behind its tenants' back.
 */
import { sql } from "drizzle-orm";
import type { Tx } from "./database.ts";
import { recordEvents } from "./events.ts";
import { changeOp, openOps } from "./ops.ts";

/** Numbers that were counted after the backup and are still under way stay below it. */
const stageNumberMargin = 1000;

/**
 * After the placements are written, before anything is granted. Every count jumps, so that answers from
 * before the restore are void everywhere; until its database has followed, a cell counts as adopting.
 */
export async function recoverStages(tx: Tx, nowMs: number): Promise<void> {
  const { rows } = await tx.execute<{ id: string; before: string; stage: string }>(sql`
    with known as (
      select c.id, c.stage_goal as before,
             exists (select from cellfleet_control.placement as p
                      where p.cell <> c.id and not p.deleted) as shared,
             exists (select from cellfleet_control.recovery_cell as r
                      where r.cell = c.id and r.state = 'reported')
             and (c.stage_applied_number > c.stage_number
                  or array_position(${ranks}, c.stage_applied) > array_position(${ranks}, c.stage_goal))
               as overruled
        from cellfleet_control.cell as c
       where c.adopted and c.state <> 'retired'
       for update
    )
    update cellfleet_control.cell as c set
           stage = case when k.shared then 'enforce' when k.overruled then c.stage_applied else c.stage end,
           stage_goal = case when k.shared then 'enforce' when k.overruled then c.stage_applied else c.stage_goal end,
           stage_at = clock_timestamp(),
           stage_number = greatest(c.stage_number, c.stage_applied_number) + ${stageNumberMargin}
      from known as k where k.id = c.id
    returning c.id, k.before, c.stage_goal as stage`);
  const changed = rows.filter(({ before, stage }) => before !== stage);
  await recordEvents(
    tx,
    changed.map(({ id, before, stage }) => ({
      kind: "recovery.stage",
      object: id,
      text: `${id} was in stage ${before} in the backup; it is in ${stage} now, because its database had gone on or another cell owns placements.`,
    })),
  );
  await endStageOps(tx, nowMs);
}

const ranks = sql.raw("array['pass-through', 'observe', 'enforce']");

/** A step that was taken in the backup may lead back out of a stage that was only reached after it. */
async function endStageOps(tx: Tx, nowMs: number): Promise<void> {
  const open = (await openOps(tx, Number.MAX_SAFE_INTEGER)).filter(
    ({ kind }) => kind === "cell.stage" || kind === "cell.adopt",
  );
  for (const op of open) {
    const message = `The control plane was restored while ${op.kind} of ${op.object} ran; the stage is what its database says.`;
    const failure = {
      code: "OP_FAILED" as const,
      message,
      nextSteps: [`cellctl cell get ${op.object}`],
    };
    await changeOp(
      tx,
      op,
      { headline: message, step: "failed", state: "failed", failure, deadlineAtMs: null },
      nowMs,
    );
  }
}
