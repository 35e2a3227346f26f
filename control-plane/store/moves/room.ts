/**
 * The room that a move takes: reserved in the target when it is recorded, given back when it is taken
 * back, and handed over when its keys change hands. What tenants weigh is counted in their owner's
 * cell alone, so at the hand-over the target's reservation becomes what they weigh by then.
 */
import { eq, sql } from "drizzle-orm";
import { z } from "zod";
import type { Tx } from "../database.ts";
import { findOp } from "../ops.ts";
import type { Load } from "../placements.ts";
import { cell } from "../schema.ts";
import { moveKey } from "../schema-moves.ts";

const inputSchema = z.object({
  source: z.string(),
  target: z.string(),
  room: z.object({ tenants: z.number(), bytes: z.number(), rps: z.number() }),
});

/** Without a limit: for a way back, whose rows stand there already. */
export const takeRoom = (tx: Tx, cellId: string, load: Load): Promise<unknown> =>
  change(tx, cellId, load, 1);

/** A move that is taken back before its keys changed hands. */
export async function giveRoomBack(tx: Tx, op: string): Promise<void> {
  const { target, room } = await roomOf(tx, op);
  await change(tx, target, room, -1);
}

/** In the transaction in which its keys change hands. */
export async function handRoomOver(tx: Tx, op: string): Promise<void> {
  const { source, target, room } = await roomOf(tx, op);
  const { rows } = await tx.execute<Load>(sql`
    select count(*)::int as tenants,
           coalesce(sum(greatest(t.size_bytes, t.measured_bytes)), 0)::float8 as bytes,
           coalesce(sum(greatest(t.size_rps, t.measured_rps)), 0)::float8 as rps
      from ${moveKey} as k
      join cellfleet_control.tenant as t on t.placement_key = k.key
     where k.op = ${op}`);
  const now = rows[0] ?? { tenants: 0, bytes: 0, rps: 0 };
  await change(tx, source, now, -1);
  await change(tx, target, room, -1);
  await change(tx, target, now, 1);
}

async function roomOf(tx: Tx, op: string) {
  return inputSchema.parse((await findOp(tx, op))?.input);
}

const change = (tx: Tx, cellId: string, load: Load, sign: 1 | -1): Promise<unknown> =>
  tx
    .update(cell)
    .set({
      usedTenants: sql`greatest(0, ${cell.usedTenants} + ${sign * load.tenants})`,
      usedBytes: sql`greatest(0, ${cell.usedBytes} + ${sign * load.bytes})`,
      usedRps: sql`greatest(0, ${cell.usedRps} + ${sign * load.rps})`,
    })
    .where(eq(cell.id, cellId));
