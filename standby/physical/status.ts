/**
 * How far a physical standby is, and whether it goes on by itself; on the way its trail is moved along.
 *
 * What must always be true: an origin that does not answer is no fault of the stream; a standby that could
 * not tell afterwards what it lacks (no trail, or one that begins where it has not come to) is not in step.
 */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import { serverSlot } from "../../contract/annex.ts";
import { CellError } from "../../contract/errors.ts";
import type { StoreLogin } from "../../moving/ports.ts";
import type { Clock } from "../../runtime/clock.ts";
import { standbyErrorOf } from "../keeper.ts";
import { streamName } from "../names.ts";
import type { StandbyPair, StandbyStatus } from "../ports.ts";
import type { Sessions } from "../sessions.ts";
import { heartbeatAge } from "./cut.ts";
import { firstOf } from "./server.ts";
import { moveTrail, readTrail, type Trail } from "./trail.ts";

export type StatusOptions = {
  readonly clock: Clock;
  readonly sessions: Sessions;
  /** By annex: since when its server receives nothing though the origin answers. */
  readonly deafSince: Map<string, number>;
};

/** A receiver that lost its connection comes back by itself, and sooner. */
const deafMsMax = 5000;

const serverSchema = z.object({
  following: z.boolean(),
  /** Is there a way to the origin in its files? */
  joined: z.boolean(),
  receiving: z.boolean(),
  applied: z.string().nullable(),
  age: z.number().nullable(),
});
type Server = z.infer<typeof serverSchema>;

const slotSchema = z.object({ lost: z.boolean(), lag: z.number() });
type AtOrigin = {
  /** Null: gone. */
  readonly slot: z.infer<typeof slotSchema> | null;
  readonly trails: ReadonlyArray<Trail | undefined>;
};

export async function readServer(
  pair: StandbyPair,
  options: StatusOptions,
): Promise<StandbyStatus> {
  const server = await readOwn(pair, options.sessions);
  if (server === undefined) return notMade;
  const atOrigin =
    server.following && server.applied !== null
      ? await readOrigin(pair, server.applied, options.sessions)
      : undefined;
  return {
    ...phaseOf(pair, server, atOrigin, options),
    lagBytes: atOrigin?.slot?.lag ?? null,
    heartbeatAgeMs: server.age,
    uncovered: [...new Set(atOrigin?.trails.flatMap((trail) => trail?.uncovered ?? []))],
  };
}

const notMade: StandbyStatus = {
  ...{ phase: "absent", reason: "", lagBytes: null, heartbeatAgeMs: null, uncovered: [] },
};

/**
 * Undefined: it was never made to the end, as the trail to it is laid last, or what it would follow by is
 * gone. One that is merely down throws.
 */
async function readOwn(pair: StandbyPair, sessions: Sessions): Promise<Server | undefined> {
  const { annex } = firstOf(pair);
  try {
    return await look(sessions, annex, (client) => readFollowing(client, pair.origin));
  } catch (error) {
    if (isUnreachable(error) && !(await wasMade(pair, sessions))) return undefined;
    throw error;
  }
}

async function wasMade(pair: StandbyPair, sessions: Sessions): Promise<boolean> {
  const slots = [
    serverSlot(pair.annex),
    ...pair.stores.map(({ name }) => streamName(pair.annex, name)),
  ];
  const { rows } = await look(sessions, firstOf(pair).origin, (client) =>
    client.query("select from pg_replication_slots where slot_name = any($1)", [slots]),
  );
  return rows.length === slots.length;
}

const isUnreachable = (error: unknown): boolean =>
  error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";

async function readFollowing(client: Queryable, origin: string): Promise<Server> {
  const { rows } = await client.query<{ server: unknown }>(
    `select jsonb_build_object('following', pg_is_in_recovery(),
              'joined', current_setting('primary_conninfo') <> '',
              'receiving', exists (select from pg_stat_wal_receiver w where w.status = 'streaming'),
              'applied', pg_last_wal_replay_lsn()::text, 'age', ${heartbeatAge}) as server`,
    [origin],
  );
  return serverSchema.parse(rows[0]?.server);
}

/** Undefined: it does not answer. */
async function readOrigin(
  pair: StandbyPair,
  applied: string,
  sessions: Sessions,
): Promise<AtOrigin | undefined> {
  try {
    const slot = await look(sessions, firstOf(pair).origin, (client) =>
      readServerSlot(client, serverSlot(pair.annex), applied),
    );
    const trails = await Promise.all(
      pair.stores.map(({ name, origin }) =>
        look(sessions, origin, async (client) => {
          const trail = await readTrail(client, pair, name, applied);
          if (trail !== undefined && !trail.lost) await moveTrail(client, pair, name, trail);
          return trail;
        }),
      ),
    );
    return { slot, trails };
  } catch (error) {
    if (isUnreachable(error)) return undefined;
    throw error;
  }
}

async function readServerSlot(
  client: Queryable,
  name: string,
  applied: string,
): Promise<AtOrigin["slot"]> {
  const { rows } = await client.query<{ slot: unknown }>(
    `select jsonb_build_object('lost', s.wal_status = 'lost',
              'lag', greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), $2::pg_lsn))::float8) as slot
       from pg_replication_slots s where s.slot_name = $1 and s.slot_type = 'physical'`,
    [name, applied],
  );
  return rows[0] === undefined ? null : slotSchema.parse(rows[0].slot);
}

type Phase = Pick<StandbyStatus, "phase" | "reason">;

function phaseOf(
  pair: StandbyPair,
  server: Server,
  atOrigin: AtOrigin | undefined,
  options: StatusOptions,
): Phase {
  if (!server.following) return { phase: "severed", reason: "" };
  if (!server.joined) return stopped(`the cut of ${pair.annex} was begun and not ended`);
  if (atOrigin === undefined) return { phase: "streaming", reason: "" };
  const { slot, trails } = atOrigin;
  const name = serverSlot(pair.annex);
  if (slot === null) return stopped(`slot ${name} is gone from cell ${pair.origin}`);
  if (slot.lost) {
    return stopped(
      `slot ${name} in cell ${pair.origin} has lost write-ahead log that the standby still needs (max_slot_wal_keep_size is the limit)`,
    );
  }
  if (trails.some((trail) => trail?.lost === true)) {
    return stopped(
      `${pair.origin} has lost the log of what ${pair.annex} may lack after a failover`,
    );
  }
  if (isDeaf(pair, server, options)) {
    return stopped(`${pair.annex} receives nothing, though ${pair.origin} answers`);
  }
  if (trails.includes(undefined)) return { phase: "absent", reason: "" };
  return trails.every((trail) => trail?.reached === true)
    ? { phase: "streaming", reason: "" }
    : { phase: "copying", reason: "following up to where its slots begin" };
}

const stopped = (reason: string): Phase => ({ phase: "stopped", reason });

function isDeaf({ annex }: StandbyPair, { receiving }: Server, options: StatusOptions): boolean {
  const { clock, deafSince } = options;
  if (receiving) {
    deafSince.delete(annex);
    return false;
  }
  const sinceMs = deafSince.get(annex) ?? clock.monotonicMs();
  deafSince.set(annex, sinceMs);
  return clock.monotonicMs() - sinceMs > deafMsMax;
}

async function look<T>(
  sessions: Sessions,
  login: StoreLogin,
  read: (client: Queryable) => Promise<T>,
): Promise<T> {
  try {
    return await sessions.use(login, read);
  } catch (error) {
    throw standbyErrorOf(login, error);
  }
}
