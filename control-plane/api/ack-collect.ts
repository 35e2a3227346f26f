/**
 * Which failovers a router is asked to hand its acknowledged writes in for. Every call of every router asks
 * this, so one reading of the database serves all of them for a moment.
 *
 * A long poll that waits for the next revision is woken by news of operations too: the step that asks for
 * the lists may change no route.
 */
import type { RouterSyncRequest } from "../../contract/cell-protocol.ts";
import { type Collect, readCollect } from "../store/failover/acks.ts";
import { channels } from "../store/notify.ts";
import type { ApiContext } from "./context.ts";

type Wanted = Pick<Collect, "failover" | "cell">;
type Said = Pick<RouterSyncRequest, "router" | "instance" | "collected">;

export type CollectDesk = {
  readonly wantedOf: (said: Said) => Promise<readonly Wanted[]>;
  /** Is it worth an answer of its own? A router that is busy handing in calls again meanwhile. */
  readonly isNews: (said: Said, wanted: readonly Wanted[]) => boolean;
  /** Resolves with `waiting`, or when an operation took a step. */
  readonly sooner: (waiting: Promise<void>, ms: number, signal: AbortSignal) => Promise<void>;
};

/** How old what is answered may be. */
const freshMs = 100;
/** A router that was told so is told again after this. */
const againMs = 2000;
const rememberedMax = 1000;

export function createCollectDesk({ database, clock, hub }: ApiContext): CollectDesk {
  const told = new Map<string, { readonly atMs: number; readonly list: string }>();
  let read: { readonly atMs: number; readonly list: Promise<readonly Collect[]> } | undefined;

  function current(): Promise<readonly Collect[]> {
    const nowMs = clock.monotonicMs();
    if (read === undefined || nowMs - read.atMs >= freshMs) {
      read = { atMs: nowMs, list: readCollect(database.read) };
    }
    return read.list;
  }

  return {
    wantedOf: async ({ router, collected }) => {
      const done = new Set(collected);
      // Without a database the table is served all the same; the next call asks again.
      const list = await current().catch(() => []);
      return list
        .filter(({ failover, handedIn }) => !done.has(failover) && !handedIn.has(router))
        .map(({ failover, cell }) => ({ failover, cell }));
    },
    isNews: ({ router, instance }, wanted) => {
      if (wanted.length === 0) return false;
      const list = wanted.map(({ failover }) => failover).join(" ");
      const name = `${router}\n${instance}`;
      const last = told.get(name);
      const nowMs = clock.monotonicMs();
      if (last?.list === list && nowMs - last.atMs < againMs) return false;
      if (told.size >= rememberedMax) told.clear();
      told.set(name, { atMs: nowMs, list });
      return true;
    },
    sooner: async (waiting, ms, signal) => {
      const stop = new AbortController();
      const both = AbortSignal.any([signal, stop.signal]);
      // A step is seen a moment later than its notification where the list was read just before.
      const stepped = hub.wait(channels.op, "", ms, both).then(() => clock.sleep(freshMs, both));
      await Promise.race([waiting, stepped]);
      stop.abort();
    },
  };
}
