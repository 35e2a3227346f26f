/**
 * Standbys by PostgreSQL's physical replication: a whole server in one partner follows the origin's, all
 * its stores, tables of any kind, definitions and sequences included. For schemas that rows cannot be
 * followed of, and for fleets that would rather pay one server more per cell than copy rows.
 *
 * What must always be true: see ports.ts. The server itself is made, started and settled by whoever runs
 * cells (`servers`); here it is steered, by the role that moves. The assembly of this room.
 */
import type pg from "pg";
import { sqlStateOf } from "../cell/store/queryable.ts";
import { serverSlot } from "../contract/annex.ts";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { raiseSequences } from "./activate.ts";
import type { MakeLimits } from "./ensure.ts";
import { isDatabaseGone, withKeeper } from "./keeper.ts";
import { cutServer } from "./physical/cut.ts";
import { firstOf, isFollowing, renewConnection, wasCut } from "./physical/server.ts";
import { readServer } from "./physical/status.ts";
import { layTrail, requireWholeTrail, takeTrailUp } from "./physical/trail.ts";
import type { StandbyPair, StandbyProvider } from "./ports.ts";
import { salvageStore } from "./salvage.ts";
import { createSessions } from "./sessions.ts";
import { readCut } from "./sever.ts";

/** Who runs cells. Both may be asked again at any time, and resolve when it is done. */
export type StandbyServers = {
  /** The annex's server follows the origin's: a copy that cannot go on is made anew; one that was promoted stays. */
  readonly copy: (pair: StandbyPair, signal: AbortSignal) => Promise<void>;
  /**
   * After the cut: what the annex's agent was told and has promised is carried over into the promoted
   * server, whose own ownership, lease and name are the origin's; from then on the agent stands on it.
   */
  readonly settle: (pair: StandbyPair) => Promise<void>;
};

export type PhysicalOptions = {
  readonly clock: Clock;
  readonly servers: StandbyServers;
};

const slotWaitMsMax = 15_000;

export function createPhysicalStandby({ clock, servers }: PhysicalOptions): StandbyProvider {
  const limits: MakeLimits = { clock, slotWaitMsMax };
  const sessions = createSessions(clock);
  const deafSince = new Map<string, number>();
  const layTrails = async (pair: StandbyPair, signal?: AbortSignal) => {
    for (const store of pair.stores) {
      signal?.throwIfAborted();
      await layTrail(pair, store, limits);
    }
  };
  return {
    ensure: async (pair, signal) => {
      await refuseCut(pair);
      if (!(await keepsLog(pair))) {
        for (const { annex } of pair.stores) await sessions.discard(annex);
        await servers.copy(pair, signal);
        // Where a new server can be reached this pair cannot say: the next call lays the trail to it.
        return;
      }
      await renewConnection(pair, clock);
      await layTrails(pair, signal);
    },
    status: (pair) => readServer(pair, { clock, sessions, deafSince }),
    refresh: (pair) => layTrails(pair),
    sever: (pair) => cutServer(pair, clock),
    activate: async (pair) => {
      for (const { annex } of pair.stores) await sessions.discard(annex);
      await servers.settle(pair);
      await Promise.all(pair.stores.map(({ annex }) => raiseSequences(annex)));
    },
    salvage: async (pair, severed, onChange, signal) => {
      const positions = new Map(severed.stores.map(({ name, remoteLsn }) => [name, remoteLsn]));
      for (const store of pair.stores) {
        const known = positions.get(store.name);
        const remoteLsn = known === undefined ? await readCut(pair, store) : known;
        await requireWholeTrail(pair, store, remoteLsn);
        await salvageStore(pair, store, { remoteLsn, onChange, signal, clock });
      }
    },
    drop: async (pair, origin) => {
      deafSince.delete(pair.annex);
      for (const { annex } of pair.stores) await sessions.discard(annex);
      // The server goes with the annex. Without its slot it receives nothing more.
      if (origin === "there") await dropAtOrigin(pair, clock);
    },
    close: () => sessions.close(),
  };
}

/** A server that does not answer may be one that was never made. */
async function refuseCut(pair: StandbyPair): Promise<void> {
  const slot = serverSlot(pair.annex);
  try {
    await withKeeper(firstOf(pair).annex, { name: `${slot} look` }, async (client) => {
      if (!(await isFollowing(client))) throw wasCut(pair);
    });
  } catch (error) {
    if (!(error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE")) throw error;
  }
}

/** The origin is asked first: without it nothing is touched. */
async function keepsLog(pair: StandbyPair): Promise<boolean> {
  const slot = serverSlot(pair.annex);
  const { origin, annex } = firstOf(pair);
  const isKept = await withKeeper(origin, { name: `${slot} look` }, async (client) => {
    const { rows } = await client.query(
      "select from pg_replication_slots where slot_name = $1 and slot_type = 'physical' and wal_status <> 'lost'",
      [slot],
    );
    return rows.length > 0;
  });
  if (!isKept) return false;
  return withKeeper(annex, { name: `${slot} look` }, isFollowing).catch((error: unknown) => {
    if (error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE") return false;
    throw error;
  });
}

async function dropAtOrigin(pair: StandbyPair, clock: Clock): Promise<void> {
  const results = await Promise.allSettled([
    ...pair.stores.map((store) => takeTrailUp(pair, store, clock)),
    withKeeper(firstOf(pair).origin, { name: `${serverSlot(pair.annex)} drop` }, (client) =>
      dropServerSlot(client, serverSlot(pair.annex), clock),
    ),
  ]);
  for (const result of results) {
    if (result.status === "rejected" && !isDatabaseGone(result.reason)) throw result.reason;
  }
}

/** The standby's server comes back for its slot as long as it runs, and sometimes at once. */
async function dropServerSlot(client: pg.Client, name: string, clock: Clock): Promise<void> {
  const slot = "from pg_replication_slots where slot_name = $1 and slot_type = 'physical'";
  const deadline = clock.monotonicMs() + slotWaitMsMax;
  for (;;) {
    // A timeout: the call returns when the sender is gone, and its slot free.
    await client.query(
      `select pg_terminate_backend(active_pid, 5000) ${slot} and active_pid is not null`,
      [name],
    );
    try {
      await client.query(`select pg_drop_replication_slot(slot_name) ${slot}`, [name]);
      return;
    } catch (error) {
      if (sqlStateOf(error) !== slotInUse || clock.monotonicMs() > deadline) throw error;
    }
  }
}

const slotInUse = "55006";
