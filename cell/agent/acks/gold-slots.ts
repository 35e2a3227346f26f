/**
 * Pure: which replication slots feed an annex, and have they confirmed a position? The names are those that
 * standbys are made with: `sb_ANNEX_STORE`, or a part of that and a mark of both; or `sb_ANNEX__server`, which
 * a whole server follows. Where there is one of these it alone speaks: the others only keep a trail.
 */
import { serverSlot } from "../../../contract/annex.ts";
import { parseLsn } from "../position.ts";

export type SlotRow = {
  readonly name: string;
  readonly active: boolean;
  /** All before it is applied and durable over there; null: nothing yet. */
  readonly flushed: string | null;
};

/** Of this database, and of whole servers: what these have flushed they apply before they are promoted. */
export const slotsQuery = `select slot_name::text as name, active,
        coalesce(confirmed_flush_lsn, case when slot_type = 'physical' then restart_lsn end)::text as flushed
   from pg_replication_slots
  where (database = current_database() or slot_type = 'physical') and slot_name like 'sb\\_%'`;

/** As many characters of a name that is marked are the annex's own at least. */
const plainCharsMax = 39;

export type Replayed = "yes" | "not-yet" | "nobody-reads" | "no-slot";

export function replayedIn(rows: readonly SlotRow[], annex: string, lsn: bigint): Replayed {
  const slots = slotsOf(rows, annex);
  if (slots.length === 0) return "no-slot";
  const isBehind = ({ flushed }: SlotRow) => (parseLsn(flushed ?? "") ?? -1n) < lsn;
  const behind = slots.filter(isBehind);
  if (behind.length === 0) return "yes";
  return behind.some(({ active }) => !active) ? "nobody-reads" : "not-yet";
}

/** More than one only where names had to be cut alike: then all of them must have it. */
function slotsOf(rows: readonly SlotRow[], annex: string): readonly SlotRow[] {
  const server = rows.filter(({ name }) => name === serverSlot(annex));
  if (server.length > 0) return server;
  const begin = `sb_${annex.replaceAll("-", "_")}_`;
  const plain = rows.filter(
    ({ name }) => name.startsWith(begin) && /^[a-z0-9]+$/.test(name.slice(begin.length)),
  );
  if (plain.length > 0) return plain;
  const cut = begin.slice(0, plainCharsMax);
  return rows.filter(({ name }) => name.startsWith(cut) && /_[0-9a-f]{12}$/.test(name));
}
