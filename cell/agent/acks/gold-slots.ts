/**
 * Pure: which replication slots of this database feed an annex, and have they confirmed a position? The
 * names are those that standbys are made with: `sb_ANNEX_STORE`, or a part of that and a mark of both.
 */
import { parseLsn } from "../position.ts";

export type SlotRow = {
  readonly name: string;
  readonly active: boolean;
  /** All before it is applied and durable over there; null: nothing yet. */
  readonly flushed: string | null;
};

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
  const begin = `sb_${annex.replaceAll("-", "_")}_`;
  const plain = rows.filter(
    ({ name }) => name.startsWith(begin) && /^[a-z0-9]+$/.test(name.slice(begin.length)),
  );
  if (plain.length > 0) return plain;
  const cut = begin.slice(0, plainCharsMax);
  return rows.filter(({ name }) => name.startsWith(cut) && /_[0-9a-f]{12}$/.test(name));
}
