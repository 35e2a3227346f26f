/**
 * Operations as rows. Every change is a compare-and-set on `version`, appends to the history when the
 * step changes, and wakes who watches.
 */
import { and, desc, eq, gte, inArray, lt, notInArray, type SQL, sql } from "drizzle-orm";
import { z } from "zod";
import type { Op, OpState, Plan } from "../../contract/control-api.ts";
import { opSchema } from "../../contract/control-api.ts";
import { providedCellSchema } from "../../contract/provider-api.ts";
import { must } from "../../runtime/assert.ts";
import { isoTime } from "../../runtime/clock.ts";
import type { OpView } from "../core/fleet.ts";
import type { OpKind } from "../core/ops/kinds.ts";
import type { Failure } from "../core/ops/machine.ts";
import { recordable } from "./audit-chain.ts";
import type { Reader, Tx } from "./database.ts";
import { channels } from "./notify.ts";
import { op } from "./schema.ts";

export type OpRow = typeof op.$inferSelect;

/** Kinds that have an executor of their own. */
const ownDrivers = [
  "tenant.move",
  "cell.failover",
  "cell.salvage",
  "cell.salvage-apply",
  "cell.wipe",
  "cell.drain",
  "fleet.rebalance",
] as const;

export type NewOp = {
  readonly id: string;
  /** Moves and failovers are driven by work/moving and work/failover, not by a machine of core/ops. */
  readonly kind: OpKind | (typeof ownDrivers)[number];
  readonly object: string;
  readonly step: string;
  readonly state: OpState;
  readonly headline: string;
  readonly plan: Plan;
  readonly input: Readonly<Record<string, unknown>>;
  readonly actor: string;
  readonly reason: string;
  readonly revision: number | null;
  readonly nowMs: number;
  readonly deadlineMs: number | undefined;
};

export async function insertOp(tx: Tx, fresh: NewOp): Promise<Op> {
  const { nowMs, deadlineMs, headline, ...columns } = fresh;
  const at = new Date(nowMs);
  const [row] = await tx
    .insert(op)
    .values({
      ...columns,
      headline: recordable(headline),
      steps: [{ step: fresh.step, at: isoTime(nowMs), text: recordable(headline) }],
      deadlineAt: deadlineMs === undefined ? null : new Date(nowMs + deadlineMs),
      createdAt: at,
      updatedAt: at,
    })
    .returning();
  await wakeWatchers(tx, [fresh.id]);
  return toOp(must(row, "inserted operation"));
}

export type OpChange = {
  readonly headline: string;
  readonly step?: string;
  readonly state?: OpState;
  readonly revision?: number;
  readonly failure?: Failure;
  readonly result?: Readonly<Record<string, unknown>>;
  /** Null: the step has no limit. */
  readonly deadlineAtMs?: number | null;
};

/** History entries kept; a machine has fewer steps than that. */
const historyMax = 50;

/** False: the row has another version than was seen, so somebody else acted on it. */
export async function changeOp(
  tx: Tx,
  seen: { readonly id: string; readonly version: number; readonly step: string },
  change: OpChange,
  nowMs: number,
): Promise<boolean> {
  return writeOp(tx, seen, change, nowMs, { told: sql`pg_notify(${channels.op}, ${op.id})` });
}

/** As `changeOp`; whoever changes many wakes their watchers together. */
export async function writeOp(
  tx: Tx,
  seen: { readonly id: string; readonly version: number; readonly step: string },
  change: OpChange,
  nowMs: number,
  more: Readonly<Record<string, SQL>> = {},
): Promise<boolean> {
  const headline = recordable(change.headline);
  const step = change.step ?? seen.step;
  const entry = JSON.stringify({ step, at: isoTime(nowMs), text: headline });
  const rows = await tx
    .update(op)
    .set({
      headline,
      step,
      version: sql`${op.version} + 1`,
      updatedAt: new Date(nowMs),
      ...(change.state === undefined ? {} : { state: change.state }),
      ...(change.revision === undefined ? {} : { revision: change.revision }),
      ...(change.failure === undefined ? {} : { error: failureJson(change.failure) }),
      ...(change.result === undefined
        ? {}
        : { result: sql`${op.result} || ${JSON.stringify(change.result)}::jsonb` }),
      ...(change.deadlineAtMs === undefined
        ? {}
        : {
            deadlineAt: change.deadlineAtMs === null ? null : new Date(change.deadlineAtMs),
          }),
      ...(step === seen.step && change.state === undefined
        ? {}
        : {
            steps: sql`case when jsonb_array_length(${op.steps}) < ${historyMax}
              then ${op.steps} || ${entry}::jsonb else ${op.steps} end`,
          }),
    })
    .where(and(eq(op.id, seen.id), eq(op.version, seen.version)))
    .returning({ id: op.id, ...more });
  return rows.length === 1;
}

