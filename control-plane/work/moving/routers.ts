/**
 * Do live routers serve a revision? Asked in the middle of a pause: an acknowledgement that comes to this
 * process counts before it is written down, one that came to another is looked for now and then. Waiting is
 * bounded; safety never depends on it.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { liveRouters } from "../../core/fleet.ts";
import { type Database, databaseNowMs } from "../../store/database.ts";
import { readRouters } from "../../store/fleet-store.ts";
import { channels } from "../../store/notify.ts";
import type { WakeHub } from "../../store/wake-hub.ts";

export type RouterWatch = {
  /** A router has said here that it serves this revision. */
  readonly heard: (router: string, revision: number) => void;
  /** Names of live routers that are behind after this time; empty: all serve it. */
  readonly behind: (
    revision: number,
    withinMs: number,
    signal: AbortSignal,
  ) => Promise<readonly string[]>;
};

const lookEveryMs = 25;
/** What was heard of more of them is looked up. */
const heardMax = 1000;

export function watchRouters(options: {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  /** By the database's clock: before that nobody may have listened. */
  readonly listeningSinceMs: () => number;
}): RouterWatch {
  const { database, hub, clock } = options;

  const heard = new Map<string, number>();
  const waiting = new Set<() => void>();

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

  const notHeard = (names: readonly string[], revision: number): readonly string[] =>
    names.filter((name) => (heard.get(name) ?? 0) < revision);

  /** Until all of them have said so here, or it is time to look. */
  async function listen(
    names: readonly string[],
    revision: number,
    ms: number,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const nap = new AbortController();
    const wake = () => {
      if (notHeard(names, revision).length === 0) nap.abort();
    };
    waiting.add(wake);
    wake();
    await hub.wait(channels.op, "", ms, AbortSignal.any([signal, nap.signal]));
    waiting.delete(wake);
    return notHeard(names, revision);
  }

  return {
    heard: (router, revision) => {
      if (heard.size >= heardMax) heard.clear();
      heard.set(router, revision);
      for (const wake of [...waiting]) wake();
    },
    behind: async (revision, withinMs, signal) => {
      const untilMs = clock.monotonicMs() + withinMs;
      for (;;) {
        const names = notHeard(await look(revision), revision);
        const leftMs = untilMs - clock.monotonicMs();
        if (names.length === 0 || leftMs <= 0 || signal.aborted) return names;
        const left = await listen(names, revision, Math.min(leftMs, lookEveryMs), signal);
        if (left.length === 0) return left;
      }
    },
  };
}
