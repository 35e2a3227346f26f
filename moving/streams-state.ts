/**
 * How far a stream is, and whether it can get there by itself: a slot that lost its log, a change that
 * cannot be applied, an object that somebody removed, a table that it does not carry. Reads only.
 *
 * A worker that fails is started anew by PostgreSQL, whatever it failed of: after a lost connection that is
 * what we want. So a stream is broken only when it fails again and again at the same place.
 */
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";
import { withMover } from "./connection.ts";
import type { StoreLogin, StreamState } from "./ports.ts";
import { unlikePublication } from "./streams-drift.ts";

type Stream = {
  readonly name: string;
  /** All of its guarded tables have to be in the stream. */
  readonly keyspace: string;
  readonly publisher: StoreLogin;
  readonly subscriber: StoreLogin;
};

const application = "cellfleet move state";

/** By name of the stream: the errors that were counted when it was last seen to get on, and where. */
export type StreamMemory = Map<string, { readonly errors: number; readonly place: string }>;

/** A connection may be lost twice before anything came through it. */
const errorsInPlaceMax = 3;

/** The worst of several: all have to arrive. */
export async function readStreams(
  streams: readonly Stream[],
  memory: StreamMemory,
): Promise<StreamState> {
  const states = await Promise.all(streams.map((stream) => readStream(stream, memory)));
  const lags = states.map(({ lagBytes }) => lagBytes);
  const broken = states.flatMap((state) => (state.broken === undefined ? [] : [state.broken]));
  return {
    lagBytes: lags.includes(null) ? null : Math.max(0, ...lags.map(Number)),
    broken: broken.length === 0 ? undefined : broken.join("; "),
  };
}

async function readStream(
  { name, keyspace, publisher, subscriber }: Stream,
  memory: StreamMemory,
): Promise<StreamState> {
  const [{ slot, unlike }, subscription] = await Promise.all([
    withMover(publisher, { name: application }, async (client) => ({
      slot: await readSlot(client, name),
      unlike: await unlikePublication(client, name, keyspace),
    })),
    withMover(subscriber, { name: application }, (client) => readSubscription(client, name)),
  ]);
  return {
    lagBytes: slot?.lag ?? null,
    broken:
      slotTrouble(slot, name, publisher) ??
      subscriptionTrouble(subscription, name, subscriber) ??
      unlike ??
      applyTrouble({ name, subscriber }, slot, subscription, memory),
  };
}

const slotSchema = z.object({
  lag: z.number().nullable(),
  lost: z.boolean(),
  why: z.string().nullable(),
  /** Up to here everything was applied and kept. */
  place: z.string(),
});
export type Slot = z.infer<typeof slotSchema>;

/** `replay_lsn` while somebody follows: what is applied there; else what was confirmed last. */
export async function readSlot(client: Queryable, name: string): Promise<Slot | undefined> {
  const { rows } = await client.query<{ slot: unknown }>(
    `select jsonb_build_object(
              'lag', greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(),
                       coalesce(r.replay_lsn, s.confirmed_flush_lsn)))::float8,
              'lost', s.wal_status = 'lost' or to_jsonb(s) ->> 'invalidation_reason' is not null,
              'place', coalesce(s.confirmed_flush_lsn::text, ''),
              'why', to_jsonb(s) ->> 'invalidation_reason') as slot
       from pg_replication_slots s
       left join pg_stat_replication r on r.pid = s.active_pid
      where s.slot_name = $1 and s.database = current_database()`,
    [name],
  );
  return rows[0] === undefined ? undefined : slotSchema.parse(rows[0].slot);
}

export function slotTrouble(
  slot: Slot | undefined,
  name: string,
  at: StoreLogin,
): string | undefined {
  if (slot === undefined) return `slot ${name} is gone from cell ${at.cell}, store ${at.store}`;
  if (!slot.lost) return undefined;
  return `slot ${name} in cell ${at.cell}, store ${at.store}, has lost write-ahead log that the other side still needs (${slot.why ?? "lost"}; max_slot_wal_keep_size is the limit)`;
}

const subscriptionSchema = z.object({
  enabled: z.boolean(),
  errors: z.number(),
  conflicts: z.array(z.string()),
});
export type Subscription = z.infer<typeof subscriptionSchema>;

/** Kinds of conflicts are counted since PostgreSQL 18; before, only that something failed. */
export async function readSubscription(
  client: Queryable,
  name: string,
): Promise<Subscription | undefined> {
  const { rows } = await client.query<{ subscription: unknown }>(
    `select jsonb_build_object('enabled', s.subenabled, 'errors', coalesce(t.apply_error_count, 0),
              'conflicts', (select coalesce(jsonb_agg(c.key order by c.key), '[]')
                              from jsonb_each_text(to_jsonb(t)) c
                             where c.key in ('confl_insert_exists', 'confl_update_exists', 'confl_multiple_unique_conflicts')
                               and c.value::bigint > 0)) as subscription
       from pg_subscription s
       join pg_database d on d.oid = s.subdbid and d.datname = current_database()
       left join pg_stat_subscription_stats t on t.subid = s.oid
      where s.subname = $1`,
    [name],
  );
  return rows[0] === undefined ? undefined : subscriptionSchema.parse(rows[0].subscription);
}

export function subscriptionTrouble(
  subscription: Subscription | undefined,
  name: string,
  at: StoreLogin,
): string | undefined {
  const where = `in cell ${at.cell}, store ${at.store}`;
  if (subscription === undefined) return `subscription ${name} is gone ${where}`;
  return subscription.enabled ? undefined : `subscription ${name} was switched off ${where}`;
}

export function applyTrouble(
  { name, subscriber }: Pick<Stream, "name" | "subscriber">,
  slot: Slot | undefined,
  subscription: Subscription | undefined,
  memory: StreamMemory,
): string | undefined {
  const errors = subscription?.errors ?? 0;
  const place = slot?.place ?? "";
  const seen = memory.get(name);
  // Counted anew after a crash of the server.
  if (seen === undefined || seen.place !== place || seen.errors > errors) {
    memory.set(name, { errors, place });
    return undefined;
  }
  const isConflict = (subscription?.conflicts ?? []).length > 0;
  if (errors - seen.errors < (isConflict ? 1 : errorsInPlaceMax)) return undefined;
  const why = isConflict
    ? "a row of the stream has a unique value that another row there has already"
    : "the tables of the two cells differ, or a constraint refuses the change";
  return `subscription ${name} cannot go on in cell ${subscriber.cell}, store ${subscriber.store}: ${why}; the log of that server names the row`;
}