export const wakeWatchers = (tx: Tx, ids: readonly string[]) =>
  tx.execute(
    sql`select pg_notify(${channels.op}, id) from jsonb_array_elements_text(${JSON.stringify(ids)}::jsonb) as ids(id)`,
  );

const failureJson = ({ code, message, nextSteps }: Failure) => ({
  code,
  message: recordable(message),
  next_steps: nextSteps.map(recordable),
});

/** A new leader gives what runs a fair chance: the time without a leader is not the operation's fault. */
export async function extendDeadlines(tx: Tx, untilMs: number): Promise<void> {
  const until = new Date(untilMs);
  await tx
    .update(op)
    .set({ deadlineAt: until })
    .where(and(inArray(op.state, openStates), lt(op.deadlineAt, until)));
}

const openStates: OpState[] = ["pending", "running"];

/** What machines of core/ops drive: not failovers, and not moves, of which many may wait for their turn. */
export const openOps = (reader: Reader, limit: number): Promise<OpRow[]> =>
  reader
    .select()
    .from(op)
    .where(and(inArray(op.state, openStates), notInArray(op.kind, [...ownDrivers])))
    .orderBy(op.id)
    .limit(limit);

export async function findOp(reader: Reader, id: string): Promise<OpRow | undefined> {
  const [row] = await reader.select().from(op).where(eq(op.id, id));
  return row;
}

/** The open operation on an object of this family (`cell.`), if there is one. */
export async function openOpOn(
  reader: Reader,
  object: string,
  family: string,
  /** Kinds of the family that are no obstacle. */
  ...but: readonly string[]
): Promise<OpRow | undefined> {
  const [row] = await reader
    .select()
    .from(op)
    .where(
      and(
        eq(op.object, object),
        inArray(op.state, openStates),
        ...(but.length === 0 ? [] : [notInArray(op.kind, [...but])]),
        sql`starts_with(${op.kind}, ${family})`,
      ),
    )
    .limit(1);
  return row;
}

/** The newest operation on an object of this family. */
export async function lastOpOn(
  reader: Reader,
  object: string,
  family: string,
): Promise<OpRow | undefined> {
  const [row] = await reader
    .select()
    .from(op)
    .where(and(eq(op.object, object), sql`starts_with(${op.kind}, ${family})`))
    .orderBy(desc(op.id))
    .limit(1);
  return row;
}

export type OpFilter = {
  /** Operations with an id below this: newest first. */
  readonly before: string | undefined;
  readonly limit: number;
  readonly state?: OpState | undefined;
  readonly kind?: string | undefined;
  readonly object?: string | undefined;
};

export const listOps = (reader: Reader, filter: OpFilter): Promise<OpRow[]> =>
  reader
    .select()
    .from(op)
    .where(
      and(
        filter.before === undefined ? undefined : lt(op.id, filter.before),
        filter.state === undefined ? undefined : eq(op.state, filter.state),
        filter.kind === undefined ? undefined : eq(op.kind, filter.kind),
        filter.object === undefined ? undefined : eq(op.object, filter.object),
      ),
    )
    .orderBy(desc(op.id))
    .limit(filter.limit);

export async function countOps(
  reader: Reader,
  failedSince: Date,
): Promise<{ readonly running: number; readonly failed: number }> {
  const running = await reader.$count(op, inArray(op.state, openStates));
  const failed = await reader.$count(
    op,
    and(eq(op.state, "failed"), gte(op.updatedAt, failedSince)),
  );
  return { running, failed };
}

const providerNoteSchema = z.object({
  answer: providedCellSchema.nullable(),
  action: z.string(),
  failures: z.number(),
  error: z.string(),
  askedAtMs: z.number(),
});
const recordSchema = z.record(z.string(), z.unknown()).catch({});

export function toOpView(row: OpRow): OpView {
  const note = providerNoteSchema.safeParse(recordSchema.parse(row.result)["provider"]);
  return {
    id: row.id,
    kind: row.kind,
    object: row.object,
    state: row.state,
    step: row.step,
    headline: row.headline,
    attempt: row.attempt,
    version: row.version,
    revision: row.revision,
    deadlineAtMs: row.deadlineAt?.getTime() ?? null,
    updatedAtMs: row.updatedAt.getTime(),
    input: recordSchema.parse(row.input),
    provider: note.data ?? null,
  };
}

/** The wire form. What was noted again because another control plane went on is told once. */
export function toOp(row: OpRow): Op {
  const { provider: _internal, ...result } = recordSchema.parse(row.result);
  const steps = opSchema.shape.steps.parse(row.steps);
  return opSchema.parse({
    ...row,
    steps: steps.filter(({ step, text }, index) => {
      const before = steps[index - 1];
      return before?.step !== step || before.text !== text;
    }),
    result,
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
  });
}
