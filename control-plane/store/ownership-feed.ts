/**
 * What a cell must be told about its keys, and what follows from what it has applied.
 *
 * The cursor of an agent is a revision, so a page ends between two revisions, never inside one:
 * whoever writes many rows at once spreads them over revisions of at most `rowsPerRevisionMax` rows
 * (they still commit together).
 */
import { sql } from "drizzle-orm";
import type {
  AgentSyncResponse,
  OwnershipChange,
  OwnershipState,
} from "../../contract/cell-protocol.ts";
import type { PlacementState } from "../../contract/control-api.ts";
import { parseEpoch, parseRevision } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import { assert, must } from "../../runtime/assert.ts";
import { ownershipOf } from "../core/ownership-view.ts";
import { type Database, type Reader, unlessBusy } from "./database.ts";
import { changeRouting } from "./routing-change.ts";

export const rowsPerRevisionMax = 5000;
/** Where a page ends if a revision ends there. */
const pageRowsWanted = 2 * rowsPerRevisionMax;
/** What one revision may change in one cell: all slots of a keyspace, and more. */
const pageRowsMax = 20_000;

/** Exactly one of `own` and `lost` is there: a row of `placement`, or one of `disowned`. */
type ChangeRow = {
  readonly key: string;
  readonly own: PlacementState | null;
  readonly lost: OwnershipState | null;
  readonly deleted: boolean;
  readonly epoch: number;
  readonly op: string;
  readonly attempt: number;
  readonly revision: number;
  /** Rows of the key are to be removed, and this cell has not confirmed that they are. */
  readonly purge: boolean;
};

export type OwnershipPage = Pick<AgentSyncResponse, "revision" | "changes" | "more">;

/** Changes of one cell above a revision, and the revision up to which they are complete. */
export async function readChanges(
  reader: Reader,
  cell: string,
  above: number,
): Promise<OwnershipPage> {
  // One statement is one snapshot: the fleet's revision and the rows belong together.
  const { rows } = await reader.execute<ChangeRow & { fleet: number; key: string | null }>(sql`
    select f.fleet::float8 as fleet, c.*, exists (
             select 1 from cellfleet_control.purge as u
              where u.op = c.op and u.cell = ${cell} and u.key = c.key and u.confirmed_at is null
           ) as purge
      from
      (select greatest(revision, fence_revision) as fleet from cellfleet_control.fleet) as f
    left join lateral (
      (select key, state as own, null as lost, deleted, epoch::float8 as epoch, op, attempt,
              revision::float8 as revision
         from cellfleet_control.placement
        where cell = ${cell} and revision > ${above}
          -- In the middle of a switch the executor alone tells the cell about the key. After it, a tenant
          -- that is resumed is held until its cell has heard of it.
          and not (state = 'hold' and exists (
            select from cellfleet_control.move_key as m join cellfleet_control.op as o on o.id = m.op
             where m.key = placement.key and m.open
               and o.step not in ('soaking', 'diverged', 'cleaning')))
        order by revision limit ${pageRowsMax + 1})
      union all
      (select key, null, state, false, epoch::float8, op, attempt, revision::float8
         from cellfleet_control.disowned
        where cell = ${cell} and revision > ${above} order by revision limit ${pageRowsMax + 1})
      order by revision limit ${pageRowsMax + 1}
    ) as c on true`);
  const upTo = must(rows[0], "fleet row").fleet;
  const found = rows.filter(({ key }) => key !== null);
  if (found.length <= pageRowsWanted) {
    return { revision: revisionOf(upTo), changes: toChanges(found), more: false };
  }
  const page = wholeRevisions(found);
  return {
    revision: revisionOf(page.at(-1)?.revision ?? 0),
    changes: toChanges(page),
    more: true,
  };
}

/** The longest beginning of about the wanted length that ends between two revisions. */
function wholeRevisions(rows: readonly ChangeRow[]): readonly ChangeRow[] {
  const isEnd = (at: number) => rows[at - 1]?.revision !== rows[at]?.revision;
  for (let at = pageRowsWanted; at > 0; at -= 1) if (isEnd(at)) return rows.slice(0, at);
  for (let at = pageRowsWanted; at < rows.length; at += 1) if (isEnd(at)) return rows.slice(0, at);
  assert(
    rows.length <= pageRowsMax,
    `one revision changes more than ${pageRowsMax} keys of a cell`,
  );
  return rows;
}

const revisionOf = (raw: number) => must(parseRevision(raw), "revision");

/** A key that was lost and came back stands in both tables; its last word counts. */
function toChanges(rows: readonly ChangeRow[]): OwnershipChange[] {
  const last = new Map(rows.map((row) => [row.key, row]));
  return [...last.values()].map((row) => ({
    key: placementKeySchema.parse(row.key),
    state:
      row.own === null
        ? must(row.lost, `state of ${row.key}`)
        : ownershipOf({ state: row.own, deleted: row.deleted }),
    epoch: must(parseEpoch(row.epoch), "epoch"),
    op: row.op,
    attempt: row.attempt,
    ...(row.purge ? { purge: true } : {}),
  }));
}

/**
 * What the cell has applied and read back becomes active, under one new revision per batch. Keys the
 * cell refused stay as they are.
 */
export async function activateApplied(
  database: Database,
  cell: string,
  applied: number,
  refused: readonly string[],
): Promise<number> {
  let all = 0;
  for (;;) {
    const changed = await activateBatch(database, cell, applied, refused);
    all += changed;
    if (changed < rowsPerRevisionMax) return all;
  }
}

async function activateBatch(
  database: Database,
  cell: string,
  applied: number,
  refused: readonly string[],
): Promise<number> {
  const candidates = sql`select key from cellfleet_control.placement
    where cell = ${cell} and state = 'pending' and not deleted and revision <= ${applied}
      and key <> all (${sql.param(refused)}::text[])`;
  const { rows: waiting } = await database.read.execute(sql`${candidates} limit 1`);
  if (waiting.length === 0) return 0;
  const changed = await unlessBusy(database, async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    const { rowCount } = await tx.execute(sql`
      update cellfleet_control.placement as p set state = 'active', revision = ${revision}
        from (${candidates} order by revision limit ${rowsPerRevisionMax} for update) as c
       where p.key = c.key`);
    return rowCount ?? 0;
  });
  return changed ?? 0;
}
