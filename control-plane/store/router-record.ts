/**
 * What a router said when it called last: its acknowledgement, and what it would have refused for a
 * cell that was adopted. Counters that have grown say that something would have been a moment ago; a
 * router that was started again counts from nothing.
 */
import { sql } from "drizzle-orm";
import type { RouterSyncRequest } from "../../contract/cell-protocol.ts";
import { type AnnouncedKey, announcedKeysSchema } from "../../contract/router-key.ts";
import type { Reader, Tx } from "./database.ts";
import { channels } from "./notify.ts";
import { changeRouting, lockNormalFleet } from "./routing-change.ts";

/** The keys of this router that tables name now. */
export async function recordRouter(
  reader: Reader,
  request: RouterSyncRequest,
): Promise<readonly AnnouncedKey[]> {
  const { instance, admin, revision, epochMax, checksum, release } = request;
  const counts = JSON.stringify(request.wouldRefuse ?? {});
  const { rows } = await reader.execute(sql`
    insert into cellfleet_control.router as r
      (id, instance, admin, revision, epoch_max, checksum, release, would_refuse, would_refuse_at,
       first_seen_at, seen_at)
    values (${request.router}, ${instance}, ${admin}, ${revision}, ${epochMax}, ${checksum},
            ${release}, ${counts}::jsonb,
            case when exists (select 1 from jsonb_each_text(${counts}::jsonb) as n(code, count)
                               where n.count::numeric > 0) then clock_timestamp() end,
            clock_timestamp(), clock_timestamp())
    on conflict (id) do update set
      instance = excluded.instance, admin = excluded.admin, revision = excluded.revision,
      epoch_max = excluded.epoch_max, checksum = excluded.checksum, release = excluded.release,
      would_refuse = excluded.would_refuse, seen_at = excluded.seen_at,
      would_refuse_at = case when exists (
        select 1 from jsonb_each_text(excluded.would_refuse) as n(code, count)
         where n.count::numeric > case when r.instance = excluded.instance
           then coalesce((r.would_refuse ->> n.code)::numeric, 0) else 0 end
      ) then clock_timestamp() else r.would_refuse_at end
    returning r.keys`);
  return announcedKeysSchema.parse(rows[0]?.["keys"]);
}

export const sameKeys = (a: readonly AnnouncedKey[], b: readonly AnnouncedKey[]): boolean =>
  JSON.stringify(a.map(({ id }) => id)) === JSON.stringify(b.map(({ id }) => id));

/**
 * A router has other keys now: the next revision of the table names them. Throws RECOVERING while
 * tables must not change; the router says it again with its next call.
 */
export async function publishRouterKeys(
  tx: Tx,
  router: string,
  keys: readonly AnnouncedKey[],
): Promise<void> {
  await lockNormalFleet(tx);
  const { rows } = await tx.execute(
    sql`select keys from cellfleet_control.router where id = ${router} for update`,
  );
  // Another control plane may have heard the same call.
  if (rows[0] === undefined || sameKeys(announcedKeysSchema.parse(rows[0]["keys"]), keys)) return;
  await changeRouting(tx, { config: true });
  await tx.execute(sql`
    update cellfleet_control.router set keys = ${JSON.stringify(keys)}::jsonb where id = ${router}`);
}

/** Routers that have not called for so long are gone; if one comes back, it announces its keys again. */
export const routerKeysKeptMs = 7 * 24 * 3_600_000;

/** Cells believe what such a router signed no longer. Returns whose keys are gone. */
export async function retireRouterKeys(tx: Tx): Promise<readonly string[]> {
  const silent = sql`keys <> '[]'::jsonb
    and seen_at < clock_timestamp() - ${routerKeysKeptMs} * interval '1 millisecond'`;
  const { rows: some } = await tx.execute(
    sql`select 1 from cellfleet_control.router where ${silent} limit 1`,
  );
  if (some.length === 0) return [];
  await changeRouting(tx, { config: true });
  const { rows } = await tx.execute(
    sql`update cellfleet_control.router set keys = '[]'::jsonb where ${silent} returning id`,
  );
  return rows.map((row) => String(row["id"]));
}

/** An operation may be waiting for this acknowledgement. */
export async function announceAcknowledgement(reader: Reader): Promise<void> {
  await reader.execute(sql`select pg_notify(${channels.op}, '')`);
}
