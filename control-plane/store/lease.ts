/**
 * Lease grants (corrections A6): one compare-and-set, committed before the answer is sent, that
 * writes down for how long it was granted. Whoever takes a cell's ownership away sets `revoking` in
 * the same row first, so a grant and a revocation follow each other, never cross.
 */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import type { IncarnationReason } from "../core/incarnation.ts";
import { recordAudit } from "./audit.ts";
import type { Database, Reader, Tx } from "./database.ts";
import { recordEvents } from "./events.ts";
import { changeRouting } from "./routing-change.ts";
import { leaveAll } from "./standby/record.ts";

/** The number of the grant, or undefined when the cell may not have one now. */
export async function grantLease(
  reader: Reader,
  said: AgentSyncRequest,
  ttlMs: number,
): Promise<number | undefined> {
  const { systemIdentifier, timeline, boot, grant } = said.database;
  const { rows } = await reader.execute<{ grant: number }>(sql`
    update cellfleet_control.cell as c set
      grant_no = greatest(c.grant_no, ${grant}) + 1,
      grant_seen = greatest(c.grant_seen, ${grant}),
      lease_granted_at = clock_timestamp(), lease_ttl_ms = ${ttlMs}, lease_term = l.term,
      system_identifier = ${systemIdentifier}, timeline = ${timeline}, boot = ${boot},
      boot_instance = ${said.instance}
    from cellfleet_control.leader as l, cellfleet_control.fleet as f
    where c.id = ${said.cell} and not c.revoking and c.state not in ('quarantined', 'retired')
      and f.mode = 'normal' and l.term >= c.lease_term
      and (c.system_identifier in ('', ${systemIdentifier})) and c.timeline <= ${timeline}
      and c.grant_seen <= ${grant}
    returning c.grant_no::float8 as "grant"`);
  return rows[0]?.grant;
}

/** Takes the cell out of service until a person has looked (corrections A14). */
export async function quarantineCell(
  database: Database,
  cell: string,
  reason: IncarnationReason,
  text: string,
  nowMs: number,
): Promise<void> {
  await database.transaction(async (tx) => {
    await changeRouting(tx, { config: true });
    await recordAudit(
      tx,
      {
        actor: { name: "machine api", role: "system" },
        action: "cell.quarantine",
        object: cell,
        reason: `${reason}: ${text}`,
        outcome: "accepted",
        after: { state: "quarantined" },
      },
      nowMs,
    );
    await tx.execute(sql`
      update cellfleet_control.cell set state = 'quarantined', goal = 'quarantined',
             health_reason = ${`${reason}: ${text}`}
       where id = ${cell}`);
    await recordEvents(tx, [
      { kind: "cell.quarantined", object: cell, text: `${reason}: ${text}. No lease is granted.` },
    ]);
  });
}

/** The way back: a person vouches for the database as it is. False: the cell is not quarantined. */
export async function readmitCell(tx: Tx, cell: string): Promise<boolean> {
  await changeRouting(tx, { config: true });
  const { rowCount } = await tx.execute(sql`
    update cellfleet_control.cell set state = 'cordoned', goal = 'cordoned',
           system_identifier = '', timeline = 0, boot = '', boot_instance = '', grant_seen = 0,
           applied_revision = 0, health_reason = 'readmitted from quarantine'
     where id = ${cell} and state = 'quarantined'`);
  if (rowCount !== 1) return false;
  // What they applied beyond it would stay there, and what it writes now under the same positions be left out.
  await leaveAll(tx, cell, `${cell} was let back with its database as it is: it is copied anew`);
  const text = `${cell} is let back from quarantine, cordoned, with its database as it is.`;
  await recordEvents(tx, [{ kind: "cell.readmitted", object: cell, text }]);
  return true;
}
