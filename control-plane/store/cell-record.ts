/**
 * What is known of a cell when its agent calls, and what the agent says about itself. A heartbeat is
 * one small write; only a gate that comes or goes changes the routing table.
 */
import { sql } from "drizzle-orm";
import type {
  AgentSyncRequest,
  AgentSyncResponse,
  UnclassedTables,
} from "../../contract/cell-protocol.ts";
import type { CellState } from "../../contract/control-api.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { LeaseModeView } from "../core/lease-mode.ts";
import type { RecoveryCellState, RecoveryStep } from "../core/recovery.ts";
import { toUnclassed } from "./coverage-record.ts";
import type { Database, Reader } from "./database.ts";
import { changeRouting } from "./routing-change.ts";

export type CellRecord = {
  readonly fleet: string;
  readonly mode: "normal" | "recovering";
  readonly modeReason: string;
  readonly recoveryStep: RecoveryStep;
  /** Null: this cell has no part in a recovery. */
  readonly recoveryCell: RecoveryCellState | null;
  readonly revision: number;
  /** The highest that anybody may know without having seen another database than this one. */
  readonly revisionMax: number;
  readonly epochMaxSeen: number;
  readonly state: CellState;
  readonly revoking: boolean;
  readonly grant: number;
  readonly grantSeen: number;
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly boot: string;
  readonly bootInstance: string;
  readonly appliedRevision: number;
  /** What its agents are told; null for a cell that was not adopted: it enforces from its birth. */
  readonly stageGoal: CellStage | null;
  readonly stageNumber: number;
  readonly unclassed: UnclassedTables | null;
  readonly leaseMode: LeaseModeView;
};

export async function readCellRecord(
  reader: Reader,
  cell: string,
): Promise<CellRecord | undefined> {
  const { rows } = await reader.execute<CellRecord & { unclassed: unknown }>(sql`
    select f.id as fleet, f.mode, f.mode_reason as "modeReason", f.recovery_step as "recoveryStep",
           r.state as "recoveryCell", f.revision::float8 as revision, c.state, c.revoking,
           greatest(f.revision, f.fence_revision, f.revision_max_seen)::float8 as "revisionMax", f.epoch_max_seen::float8 as "epochMaxSeen",
           c.grant_no::float8 as "grant", c.grant_seen::float8 as "grantSeen",
           c.system_identifier as "systemIdentifier", c.timeline, c.boot,
           c.boot_instance as "bootInstance", c.applied_revision::float8 as "appliedRevision",
           case when c.adopted then c.stage_goal end as "stageGoal",
           c.stage_number::float8 as "stageNumber", c.unclassed,
           jsonb_build_object('mode', c.lease_mode, 'number', c.lease_mode_number,
                              'acked', c.lease_mode_acked) as "leaseMode"
      from cellfleet_control.fleet as f
      join cellfleet_control.cell as c on c.id = ${cell}
      left join cellfleet_control.recovery_cell as r on r.cell = c.id`);
  const [row] = rows;
  return row && { ...row, unclassed: toUnclassed(row.unclassed) };
}

export type StageGoal = { readonly stage: CellStage; readonly number: number };

/** What the agents of an adopted cell are told now: it may have changed while one waited. */
export async function readStageGoal(reader: Reader, cell: string): Promise<StageGoal | undefined> {
  const { rows } = await reader.execute<StageGoal>(sql`
    select stage_goal as stage, stage_number::float8 as number
      from cellfleet_control.cell where id = ${cell} and adopted`);
  return rows[0];
}

/** Agents of a cell that have been silent for longer than this are no gates any more, if another is. */
const agentGoneMs = 60_000;

