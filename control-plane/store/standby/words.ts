/**
 * What partners have told of a cell's database, and the wish to hear it again. Counted are those that the
 * cell was told of: they alone may have promised it something. One that leaves has others beside it, or was
 * given up because a person let back a database that has less than it.
 */
import { sql } from "drizzle-orm";
import type { PartnerWord } from "../../core/partner-word.ts";
import type { Reader } from "../database.ts";
import { channels } from "../notify.ts";

const counted = sql`s.listed_at is not null and s.state in ('announcing', 'ready', 'broken')`;

/** Their agents are answered at once, and call again. False: there is nobody to ask. */
export async function askPartners(reader: Reader, origin: string): Promise<boolean> {
  const { rowCount } = await reader.execute(sql`
    update cellfleet_control.standby as s set asked_at = clock_timestamp()
     where s.origin = ${origin} and ${counted}`);
  if (rowCount === 0) return false;
  await reader.execute(sql`select pg_notify(${channels.revision}, '')`);
  return true;
}

export async function readWords(reader: Reader, origin: string): Promise<PartnerWord[]> {
  const { rows } = await reader.execute<Omit<PartnerWord, "lsn"> & { lsn: string }>(sql`
    select s.annex, coalesce(s.seen_at > s.asked_at, false) as "isFresh",
           coalesce(h.state not in ('quarantined', 'retired') and not h.revoking, false) as "isAwaited",
           s.seen_system as "systemIdentifier", s.seen_timeline as timeline, s.seen_boot as boot,
           s.seen_grant::float8 as "grant", (s.seen_lsn::pg_lsn - '0/0'::pg_lsn)::text as lsn
      from cellfleet_control.standby as s
      left join cellfleet_control.cell as h on h.id = s.host
     where s.origin = ${origin} and ${counted}
     order by s.annex`);
  return rows.map(({ lsn, ...row }) => ({ ...row, lsn: BigInt(lsn) }));
}
