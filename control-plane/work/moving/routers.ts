/**
 * Do live routers serve a revision? Asked in the middle of a pause: woken by each acknowledgement, and
 * looked at every few milliseconds beside that. Waiting is bounded; safety never depends on it.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { liveRouters } from "../../core/fleet.ts";
import { type Database, databaseNowMs } from "../../store/database.ts";
import { readRouters } from "../../store/fleet-store.ts";
import { channels } from "../../store/notify.ts";
import type { WakeHub } from "../../store/wake-hub.ts";

export type RouterWatch = {
  /** Names of live routers that are behind after this time; empty: all serve it. */
  readonly behind: (
    revision: number,
    withinMs: number,
    signal: AbortSignal,
  ) => Promise<readonly string[]>;
};

const lookEveryMs = 10;

export function watchRouters(options: {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  /** By the database's clock: before that nobody may have listened. */
  readonly listeningSinceMs: () => number;
}): RouterWatch {
  const { database, hub, clock } = options;

  async function look(revision: number): Promise<readonly string[]> {
    const [routers, nowMs] = await Promise.all([
      readRouters(database.read),
      databaseNowMs(database.read),
    ]);
    const fleet = { routers, nowMs, listeningSinceMs: options.listeningSinceMs() };
    return liveRouters(fleet)
      .filter((one) => one.revision < revision)
      .map(({ id }) => id);
  }

  return {
    behind: async (revision, withinMs, signal) => {
      const untilMs = clock.monotonicMs() + withinMs;
      for (;;) {
        const names = await look(revision);
        const leftMs = untilMs - clock.monotonicMs();
        if (names.length === 0 || leftMs <= 0 || signal.aborted) return names;
        await hub.wait(channels.op, "", Math.min(leftMs, lookEveryMs), signal);
      }
    },
  };
}
