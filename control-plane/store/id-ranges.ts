/** Id ranges for cells: disjoint for ever, handed out under the sequence's row lock. */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import type { Database } from "./database.ts";

const idsPerRange = 1_000_000;
/** One to use and one ahead: a cell goes on through an outage of the control plane. */
const rangesPerRequest = 2;
/** JavaScript reads ids as numbers. */
const idMax = 2 ** 53 - 1;

/**
 * `floor`: ids up to it are taken in the cell's own database, as when its table is older than the
 * fleet. Whatever a cell says it holds already is skipped, also for all other cells.
 */
export async function leaseIdRanges(
  database: Database,
  cell: string,
  wanted: AgentSyncRequest["wantIdRanges"],
  held: NonNullable<AgentSyncRequest["idRangesHeld"]>,
): Promise<AgentSyncResponse["idRanges"]> {
  if (wanted.length === 0) return [];
  const count = idsPerRange * rangesPerRequest;
  // In one order for all cells: two cells that ask for the same sequences do not block each other.
  const floors = new Map<string, number>();
  for (const { sequence, floor } of wanted) floors.set(sequence, floor);
  for (const { sequence, max } of held) {
    const floor = floors.get(sequence);
    if (floor !== undefined) floors.set(sequence, Math.max(floor, max));
  }
  const asked = [...floors].sort(([a], [b]) => Number(a > b) - Number(a < b));
  return database.transaction(async (tx) => {
    const ranges: AgentSyncResponse["idRanges"] = [];
    for (const [sequence, floor] of asked) {
      const { rows } = await tx.execute<{ next: number }>(sql`
        insert into cellfleet_control.id_sequence as s (sequence, next)
        values (${sequence}, ${floor + 1 + count})
        on conflict (sequence) do update set next = greatest(s.next, ${floor + 1}) + ${count}
          where greatest(s.next, ${floor + 1}) + ${count} <= ${idMax}
        returning next::float8 as next`);
      const next = rows[0]?.next;
      if (next === undefined) continue;
      for (let part = 0; part < rangesPerRequest; part += 1) {
        const lo = next - count + part * idsPerRange;
        ranges.push({ sequence, lo, hi: lo + idsPerRange - 1 });
      }
    }
    if (ranges.length > 0) {
      await tx.execute(sql`
        insert into cellfleet_control.id_lease (sequence, lo, hi, cell)
        select r.sequence, r.lo, r.hi, ${cell}
          from jsonb_to_recordset(${JSON.stringify(ranges)}::jsonb) as r(sequence text, lo bigint, hi bigint)`);
    }
    return ranges;
  });
}

/** A restored control plane may have forgotten ranges that cells use: nothing below them is handed out. */
export async function surpassHeldIds(
  database: Database,
  held: NonNullable<AgentSyncRequest["idRangesHeld"]>,
): Promise<void> {
  if (held.length === 0) return;
  await database.transaction((tx) =>
    tx.execute(sql`
      insert into cellfleet_control.id_sequence as s (sequence, next)
      select h.sequence, max(h.max) + 1
        from jsonb_to_recordset(${JSON.stringify(held)}::jsonb) as h(sequence text, max bigint)
       group by h.sequence order by h.sequence
      on conflict (sequence) do update set next = greatest(s.next, excluded.next)
        where s.next < excluded.next`),
  );
}
