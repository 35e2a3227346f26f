/**
 * The two passes of recovery over all keys, each in one transaction under the fleet's lock: the first
 * finds the losers and tells them, the second, after they obeyed, writes the placements and ends
 * recovery. Both stream the same facts through the same decision, and nothing can change in between:
 * while recovery runs only claims are written, and those only while it collects.
 */
import { sql } from "drizzle-orm";
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import type { PlacementState } from "../../contract/control-api.ts";
import { type Claim, decideKey, type KeyDecision, revisionMargin } from "../core/recovery.ts";
import { mayHaveHeir } from "../core/recovery-heirs.ts";
import type { Tx } from "./database.ts";
import { rowsPerRevisionMax } from "./ownership-feed.ts";
import { buryLost } from "./recovery-burial.ts";
import { readHeirs } from "./recovery-heirs.ts";
import type { FleetRow } from "./routing-change.ts";

const fetchRows = 5000;

type FactRow = {
  readonly key: string;
  readonly knownCell: string | null;
  readonly knownEpoch: number;
  readonly knownState: PlacementState;
  readonly deleted: boolean;
  readonly cell: string | null;
  readonly state: OwnershipState;
  readonly epoch: number;
};

export type DecidedKey = { readonly key: string; readonly decision: KeyDecision };

/** Decides every key that the database or a cell knows, batch by batch, in order of key. */
export async function decideAllKeys(
  tx: Tx,
  fleet: FleetRow,
  onBatch: (batch: readonly DecidedKey[]) => Promise<void>,
): Promise<void> {
  const { rows } = await tx.execute<{ cell: string }>(
    sql`select cell from cellfleet_control.recovery_cell where state = 'reported'`,
  );
  const reported = new Set(rows.map(({ cell }) => cell));
  const heirs = await readHeirs(tx);
  const decide = (facts: readonly FactRow[]): DecidedKey | undefined => {
    const [first] = facts;
    if (first === undefined) return undefined;
    const claims = facts.flatMap(({ cell, state, epoch }): Claim[] =>
      cell === null ? [] : [{ cell, state, epoch }],
    );
    const { key, knownCell, knownEpoch, knownState, deleted } = first;
    const known =
      knownCell === null
        ? undefined
        : { cell: knownCell, epoch: knownEpoch, state: knownState, deleted };
    const decision = decideKey({
      known,
      claims,
      hasReported: (cell) => reported.has(cell),
      mayHaveHeir: (claim) =>
        heirs.silent.size > 0 &&
        mayHaveHeir(heirs, claim, { claims, known, bucket: heirs.bucketOf(key) }),
      epochFloor: fleet.epochMaxSeen,
    });
    return { key, decision };
  };
  await eachKey(tx, async (keys) => onBatch(keys.flatMap((facts) => decide(facts) ?? [])));
}

/** Rows of one key stand together; a batch ends between two keys. */
async function eachKey(
  tx: Tx,
  onBatch: (keys: readonly (readonly FactRow[])[]) => Promise<void>,
): Promise<void> {
  await tx.execute(sql`
    declare fact no scroll cursor for
    select coalesce(p.key, c.key) as key, p.cell as "knownCell",
           coalesce(p.epoch, 0)::float8 as "knownEpoch", p.state as "knownState",
           coalesce(p.deleted, false) as deleted, c.cell, c.state, coalesce(c.epoch, 0)::float8 as epoch
      from cellfleet_control.placement as p
      full join cellfleet_control.recovery_claim as c on c.key = p.key
     order by 1`);
  let open: FactRow[] = [];
  for (;;) {
    const { rows } = await tx.execute<FactRow>(sql.raw(`fetch ${fetchRows} from fact`));
    const keys: FactRow[][] = [];
    for (const row of rows) {
      if (open[0] !== undefined && open[0].key !== row.key) {
        keys.push(open);
        open = [];
      }
      open.push(row);
    }
    if (rows.length < fetchRows && open.length > 0) keys.push(open);
    if (keys.length > 0) await onBatch(keys);
    if (rows.length < fetchRows) break;
  }
  await tx.execute(sql`close fact`);
}

/** Above everything that anybody has presented, with room for a router that was away. */
export const recoveredRevision = (fleet: FleetRow): number =>
  Math.max(fleet.revision, fleet.revisionMaxSeen) + revisionMargin;

/** Writes what losers must be told; returns how many, and the revision at which all of them know. */
export async function writeLosers(
  tx: Tx,
  fleet: FleetRow,
  opId: string,
): Promise<{
  readonly losers: number;
  readonly fenceRevision: number;
  /** The highest epoch that losers now come to know. */
  readonly epochMax: number;
}> {
  let losers = 0;
  let epochMax = 0;
  let revision = recoveredRevision(fleet) + 1;
  await decideAllKeys(tx, fleet, async (batch) => {
    const told = batch.flatMap(({ key, decision }) =>
      decision.losers.map((cell) => ({ cell, key, epoch: decision.loserEpoch })),
    );
    if (told.length === 0) return;
    losers += told.length;
    epochMax = told.reduce((most, { epoch }) => Math.max(most, epoch), epochMax);
    await tx.execute(sql`
      insert into cellfleet_control.disowned as d (cell, key, state, epoch, op, attempt, revision)
      select t.cell, t.key, 'moved', t.epoch, ${opId}, 0, ${revision}
        from jsonb_to_recordset(${JSON.stringify(told)}::jsonb) as t(cell text, key text, epoch bigint)
      on conflict (cell, key) do update set state = 'moved', epoch = excluded.epoch,
        op = excluded.op, attempt = 0, revision = excluded.revision`);
    // A batch of keys has at most as many rows as a page of an agent may have in one revision.
    revision += 1;
  });
  return { losers, fenceRevision: revision, epochMax };
}

