/** Failovers as their executor reads them: rows of `op` and `failover` as one value, and its notes. */
import { and, eq, inArray, sql } from "drizzle-orm";
import { z } from "zod";
import { failoverSteps } from "../../../contract/failover-api.ts";
import { cellIdSchema, opIdSchema } from "../../../contract/ids.ts";
import {
  type FailoverEvidence,
  type FailoverProgress,
  type FailoverRun,
  noProgress,
} from "../../core/failover/phases.ts";
import type { Reader } from "../database.ts";
import { op } from "../schema.ts";
import { failover } from "../schema-standby.ts";
import { failoverKind } from "./read.ts";

const severedSchema = z.object({
  stores: z.array(z.object({ name: z.string(), remoteLsn: z.string().nullable() })),
  heartbeatAgeMs: z.number().nullable(),
});
const lookSchema = z.object({
  ...{ annex: z.string(), instance: z.string(), boot: z.string() },
  ...{ appReachable: z.boolean(), databaseReachable: z.boolean(), silentMs: z.number() },
  ...{ hostBoot: z.string(), hostHealth: z.string(), errorShare: z.number().nullable() },
});
const evidenceSchema = z.object({
  goneForMs: z.number().optional(),
  enteredAtMs: z.number().optional(),
  before: z.object({ state: z.string(), goal: z.string() }).optional(),
  lease: z
    .object({ ttlMs: z.number(), sinceGrantMs: z.number().nullable(), waitMs: z.number() })
    .optional(),
  proof: z.string().optional(),
  annexes: z
    .record(
      z.string(),
      z.object({
        status: z.enum(["ordered", "stopped", "severed", "left-out"]),
        reason: z.string(),
        severed: severedSchema.optional(),
      }),
    )
    .default({}),
  baseline: z.array(lookSchema).optional(),
  poisoned: z
    .array(
      z.object({
        ...{ annex: z.string(), sign: z.string(), suspects: z.number() },
        spared: z.number().optional(),
        because: z.array(z.object({ key: z.string(), because: z.string() })).optional(),
      }),
    )
    .optional(),
  canaries: z.record(z.string(), z.string()).optional(),
});
const progressSchema = z.object({
  ...{ keys: z.number(), adopted: z.number(), routed: z.number() },
  ...{ unavailable: z.number(), quarantined: z.number(), reprotected: z.number() },
});
const optionsSchema = z.object({ provedDead: z.boolean().default(false) }).catch({
  provedDead: false,
});

type Rows = {
  readonly op: typeof op.$inferSelect;
  readonly failover: typeof failover.$inferSelect;
};

function toRun({ op: of, failover: own }: Rows): FailoverRun {
  return {
    id: opIdSchema.parse(of.id),
    cell: cellIdSchema.parse(own.cell),
    step: z.enum(failoverSteps).parse(of.step),
    state: of.state,
    headline: of.headline,
    attempt: of.attempt,
    version: of.version,
    createdAtMs: of.createdAt.getTime(),
    mode: own.mode,
    startedBy: own.startedBy,
    wish: own.wish,
    provedDead: optionsSchema.parse(own.options).provedDead,
    evidence: evidenceSchema.parse(own.evidence),
    phases: z.record(z.string(), z.number()).catch({}).parse(own.phases),
    progress: progressSchema.catch(noProgress).parse(own.progress),
    fencedAtMs: own.fencedAt?.getTime() ?? null,
  };
}

export async function findRun(reader: Reader, id: string): Promise<FailoverRun | undefined> {
  const [row] = await reader
    .select({ op, failover })
    .from(failover)
    .innerJoin(op, eq(op.id, failover.op))
    .where(eq(failover.op, id));
  return row === undefined ? undefined : toRun(row);
}

/** Failovers that are not over, oldest first. */
export async function openRuns(reader: Reader): Promise<FailoverRun[]> {
  const rows = await reader
    .select({ op, failover })
    .from(op)
    .innerJoin(failover, eq(op.id, failover.op))
    .where(and(eq(op.kind, failoverKind), inArray(op.state, ["pending", "running"])))
    .orderBy(op.id);
  return rows.map(toRun);
}

/** In passing: what is waited for, what was learnt. Changes no version. */
export async function noteRun(
  reader: Reader,
  id: string,
  note: {
    readonly headline?: string;
    readonly evidence?: Partial<FailoverEvidence>;
    readonly progress?: FailoverProgress;
  },
): Promise<void> {
  const { headline, evidence, progress } = note;
  if (evidence !== undefined || progress !== undefined) {
    await reader
      .update(failover)
      .set({
        ...(progress === undefined ? {} : { progress }),
        ...(evidence === undefined
          ? {}
          : { evidence: sql`${failover.evidence} || ${JSON.stringify(evidence)}::jsonb` }),
      })
      .where(eq(failover.op, id));
  }
  if (headline !== undefined) await reader.update(op).set({ headline }).where(eq(op.id, id));
}

/** How far it is, counted from what became of each key. */
export async function countProgress(
  reader: Reader,
  run: Pick<FailoverRun, "id" | "cell">,
): Promise<FailoverProgress> {
  const { rows } = await reader.execute<FailoverProgress>(sql`
    select (select count(*)::int from cellfleet_control.failover_key where failover = ${run.id})
         + (select count(*)::int from cellfleet_control.placement as p
             where p.cell = ${run.cell} and not p.deleted and not exists (
               select from cellfleet_control.failover_key as k
                where k.failover = ${run.id} and k.key = p.key)) as keys,
           count(*) filter (where k.fate in ('adopted', 'returned'))::int as adopted,
           count(*) filter (where k.fate in ('adopted', 'returned')
             and p.state in ('active', 'hold', 'suspended'))::int as routed,
           count(*) filter (where k.fate = 'unavailable')::int as unavailable,
           count(*) filter (where k.fate = 'quarantined')::int as quarantined,
           count(*) filter (where k.fate = 'adopted' and p.cell <> k.target)::int as reprotected
      from cellfleet_control.failover_key as k
      left join cellfleet_control.placement as p on p.key = k.key and not p.deleted
     where k.failover = ${run.id}`);
  return rows[0] ?? noProgress;
}
