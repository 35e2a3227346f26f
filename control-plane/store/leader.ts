/**
 * The leader's seat: one row, a term that only grows, an expiry by the database's own clock. Every
 * effect of a leader holds the row FOR SHARE and compares its term: a process that stalled past its
 * lease and comes back finds a greater term and changes nothing.
 */
import { and, eq, sql } from "drizzle-orm";
import type { Database, Reader, Tx } from "./database.ts";
import { leader } from "./schema.ts";

export type Seat = { readonly holder: string; readonly term: number; readonly live: boolean };

/** Takes the seat when it is vacant or expired: the new term. Undefined: somebody else holds it. */
export async function takeSeat(
  database: Database,
  holder: string,
  ttlMs: number,
): Promise<number | undefined> {
  const rows = await database.read
    .update(leader)
    .set({ holder, term: sql`${leader.term} + 1`, expiresAt: expiry(ttlMs) })
    .where(sql`${leader.expiresAt} < clock_timestamp()`)
    .returning({ term: leader.term });
  return rows[0]?.term;
}

/** False: the seat was lost. */
export async function keepSeat(
  database: Database,
  holder: string,
  term: number,
  ttlMs: number,
): Promise<boolean> {
  const rows = await database.read
    .update(leader)
    .set({ expiresAt: expiry(ttlMs) })
    .where(and(eq(leader.holder, holder), eq(leader.term, term)))
    .returning({ term: leader.term });
  return rows.length === 1;
}

/** An orderly end: the next one need not wait for the expiry. */
export async function leaveSeat(database: Database, holder: string, term: number): Promise<void> {
  await database.read
    .update(leader)
    .set({ expiresAt: sql`'-infinity'` })
    .where(and(eq(leader.holder, holder), eq(leader.term, term)));
}

/** In the transaction of an effect, before it: is this term still the last? */
export async function holdsTerm(tx: Tx, term: number): Promise<boolean> {
  const rows = await tx.select({ term: leader.term }).from(leader).for("share");
  return rows[0]?.term === term;
}

export async function readSeat(reader: Reader): Promise<Seat | undefined> {
  const rows = await reader
    .select({
      holder: leader.holder,
      term: leader.term,
      live: sql<boolean>`${leader.expiresAt} >= clock_timestamp()`,
    })
    .from(leader);
  return rows[0];
}

const expiry = (ttlMs: number) => sql`clock_timestamp() + ${ttlMs} * interval '1 millisecond'`;
