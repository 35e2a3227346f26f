/**
 * What a takeover will need of annexes is begun before anybody waits for it: sessions are opened while the old
 * owner's lease runs out, and sequences are raised as soon as a stream is cut.
 *
 * What must always be true: nothing here lets a key become active; whatever fails is done again by the step that
 * needs it.
 */

import type { AnnexRow } from "../../store/failover/revoke.ts";
import { annexesOf } from "../../store/failover/revoke.ts";
import type { StepContext } from "./world.ts";

/** Once per drive. A session's first call costs more than all that follow. */
export function reachAhead({ world, run, memory }: StepContext, annexes: readonly string[]): void {
  const { own } = world.standby;
  if (memory.hasReached || own === undefined || annexes.length === 0) return;
  memory.hasReached = true;
  const reach = async (): Promise<void> => {
    const rows = await annexesOf(world.database.read, run.cell);
    await Promise.allSettled(
      rows
        .filter(({ annex }) => annexes.includes(annex))
        .map(async (row) => own(await world.pairOf(row), [])),
    );
  };
  // Whoever cannot be reached now is when it must be, or left out then.
  reach().catch(() => undefined);
}

/** Resolves when the annex's databases are ready for keys; work that is under way is joined. */
export function activateAhead({ world, memory }: StepContext, row: AnnexRow): Promise<void> {
  const known = memory.activating.get(row.annex);
  if (known !== undefined) return known;
  const work = world.pairOf(row).then((pair) => world.standby.activate(pair));
  memory.activating.set(row.annex, work);
  // Forgotten, so that whoever needs it tries anew.
  work.catch(() => memory.activating.delete(row.annex));
  return work;
}
