/**
 * Does the standby of a move's target have what the move brought there? Told by heartbeats: whatever the
 * target committed before one that an annex has applied is applied there too. All times are by the clock of
 * the control plane's database.
 */
import { sql } from "drizzle-orm";
import type { Reader } from "../database.ts";

/** Between an annex's look at its heartbeat and our note of it. */
const slackMs = 1000;

export type Moment = {
  readonly op: string;
  readonly cell: string;
  /** The entry of this step is the moment that must be passed. */
  readonly step: string;
};

/** Annexes of the cell that may be adopted from and have not passed it. A step that was never entered is passed. */
export async function standbysBehind(
  reader: Reader,
  { op, cell, step }: Moment,
): Promise<readonly string[]> {
  const { rows } = await reader.execute<{ annex: string }>(sql`
    with moment as (
      select max((s ->> 'at')::timestamptz) as at
        from cellfleet_control.op as o cross join jsonb_array_elements(o.steps) as s
       where o.id = ${op} and s ->> 'step' = ${step})
    select n.annex from cellfleet_control.standby as n cross join moment as m
     where n.origin = ${cell} and n.state in ('ready', 'adopting') and m.at is not null
       and coalesce(n.reported_at - n.heartbeat_age_ms * interval '1 millisecond', '-infinity')
           <= m.at + ${slackMs} * interval '1 millisecond'
    union all
    -- Whether its keys are found elsewhere is not known before its failover is over.
    select 'whoever takes ' || c.id || ' over' from cellfleet_control.cell as c
     where c.id = ${cell} and c.revoking
     order by 1`);
  return rows.map(({ annex }) => annex);
}

/** How long an operation has been in its step. */
export async function inStepMs(reader: Reader, op: string): Promise<number> {
  const { rows } = await reader.execute<{ ms: number }>(sql`
    select (extract(epoch from clock_timestamp() - updated_at) * 1000)::float8 as ms
      from cellfleet_control.op where id = ${op}`);
  return rows[0]?.ms ?? 0;
}
