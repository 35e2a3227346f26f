/**
 * The audit log: who, why, what before and after, written in the transaction of the effect and before
 * it (promise 10). Ids have no gaps; the end of the chain stands in the fleet row too, so a cut tail
 * shows. The fleet row's lock is what orders entries, so `recordAudit` takes it.
 */
import { and, asc, desc, eq, gt, gte, lt, sql } from "drizzle-orm";
import {
  type ChainCursor,
  type ChainedEntry,
  chainCursor,
  entryHash,
  followChain,
  recordable,
  recordableJson,
} from "./audit-chain.ts";
import type { Database, Reader, Tx } from "./database.ts";
import { lockFleet } from "./routing-change.ts";
import { audit, fleet } from "./schema.ts";

export type Actor = {
  /** Token id and name, or the part of the house that acts by itself. */
  readonly name: string;
  readonly role: string;
};

export type AuditRecord = {
  readonly actor: Actor;
  /** `tenant.create`, `cell.cordon`, … */
  readonly action: string;
  readonly object: string;
  readonly reason: string;
  /** `accepted`, or the code of the refusal. */
  readonly outcome: string;
  readonly before?: unknown;
  readonly after?: unknown;
};

/** Appends one entry; `nowMs` is the caller's clock. Secrets have no place in `before` and `after`. */
export async function recordAudit(tx: Tx, record: AuditRecord, nowMs: number): Promise<number> {
  const head = await lockFleet(tx);
  const body = {
    id: head.auditEntries + 1,
    atMs: nowMs,
    actor: recordable(record.actor.name),
    role: recordable(record.actor.role),
    action: recordable(record.action),
    object: recordable(record.object),
    reason: recordable(record.reason),
    outcome: recordable(record.outcome),
    before: recordableJson(record.before),
    after: recordableJson(record.after),
  };
  const hash = entryHash(head.auditHead, body);
  const { atMs, ...columns } = body;
  await tx.insert(audit).values({ ...columns, at: new Date(atMs), prev: head.auditHead, hash });
  await tx.update(fleet).set({ auditEntries: body.id, auditHead: hash }).where(eq(fleet.one, true));
  return body.id;
}

type AuditRow = typeof audit.$inferSelect;

export type AuditFilter = {
  /** Entries before this id: newest first. */
  readonly before: number;
  readonly limit: number;
  readonly actor?: string | undefined;
  readonly object?: string | undefined;
  readonly action?: string | undefined;
  readonly sinceMs?: number | undefined;
};

export async function listAudit(reader: Reader, filter: AuditFilter): Promise<AuditRow[]> {
  const { actor, object, action, sinceMs } = filter;
  return reader
    .select()
    .from(audit)
    .where(
      and(
        lt(audit.id, filter.before),
        actor === undefined ? undefined : sql`strpos(${audit.actor}, ${actor}) > 0`,
        object === undefined ? undefined : eq(audit.object, object),
        action === undefined ? undefined : eq(audit.action, action),
        sinceMs === undefined ? undefined : gte(audit.at, new Date(sinceMs)),
      ),
    )
    .orderBy(desc(audit.id))
    .limit(filter.limit);
}

const chainPage = (reader: Reader, after: number): Promise<AuditRow[]> =>
  reader.select().from(audit).where(gt(audit.id, after)).orderBy(asc(audit.id)).limit(pageRows);

export type AuditVerdict = {
  readonly ok: boolean;
  readonly entries: number;
  readonly head: string;
  readonly brokenAt: number | null;
  readonly text: string;
};

const pageRows = 1000;

/** Walks the whole chain in one snapshot, a page at a time, and compares its end with the fleet row's. */
export async function verifyAudit(database: Database): Promise<AuditVerdict> {
  return database.snapshot(async (tx) => {
    let cursor: ChainCursor = chainCursor;
    for (let after = 0; ; ) {
      const page = await chainPage(tx, after);
      for (const row of page) cursor = followChain(cursor, toEntry(row));
      const last = page.at(-1);
      if (last === undefined) break;
      after = last.id;
    }
    const [head] = await tx.select().from(fleet);
    return judge(cursor, head?.auditEntries ?? 0, head?.auditHead ?? "");
  });
}

function judge(cursor: ChainCursor, entries: number, head: string): AuditVerdict {
  if (cursor.brokenAt !== null) {
    const text = `Entry ${cursor.brokenAt} does not follow from the one before it: the log was changed.`;
    return { ok: false, ...cursor, text };
  }
  if (cursor.entries !== entries || cursor.head !== head) {
    const text = `The log ends after entry ${cursor.entries}, but ${entries} were written: its end was cut or added to.`;
    return { ok: false, ...cursor, brokenAt: Math.min(cursor.entries, entries) + 1, text };
  }
  return { ok: true, ...cursor, text: `All ${entries} entries follow from each other.` };
}

const toEntry = (row: AuditRow): ChainedEntry => {
  const { at, ...rest } = row;
  return { ...rest, atMs: at.getTime() };
};
