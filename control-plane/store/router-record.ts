/**
 * What a router said when it called last: its acknowledgement, and what it would have refused for a
 * cell that was adopted. Counters that have grown say that something would have been a moment ago; a
 * router that was started again counts from nothing.
 */
import { sql } from "drizzle-orm";
import type { RouterSyncRequest } from "../../contract/cell-protocol.ts";
import type { Reader } from "./database.ts";
import { channels } from "./notify.ts";

export async function recordRouter(reader: Reader, request: RouterSyncRequest): Promise<void> {
  const { instance, admin, revision, epochMax, checksum, release } = request;
  const counts = JSON.stringify(request.wouldRefuse ?? {});
  await reader.execute(sql`
    insert into cellfleet_control.router as r
      (id, instance, admin, revision, epoch_max, checksum, release, would_refuse, would_refuse_at, seen_at)
    values (${request.router}, ${instance}, ${admin}, ${revision}, ${epochMax}, ${checksum},
            ${release}, ${counts}::jsonb,
            case when exists (select 1 from jsonb_each_text(${counts}::jsonb) as n(code, count)
                               where n.count::numeric > 0) then clock_timestamp() end,
            clock_timestamp())
    on conflict (id) do update set
      instance = excluded.instance, admin = excluded.admin, revision = excluded.revision,
      epoch_max = excluded.epoch_max, checksum = excluded.checksum, release = excluded.release,
      would_refuse = excluded.would_refuse, seen_at = excluded.seen_at,
      would_refuse_at = case when exists (
        select 1 from jsonb_each_text(excluded.would_refuse) as n(code, count)
         where n.count::numeric > case when r.instance = excluded.instance
           then coalesce((r.would_refuse ->> n.code)::numeric, 0) else 0 end
      ) then clock_timestamp() else r.would_refuse_at end`);
}

/** An operation may be waiting for this acknowledgement. */
export async function announceAcknowledgement(reader: Reader): Promise<void> {
  await reader.execute(sql`select pg_notify(${channels.op}, '')`);
}
