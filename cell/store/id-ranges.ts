/**
 * Leased id ranges: disjoint between cells, taken ahead of need, so that ids outlast an outage of the
 * control plane. See cell/sql/070-ids.sql for why no id is given twice.
 */
import { z } from "zod";
import type { Queryable } from "./queryable.ts";

const lowRangeSchema = z.object({
  /** `public.orders_id_seq` */
  sequence: z.string(),
  /** A new range must begin above it. */
  floor: z.number(),
});
export type LowRange = z.infer<typeof lowRangeSchema>;

/** Sequences that have no untouched range in stock: ask for one for each. */
export async function readLowRanges(client: Queryable): Promise<LowRange[]> {
  const { rows } = await client.query<{ low: unknown }>(
    "select to_jsonb(l) as low from cellfleet.low_ranges() l",
  );
  return rows.map((row) => lowRangeSchema.parse(row.low));
}

const heldSchema = z.object({ sequence: z.string(), max: z.number() });
/** The highest id given or held, per sequence, so that a restored control plane hands none out again. */
export async function readHeldRanges(client: Queryable): Promise<z.infer<typeof heldSchema>[]> {
  const { rows } = await client.query<{ held: unknown }>(
    "select to_jsonb(h) as held from cellfleet.held_ranges() h",
  );
  return rows.map((row) => heldSchema.parse(row.held));
}

export type IdRange = { readonly sequence: string; readonly lo: number; readonly hi: number };

/**
 * `refused`: the range does not lie above everything known here, or the sequence is unknown or its
 * type too small; ask again with the present floor. Its ids are then never used, which is harmless.
 */
export type IdRangeOutcome = "added" | "same" | "refused";

export async function addIdRange(client: Queryable, range: IdRange): Promise<IdRangeOutcome> {
  const { rows } = await client.query<{ outcome: IdRangeOutcome }>(
    "select cellfleet.add_id_range($1, $2, $3) as outcome",
    [range.sequence, range.lo, range.hi],
  );
  return z.enum(["added", "same", "refused"]).parse(rows[0]?.outcome);
}
