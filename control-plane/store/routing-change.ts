/**
 * The one door to a new revision. Whoever changes a placement, a routed cell, a keyspace or a routing
 * rule calls `changeRouting` first in its transaction: the fleet row's lock makes commits follow each
 * other in order of revision, so "everything up to R" is a fact for whoever reads R.
 */
import { eq, sql } from "drizzle-orm";
import { CellError } from "../../contract/errors.ts";
import type { Revision } from "../../contract/ids.ts";
import { parseRevision } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import type { Tx } from "./database.ts";
import { channels } from "./notify.ts";
import { fleet } from "./schema.ts";

export type FleetRow = typeof fleet.$inferSelect;

/** Locks the fleet row: the first lock of every transaction that changes anything but measurements. */
export async function lockFleet(tx: Tx): Promise<FleetRow> {
  const rows = await tx.select().from(fleet).for("update");
  return must(rows[0], "fleet row");
}

/** The same, refused while the control plane is reconciling after a restore (corrections A5). */
export async function lockNormalFleet(tx: Tx): Promise<FleetRow> {
  const row = await lockFleet(tx);
  if (row.mode === "recovering") {
    throw new CellError("RECOVERING", `The fleet is recovering: ${row.modeReason}`, {
      nextSteps: ["cellctl status"],
    });
  }
  return row;
}

/**
 * Locks the fleet row, raises the revision and wakes the publishers at commit. Call it once per
 * transaction; every row that the transaction changes carries the revision it returns.
 * `config`: cells, keyspaces or routing rules change, not only placements.
 */
export async function changeRouting(
  tx: Tx,
  what: {
    readonly config: boolean;
    /** A bulk spreads its rows over this many revisions; the returned one is the last of them. */
    readonly revisions?: number;
    /** Another change follows at once, and wakes them for both. */
    readonly quiet?: boolean;
  },
): Promise<Revision> {
  const next = sql`${fleet.revision} + ${what.revisions ?? 1}::int`;
  // The update locks the row as `lockFleet` does; a switch of owners waits for each question more.
  const [row] = await tx
    .update(fleet)
    .set({ revision: next, ...(what.config ? { configRevision: next } : {}) })
    .where(eq(fleet.one, true))
    .returning({
      revision: fleet.revision,
      ...(what.quiet === true
        ? {}
        : { told: sql`pg_notify(${channels.revision}, ${fleet.revision}::text)` }),
    });
  return must(parseRevision(must(row, "fleet row").revision), "next revision");
}
