/**
 * What an agent presents to the control plane about its database (corrections A5, A14): all of one
 * moment, read before a lease is asked for.
 */
import { z } from "zod";
import { type CellStage, cellStages } from "../../contract/routing-table.ts";
import type { Queryable } from "./queryable.ts";
import { standbyFactsSchema } from "./standby-facts.ts";

const factsSchema = z.object({
  /** Null in a database that was never given to a cell. */
  cell: z.string().nullable(),
  systemIdentifier: z.string(),
  timeline: z.number(),
  /** `pg_postmaster_start_time()`, ISO 8601 with microseconds. */
  boot: z.string(),
  /** `cellfleet.clock()`, ISO 8601 with microseconds. */
  clock: z.string(),
  /** The highest grant ever stored here; 0 if none. */
  grant: z.number(),
  lease: z.object({
    live: z.boolean(),
    /** 0 when it is not live. */
    remainingMs: z.number(),
    /** Of the lease that stands, live or not; 0 if none. */
    grant: z.number(),
  }),
  epochMax: z.number(),
  appliedRevision: z.number(),
  /** A replica: nothing can be written, and there is no lease to be read. */
  inRecovery: z.boolean(),
  /** Durable in this database. */
  stage: z.enum(cellStages),
  /** Of the last change of stage that was made here, by the control plane's count; 0: none was. */
  stageNumber: z.number(),
  /** What was let pass in an earlier stage than `enforce`, by SQLSTATE, since the pack was installed. */
  wouldRefuse: z.record(z.string(), z.number()),
  guardedTables: z.number(),
  /** Of the application's tables, as last told; null if never. */
  schemaVersion: z.string().nullable(),
  /** As the origin of standbys, and as an annex. */
  standby: standbyFactsSchema,
});
export type DatabaseFacts = z.infer<typeof factsSchema>;

export async function readFacts(client: Queryable): Promise<DatabaseFacts> {
  const { rows } = await client.query<{ facts: unknown }>(
    `select jsonb_build_object(
       'cell', f.cell, 'systemIdentifier', f.system_identifier, 'timeline', f.timeline,
       'boot', f.boot, 'clock', f.clock, 'grant', f.grant_seen,
       'lease', jsonb_build_object('live', f.lease_live, 'remainingMs', f.lease_remaining_ms,
                                   'grant', coalesce(f.lease_grant, 0)),
       'epochMax', f.epoch_max, 'appliedRevision', f.applied_revision,
       'inRecovery', f.in_recovery, 'stage', f.stage, 'stageNumber', f.stage_number, 'wouldRefuse', f.would_refuse,
       'guardedTables', f.guarded_tables, 'schemaVersion', f.schema_version, 'standby', f.standby) as facts
     from cellfleet.facts() f`,
  );
  return factsSchema.parse(rows[0]?.facts);
}

export type StageCommand = { readonly stage: CellStage; readonly number: number };

/**
 * Idempotent. After `enforce` no transaction is left that wrote by leave of an earlier stage; throws
 * 55P03 when one was not done within `lockTimeoutMs`: nothing was changed, repeat. `stale`: the database
 * knows a later change, or another one of this number, and was not changed.
 */
export async function setStage(
  client: Queryable,
  { stage, number }: StageCommand,
  lockTimeoutMs = 1000,
): Promise<"done" | "stale"> {
  const { rows } = await client.query<{ done: boolean }>(
    "select cellfleet.set_stage($1, $2, $3) as done",
    [stage, number, lockTimeoutMs],
  );
  return rows[0]?.done === true ? "done" : "stale";
}

/** As the owner of the application's tables, when their migrations have run. */
export async function setSchemaVersion(client: Queryable, version: string): Promise<void> {
  await client.query("select cellfleet.set_schema_version($1)", [version]);
}
