/** Verdicts about cells' health, written by the leader, with an event for each change. */
import { eq } from "drizzle-orm";
import { type CellView, isIdleAnnex } from "../core/fleet.ts";
import type { HealthTrack } from "../core/health.ts";
import { recordable } from "./audit-chain.ts";
import type { Database } from "./database.ts";
import { type NewEvent, recordEvents } from "./events.ts";
import { holdsTerm } from "./leader.ts";
import { cell } from "./schema.ts";

export type Verdict = { readonly cell: CellView; readonly track: HealthTrack };

/** False: another control plane leads. */
export async function recordHealth(
  database: Database,
  term: number,
  verdicts: readonly Verdict[],
): Promise<boolean> {
  return database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return false;
    for (const { cell: seen, track } of verdicts) {
      await tx
        .update(cell)
        .set({ health: track.health, healthReason: recordable(track.reason) })
        .where(eq(cell.id, seen.id));
    }
    await recordEvents(tx, verdicts.flatMap(eventOf));
    return true;
  });
}

/** A reason that changes while the verdict stays is no news; nor is a standby that serves nobody. */
function eventOf({ cell: seen, track }: Verdict): NewEvent[] {
  if (seen.health === track.health || isIdleAnnex(seen)) return [];
  const text = `${seen.id} is ${track.health}: ${track.reason}`;
  return [{ kind: `cell.${track.health}`, object: seen.id, text }];
}
