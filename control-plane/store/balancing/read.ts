/** Drains and rebalances as they are read: rows of `op` whose executor is work/balancing. */
import { and, asc, eq, inArray, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import type { OpRow } from "../ops.ts";
import { op } from "../schema.ts";

export const drainKind = "cell.drain";
export const rebalanceKind = "fleet.rebalance";
const kinds = [drainKind, rebalanceKind] as const;

/** Not over, oldest first. */
export const openBalancings = (reader: Reader): Promise<OpRow[]> =>
  reader
    .select()
    .from(op)
    .where(and(inArray(op.kind, [...kinds]), inArray(op.state, ["pending", "running"])))
    .orderBy(asc(op.id));

/** The drain of a cell that is not over, locked: its executor, who notes something every moment, waits its turn. */
export async function lockOpenDrainOf(tx: Tx, cell: string): Promise<OpRow | undefined> {
  const [row] = await tx
    .select()
    .from(op)
    .where(
      and(eq(op.kind, drainKind), eq(op.object, cell), inArray(op.state, ["pending", "running"])),
    )
    .for("update")
    .limit(1);
  return row;
}

/** Where a key of a plan stands now. */
export type Standing = {
  readonly key: string;
  /** Null: it is gone. */
  readonly cell: string | null;
  readonly epoch: number;
  readonly isMoving: boolean;
  /** Moves of it that failed since the plan was begun, and how long ago the last one did. */
  readonly failures: number;
  readonly failedMs: number;
  readonly isActive: boolean;
};

export async function standingsOf(
  reader: Reader,
  keys: readonly string[],
  sinceOp: string,
): Promise<ReadonlyMap<string, Standing>> {
  const { rows } = await reader.execute<Standing>(sql`
    select k.key, p.cell, coalesce(p.epoch, 0)::float8 as epoch,
           coalesce(p.state = 'active', false) as "isActive",
           exists (select from cellfleet_control.move_key as m where m.key = k.key and m.open) as "isMoving",
           coalesce(f.failures, 0)::int as failures, coalesce(f.ms, 0)::float8 as "failedMs"
      from jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb) as k(key)
      left join cellfleet_control.placement as p on p.key = k.key and not p.deleted
      left join lateral (
        select count(*) as failures,
               min(extract(epoch from clock_timestamp() - o.updated_at)) * 1000 as ms
          from cellfleet_control.move_key as m
          join cellfleet_control.op as o on o.id = m.op and o.state = 'failed'
         where m.key = k.key and m.op > ${sinceOp}
      ) as f on true`);
  return new Map(rows.map((row) => [row.key, row]));
}