/** True: the cell is reached through other gates than before, or they stand before other services. */
export async function recordAgent(reader: Reader, said: AgentSyncRequest): Promise<boolean> {
  const services = sql.param((said.services ?? [defaultService]).toSorted());
  // All parts of the statement see the table as it was before: `gates` are the old ones.
  const { rows } = await reader.execute<{ known: boolean; gone: boolean }>(sql`
    with gates as (
      select instance, endpoint, services from cellfleet_control.agent where cell = ${said.cell}
    ), written as (
      insert into cellfleet_control.agent as a
        (cell, instance, endpoint, is_primary, app_reachable, database_reachable, services, seen_at)
      values (${said.cell}, ${said.instance}, ${said.endpoint}, ${said.primary},
              ${said.app.reachable}, ${said.database.reachable}, ${services}::text[], clock_timestamp())
      on conflict (cell, instance) do update set endpoint = excluded.endpoint,
        is_primary = excluded.is_primary, app_reachable = excluded.app_reachable,
        database_reachable = excluded.database_reachable, services = excluded.services,
        seen_at = excluded.seen_at
    ), removed as (
      delete from cellfleet_control.agent
       where cell = ${said.cell} and instance <> ${said.instance}
         and seen_at < clock_timestamp() - make_interval(secs => ${agentGoneMs / 1000})
      returning endpoint
    )
    select exists (select 1 from gates where endpoint = ${said.endpoint}
                     and services = ${services}::text[]) as known,
           exists (select 1 from removed where endpoint <> ${said.endpoint}) as gone`);
  const row = rows[0];
  return row === undefined || !row.known || row.gone;
}

/** The routers learn the cell's gates anew. */
export async function announceGates(database: Database): Promise<void> {
  await database.transaction((tx) => changeRouting(tx, { config: true }));
}

/** What the cell's database has applied and seen; only what grew is written. */
export async function recordProgress(reader: Reader, said: AgentSyncRequest): Promise<void> {
  const { cell, appliedRevision, epochMax, release, schemaVersion, database, origin } = said;
  const controlGrant = origin?.controlGrant ?? database.grant;
  await reader.execute(sql`
    update cellfleet_control.cell set
      applied_revision = greatest(applied_revision, ${appliedRevision}),
      epoch_max_seen = greatest(epoch_max_seen, ${epochMax}),
      grant_seen = greatest(grant_seen, ${database.grant}),
      control_grant_seen = greatest(control_grant_seen, ${controlGrant}),
      release = ${release}, schema_version = ${schemaVersion}
    where id = ${cell} and (applied_revision < ${appliedRevision} or epoch_max_seen < ${epochMax}
      or grant_seen < ${database.grant} or control_grant_seen < ${controlGrant} or release <> ${release}
      or schema_version <> ${schemaVersion})`);
}

/**
 * How far the database of an adopted cell has come, as its primary agent says. A counter that has
 * grown says that something would have been refused a moment ago.
 */
export async function recordStage(reader: Reader, said: AgentSyncRequest): Promise<void> {
  if (said.stage === undefined || !said.primary) return;
  const { applied, number = 0, wouldRefuse, guardedTables } = said.stage;
  const counts = JSON.stringify(wouldRefuse);
  await reader.execute(sql`
    update cellfleet_control.cell as c set
      stage_applied = ${applied}, stage_applied_number = ${number}, guarded_tables = ${guardedTables}, would_refuse = ${counts}::jsonb,
      would_refuse_at = case when exists (
        select 1 from jsonb_each_text(${counts}::jsonb) as n(code, count)
         where n.count::numeric > coalesce((c.would_refuse ->> n.code)::numeric, 0)
      ) then clock_timestamp() else c.would_refuse_at end
    where c.id = ${said.cell} and (c.stage_applied <> ${applied}
      or c.stage_applied_number <> ${number} or c.guarded_tables <> ${guardedTables} or c.would_refuse <> ${counts}::jsonb)`);
}

/** Keyspaces as cells resolve tenants by them; the ranges of all cells, not only of this one. */
export async function readKeyspaces(reader: Reader): Promise<AgentSyncResponse["keyspaces"]> {
  const { rows } = await reader.execute<{
    keyspaces: AgentSyncResponse["keyspaces"];
  }>(sql`
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
             'name', k.name, 'strategy', k.strategy, 'slotCount', k.slot_count,
             'guardMode', k.guard_mode,
             'ranges', case when k.strategy = 'range' then (
               select coalesce(jsonb_agg(p.value order by p.value collate "C"), '[]')
                 from cellfleet_control.placement as p
                where p.keyspace = k.name and p.kind = 'range' and not p.deleted) end
           )) order by k.name), '[]') as keyspaces
      from cellfleet_control.keyspace as k`);
  return rows[0]?.keyspaces ?? [];
}