export type MergeCounts = {
  readonly kept: number;
  readonly owned: number;
  readonly unavailable: number;
  readonly gone: number;
  readonly revision: number;
};

/** Writes the placements as decided, under revisions above the fence. */
export async function writePlacements(tx: Tx, fleet: FleetRow, opId: string): Promise<MergeCounts> {
  const counts = { keep: 0, own: 0, unavailable: 0, gone: 0, ignore: 0 };
  await tx.execute(sql`
    create temporary table recovered (
      no bigint generated always as identity, key text not null, outcome text not null,
      cell text not null, epoch bigint not null) on commit drop`);
  await decideAllKeys(tx, fleet, async (batch) => {
    const rows = batch.flatMap(({ key, decision: { outcome } }) => {
      counts[outcome.kind] += 1;
      return outcome.kind === "ignore" ? [] : [{ key, ...outcome }];
    });
    await tx.execute(sql`
      insert into recovered (key, outcome, cell, epoch)
      select r.key, r.kind, r.cell, r.epoch
        from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
          as r(key text, kind text, cell text, epoch bigint)`);
  });
  const first = Math.max(fleet.fenceRevision, recoveredRevision(fleet)) + 1;
  await createKeyspaces(tx);
  const { rows } = await tx.execute<{ revision: number }>(sql`
    with written as (
      insert into cellfleet_control.placement as p
        (key, keyspace, kind, value, cell, epoch, state, revision, op, attempt, deleted)
      select r.key, split_part(r.key, '/', 1), split_part(r.key, '/', 2), split_part(r.key, '/', 3),
             r.cell, r.epoch,
             case r.outcome when 'keep' then 'active' when 'own' then 'pending' else 'unavailable' end,
             ${first} + (r.no - 1) / ${rowsPerRevisionMax}, ${opId}, 0, r.outcome = 'gone'
        from recovered as r
      on conflict (key) do update set cell = excluded.cell, epoch = excluded.epoch,
        -- What an operator has refused or given up is not served again because of a restore.
        state = case when p.state in ('suspended', 'deleting') and not excluded.deleted
                     then p.state else excluded.state end,
        revision = excluded.revision, deleted = excluded.deleted,
        op = case when excluded.state = 'active' or p.state in ('suspended', 'deleting')
                  then p.op else excluded.op end,
        attempt = case when excluded.state = 'active' or p.state in ('suspended', 'deleting')
                       then p.attempt else 0 end
      returning p.revision
    )
    select coalesce(max(revision), ${first})::float8 as revision from written`);
  const revision = rows[0]?.revision ?? first;
  await buryLost(tx, { op: opId, revision });
  await writeTenants(tx);
  return {
    kept: counts.keep,
    owned: counts.own,
    unavailable: counts.unavailable,
    gone: counts.gone,
    revision,
  };
}

/** A keyspace that was made after the backup: its keys say what it must have been. */
async function createKeyspaces(tx: Tx): Promise<void> {
  await tx.execute(sql`
    insert into cellfleet_control.keyspace (name, strategy, slot_count, guard_mode)
    select k.name, case when k.slots > 0 then 'slots' when k.ranges > 0 then 'range' else 'directory' end,
           case when k.slots > 0 then k.slots end, 'strict'
      from (select split_part(key, '/', 1) as name,
                   count(*) filter (where split_part(key, '/', 2) = 'range') as ranges,
                   -- All slots of a keyspace are placed together, so the highest says how many there are.
                   coalesce(2 ^ ceil(log(2, max(case when split_part(key, '/', 2) = 'slot'
                     then split_part(key, '/', 3)::int + 1 end))), 0)::int as slots
              from recovered group by 1) as k
    on conflict (name) do nothing`);
}

/** Tenants found in cells come back with what is known of them: their id. Room is counted anew. */
async function writeTenants(tx: Tx): Promise<void> {
  await tx.execute(sql`
    insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
    select split_part(r.key, '/', 3), split_part(r.key, '/', 1), 'standard', 0, 0,
           '{"recovered": "true"}', r.key
      from recovered as r
     where split_part(r.key, '/', 2) = 'tenant' and r.outcome in ('own', 'keep', 'unavailable')
    on conflict (id) do nothing`);
  await tx.execute(sql`
    delete from cellfleet_control.tenant as t using recovered as r
     where r.outcome = 'gone' and t.placement_key = r.key and split_part(r.key, '/', 2) = 'tenant'`);
  await tx.execute(sql`
    update cellfleet_control.cell as c set used_tenants = coalesce(u.tenants, 0),
           used_bytes = coalesce(u.bytes, 0), used_rps = coalesce(u.rps, 0)
      from cellfleet_control.cell as x
      left join (
        select p.cell, count(*) as tenants, sum(greatest(t.size_bytes, t.measured_bytes)) as bytes,
               sum(greatest(t.size_rps, t.measured_rps)) as rps
          from cellfleet_control.tenant as t
          join cellfleet_control.placement as p on p.key = t.placement_key and not p.deleted
         group by p.cell) as u on u.cell = x.id
     where c.id = x.id`);
}
