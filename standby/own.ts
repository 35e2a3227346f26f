/**
 * Tells an annex's databases that keys may be theirs, and which are, sooner than its agent does: tenants wait. The
 * same words as the agent's (cell/sql/060-ownership.sql), so whoever comes second changes nothing.
 *
 * What must always be true: what is named as owned was answered as committed; a database that has no open
 * takeover, or knows a later word, refuses (CF011), and then nothing is claimed.
 */

import { recordTakeover } from "../cell/store/standby.ts";
import type { OwnershipChange } from "../contract/cell-protocol.ts";
import type { TakeoverOrder } from "../contract/standby-api.ts";
import type { StandbyPair } from "./ports.ts";
import type { Sessions } from "./sessions.ts";

/** Keys that become active need no lock; only other changes of ownership are waited for. */
const lockMs = 500;

/** Every store of the annex has recorded this order, which is open; or has done so before. */
export async function openTakeover(
  sessions: Sessions,
  { stores }: StandbyPair,
  order: TakeoverOrder,
): Promise<boolean> {
  const outcomes = await Promise.all(
    stores.map(({ annex }) => sessions.use(annex, (session) => recordTakeover(session, order))),
  );
  return outcomes.every((outcome) => outcome !== "stale");
}

/**
 * Of those that every store of the annex says it owns. Without changes nothing is changed: the next call finds a
 * session that has been used.
 */
export async function ownKeys(
  sessions: Sessions,
  { stores }: StandbyPair,
  changes: readonly OwnershipChange[],
): Promise<readonly string[]> {
  const wanted = JSON.stringify(changes);
  const owned = await Promise.all(
    stores.map(({ annex }) =>
      sessions.use(annex, async (session) => {
        // What the row is afterwards, whoever was first; one statement by itself is committed when it answers.
        const { rows } = await session.query<{ key: string; epoch: number }>(
          `select key, epoch::float8 as epoch from cellfleet.apply_ownership($1, null, $2)
            where state = 'active'`,
          [wanted, lockMs],
        );
        return new Map(rows.map(({ key, epoch }) => [key, epoch]));
      }),
    ),
  );
  return changes
    .filter(({ key, epoch }) => owned.every((store) => store.get(key) === epoch))
    .map(({ key }) => key);
}
