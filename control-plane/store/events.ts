/**
 * Events: one sentence each about what happened in the fleet, for people who watch.
 *
 * A watcher asks for ids after the last it saw, so an id must not appear below one already seen:
 * a lock that is held to the end of the transaction makes ids commit in order. It is the last lock
 * of any transaction: call `recordEvents` last.
 */
import { asc, desc, gt, lt, sql } from "drizzle-orm";
import { recordable } from "./audit-chain.ts";
import { advisoryLocks, type Reader, type Tx } from "./database.ts";
import { channels } from "./notify.ts";
import { event } from "./schema.ts";

export type NewEvent = {
  /** `noun.past-tense`: `cell.down`, `tenant.placed`, `op.failed`. */
  readonly kind: string;
  readonly object: string;
  readonly text: string;
};

export async function recordEvents(tx: Tx, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  await tx.execute(sql`select pg_advisory_xact_lock(${advisoryLocks.event})`);
  await tx.insert(event).values(
    events.map((one) => ({
      kind: one.kind,
      object: recordable(one.object),
      text: recordable(one.text),
    })),
  );
  await tx.execute(sql`select pg_notify(${channels.event}, '')`);
}

export type EventRow = typeof event.$inferSelect;

export const listEvents = (reader: Reader, after: number, limit: number): Promise<EventRow[]> =>
  reader.select().from(event).where(gt(event.id, after)).orderBy(asc(event.id)).limit(limit);

/** The newest `limit`, oldest of them first. */
export async function recentEvents(reader: Reader, limit: number): Promise<EventRow[]> {
  const rows = await reader.select().from(event).orderBy(desc(event.id)).limit(limit);
  return rows.reverse();
}

/** Forgets events older than `before`. */
export async function purgeEvents(tx: Tx, before: Date): Promise<void> {
  await tx.delete(event).where(lt(event.at, before));
}
