/** Pages of what a cell says it owns, while recovery collects. */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import type { Database } from "./database.ts";
import { recordEvents } from "./events.ts";
import { channels } from "./notify.ts";
import { lockFleet } from "./routing-change.ts";

type Page = NonNullable<AgentSyncRequest["ownership"]>;

/** True: the cell's report is complete. A page may come twice; it says the same then. */
export async function saveClaims(
  database: Database,
  cell: string,
  page: Page,
  epochMax: number,
): Promise<boolean> {
  return database.transaction(async (tx) => {
    const fleet = await lockFleet(tx);
    if (fleet.recoveryStep !== "collecting") return true;
    if (page.entries.length > 0) {
      await tx.execute(sql`
        insert into cellfleet_control.recovery_claim as c (key, cell, state, epoch)
        select e.key, ${cell}, e.state, e.epoch
          from jsonb_to_recordset(${JSON.stringify(page.entries)}::jsonb)
            as e(key text, state text, epoch bigint)
        on conflict (key, cell) do update set state = excluded.state, epoch = excluded.epoch`);
    }
    const seen = Math.max(epochMax, ...page.entries.map(({ epoch }) => epoch));
    await tx.execute(sql`
      update cellfleet_control.fleet set epoch_max_seen = greatest(epoch_max_seen, ${seen})`);
    const { rows } = await tx.execute<{ claims: number }>(sql`
      insert into cellfleet_control.recovery_cell as r (cell, state, claims)
      values (${cell}, ${page.last ? "reported" : "awaited"}, ${page.entries.length})
      on conflict (cell) do update set claims = r.claims + ${page.entries.length},
        state = ${page.last ? "reported" : "awaited"}, reason = '', updated_at = clock_timestamp()
      returning claims::float8 as claims`);
    if (!page.last) return false;
    await tx.execute(sql`select pg_notify(${channels.op}, '')`);
    await recordEvents(tx, [
      {
        kind: "recovery.reported",
        object: cell,
        text: `${cell} has reported ${rows[0]?.claims ?? 0} placement keys.`,
      },
    ]);
    return true;
  });
}
