/**
 * Standbys by PostgreSQL's logical replication: a database per origin beside each partner's own, rows split
 * by bucket, every store a stream of its own. The role that moves does all of it; nobody needs a superuser.
 *
 * What must always be true: see ports.ts. The assembly of this room: each step stands in its own file.
 */
import type { Clock } from "../runtime/clock.ts";
import { analyzeTables, raiseSequences } from "./activate.ts";
import { ensureStore, type MakeLimits, refreshStore } from "./ensure.ts";
import { openTakeover, ownKeys } from "./own.ts";
import type { StandbyProvider } from "./ports.ts";
import { salvageStore } from "./salvage.ts";
import { createSessions } from "./sessions.ts";
import { dropStore, readCut, severStore } from "./sever.ts";
import { newStatusMemory, readStore, worstOf } from "./status.ts";
import { type UnattendedLimits, unattendedLimits } from "./unattended.ts";

export type LogicalOptions = {
  readonly clock: Clock;
  /** How long `ensure` waits for transactions of others, without which no slot can be made. At most, and by default, 15 s. */
  readonly slotWaitMsMax?: number;
  /** When a copy that nobody goes on with is given up. */
  readonly unattended?: UnattendedLimits;
};

const slotWaitMsDefault = 15_000;

export function createLogicalStandby(options: LogicalOptions): StandbyProvider {
  const { clock } = options;
  const limits: MakeLimits = { clock, slotWaitMsMax: options.slotWaitMsMax ?? slotWaitMsDefault };
  const memory = newStatusMemory();
  const sessions = createSessions(clock);
  const nowMs = clock.monotonicMs;
  const looking = { sessions, memory, nowMs, limits: options.unattended ?? unattendedLimits };
  const analyzing = new Set<Promise<void>>();
  return {
    ensure: async (pair, signal) => {
      for (const store of pair.stores) await ensureStore(pair, store, limits, signal);
    },
    status: async (pair) =>
      worstOf(await Promise.all(pair.stores.map((store) => readStore(pair, store, looking)))),
    refresh: async (pair) => {
      for (const store of pair.stores) await refreshStore(pair, store, limits);
    },
    sever: async (pair) => {
      // All of them are cut, whatever becomes of one.
      const results = await Promise.allSettled(
        pair.stores.map((store) => severStore(pair, store, clock)),
      );
      const severed = results.map((result) => {
        if (result.status === "rejected") throw result.reason;
        return result.value;
      });
      const ages = severed.flatMap(({ heartbeatAgeMs: age }) => (age === null ? [] : [age]));
      return {
        stores: severed.map(({ name, remoteLsn }) => ({ name, remoteLsn })),
        // Of each store's stream or of none: a young one says nothing of another.
        heartbeatAgeMs: ages.length < severed.length ? null : Math.max(...ages),
      };
    },
    activate: async ({ stores }) => {
      await Promise.all(stores.map(({ annex }) => raiseSequences(annex)));
      for (const { annex } of stores) {
        // Nobody waits for statistics, and without them everything is only slower.
        const work = analyzeTables(annex)
          .catch(() => {})
          .finally(() => analyzing.delete(work));
        analyzing.add(work);
      }
    },
    open: (pair, order) => openTakeover(sessions, pair, order),
    own: (pair, changes) => ownKeys(sessions, pair, changes),
    salvage: async (pair, severed, onChange, signal) => {
      const positions = new Map(severed.stores.map(({ name, remoteLsn }) => [name, remoteLsn]));
      for (const store of pair.stores) {
        // Who kept no position of this store asks the annex's own line.
        const known = positions.get(store.name);
        const remoteLsn = known === undefined ? await readCut(pair, store) : known;
        await salvageStore(pair, store, { remoteLsn, onChange, signal, clock });
      }
    },
    drop: async (pair, origin) => {
      for (const store of pair.stores) {
        await sessions.discard(store.annex);
        await dropStore(pair, store, origin, clock);
      }
    },
    close: async () => {
      await Promise.all([...analyzing, sessions.close()]);
    },
  };
}
