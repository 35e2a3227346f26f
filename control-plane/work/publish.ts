/**
 * Follows the routing log and wakes those who wait for it: routers for the table, agents for their
 * changes. A notification only says "look"; one that is lost costs at most one poll. Readings never
 * overlap, and while the fleet recovers from a restore the table stands still, because what routers
 * have may be newer than what the database says.
 */
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { Signer } from "../../runtime/signing.ts";
import type { RoutingFeed, TableSnapshot } from "../api/routing-feed.ts";
import type { Database } from "../store/database.ts";
import { peekRouting, readRouting } from "../store/routing-read.ts";
import { createRoutingImage } from "./routing-image.ts";

export type Publisher = RoutingFeed & {
  /** A notification came: read the log now. */
  readonly wake: () => void;
  /** Long polls that wait at this moment. */
  readonly waiting: () => number;
  readonly close: () => Promise<void>;
};

export type PublisherOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly signer: Signer;
  readonly onError: (error: unknown) => void;
  /** Told after each reading that moved the table. */
  readonly onPublished?: (published: {
    readonly revision: number;
    readonly placements: number;
    readonly rows: number;
  }) => void;
  readonly pollMs?: number;
  readonly windowRowsMax?: number;
};

const pollMsDefault = 5000;
const backoffMaxMs = 5000;
const windowRowsMaxDefault = 50_000;

export function startPublisher(options: PublisherOptions): Publisher {
  const { database, clock } = options;
  const word = () => Number.parseInt(options.random.hex(4), 16) | 0;
  const windowRowsMax = options.windowRowsMax ?? windowRowsMaxDefault;
  // Nobody outside knows the key, so nobody can choose ids that all fall into one place.
  const image = createRoutingImage(options.signer, windowRowsMax, [word(), word()]);
  const waiting = new Set<() => void>();
  let reading: Promise<void> | undefined;
  let recording: Promise<TableSnapshot> | undefined;

  const published = (rows: number) => {
    const { revision, size } = must(image.table(), "routing table");
    options.onPublished?.({ revision, placements: size, rows });
  };

  async function read(): Promise<void> {
    const before = image.table()?.revision;
    const peek = before === undefined ? undefined : await peekRouting(database, before);
    if (peek?.head.revision === before && peek?.head.mode === "normal") return;
    if (peek !== undefined && image.take(peek)) return published(peek.rows.length);
    return readAll();
  }

  const readAll = (): Promise<void> =>
    readRouting(database, async (log) => {
      const before = image.table()?.revision;
      if (log.head.mode === "recovering" && before !== undefined) {
        image.distrust();
        return;
      }
      const rows = await image.follow(log);
      if (image.table()?.revision !== before) published(rows);
    });

  /** Who asks during a reading gets the next one: the running one may have begun too early. */
  async function refresh(): Promise<void> {
    await reading?.catch(() => undefined); // Whoever started that one is told of its failure.
    reading ??= read().finally(() => {
      reading = undefined;
    });
    await reading;
  }

  const wakeWaiting = () => {
    for (const resolve of [...waiting]) resolve();
  };

  const loop = startLoop({
    clock,
    random: options.random,
    intervalMs: options.pollMs ?? pollMsDefault,
    backoffMaxMs,
    turn: async () => {
      await refresh();
      wakeWaiting();
      return "idle";
    },
    onError: options.onError,
  });

  return {
    fleet: () => image.table()?.fleet ?? "",
    revision: () => image.table()?.revision ?? 0,
    epochMax: image.epochMax,
    isReady: () => image.table() !== undefined,
    answerTo: image.answerTo,
    snapshot: async () => {
      const ready = image.snapshot();
      if (ready !== undefined) return ready;
      recording ??= readRouting(database, image.record).finally(() => {
        recording = undefined;
      });
      return recording;
    },
    changed: (ms, signal) => waitIn(waiting, clock, ms, signal),
    refresh,
    wake: loop.wake,
    waiting: () => waiting.size,
    close: async () => {
      await loop.close();
      wakeWaiting();
    },
  };
}

function waitIn(
  waiting: Set<() => void>,
  clock: Clock,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      timer.cancel();
      signal.removeEventListener("abort", end);
      waiting.delete(end);
      resolve();
    };
    const timer = clock.after(ms, end);
    waiting.add(end);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
  });
}
