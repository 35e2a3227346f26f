/** Ids of annexes: counted up per pair of origin and host, and never used again. */
import { createHash } from "node:crypto";
import { eq } from "drizzle-orm";
import { annexId } from "../../../contract/annex.ts";
import { type CellId, cellIdSchema } from "../../../contract/ids.ts";
import type { Reader } from "../database.ts";
import { cell } from "../schema.ts";
import { standby } from "../schema-standby.ts";

const mark = (text: string): string => createHash("sha256").update(text, "utf8").digest("hex");

/** Rows of standbys that are gone stay, and so do retired cells: both are asked. */
export async function nextAnnexId(
  reader: Reader,
  origin: string,
  host: string,
): Promise<{ readonly annex: CellId; readonly generation: number }> {
  const rows = await reader
    .select({ host: standby.host, generation: standby.generation })
    .from(standby)
    .where(eq(standby.origin, origin));
  const last = rows.filter((one) => one.host === host).map(({ generation }) => generation);
  const pair = [cellIdSchema.parse(origin), cellIdSchema.parse(host)] as const;
  for (let generation = Math.max(0, ...last) + 1; ; generation += 1) {
    const annex = annexId(...pair, generation, mark);
    if ((await reader.$count(cell, eq(cell.id, annex))) === 0) return { annex, generation };
  }
}
