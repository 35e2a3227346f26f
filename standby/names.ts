/**
 * Names of what a standby is made of in PostgreSQL: publication and slot at the origin and subscription in
 * the annex bear the same. Pure.
 *
 * Slots are the server's, not the database's, and a server may hold several cells: so annex (unique in the
 * fleet, never used again) and store are both in the name. At most 63 bytes, or PostgreSQL would cut it.
 */
import { createHash } from "node:crypto";
import type { CellId } from "../contract/ids.ts";

/** Room is left for what else is in the name of a session that works on the stream. */
const lengthMax = 52;

export function streamName(annex: CellId, store: string): string {
  const plain = `sb_${annex.replaceAll("-", "_")}_${store}`;
  // Without an underscore in the store's part, the last one tells the two parts apart.
  if (plain.length <= lengthMax && /^[a-z0-9]+$/.test(store)) return plain;
  const slug = plain.toLowerCase().replaceAll(/[^a-z0-9_]/g, "_");
  const mark = createHash("md5").update(`${annex}\n${store}`).digest("hex").slice(0, 12);
  return `${slug.slice(0, lengthMax - mark.length - 1)}_${mark}`;
}

/** `application_name` of sessions that make or change a stream: whoever comes later ends them. */
export const makerName = (stream: string): string => `${stream} maker`;
