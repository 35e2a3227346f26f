/**
 * The outbox worker's pace: it looks for what is due, rests, and looks again; at once when it is woken.
 */
import { messageOf } from "./errors.ts";
import { createTurn, type TurnOptions } from "./outbox-turn.ts";

export type OutboxWorker = {
  /** There is something new: look now. */
  readonly wake: () => void;
  /** Waits for the message in hand. */
  readonly close: () => Promise<void>;
};

export type OutboxOptions = Omit<TurnOptions, "stopped"> & {
  /** Called when the database cannot be used; again only after it could. */
  readonly onTrouble: (message: string) => void;
};

/** While there is work, looks are so far apart: what came meanwhile shares a transaction. */
const paceMs = 100;
const idleMs = 500;
const troubledMs = 2000;

export function startOutboxWorker(options: OutboxOptions): OutboxWorker {
  const stop = new AbortController();
  const stopped = Promise.withResolvers<void>();
  const turn = createTurn({ ...options, stopped: stop.signal });
  let woken = Promise.withResolvers<void>();
  let troubled = false;

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      woken = Promise.withResolvers<void>();
      try {
        const worked = await turn();
        troubled = false;
        await (worked ? rest(paceMs) : rest(idleMs, woken.promise));
      } catch (error) {
        if (!troubled) options.onTrouble(messageOf(error));
        troubled = true;
        await rest(troubledMs, woken.promise);
      }
    }
  }

  async function rest(ms: number, ends?: Promise<void>): Promise<void> {
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, ms);
    await Promise.race([over.promise, stopped.promise, ...(ends === undefined ? [] : [ends])]);
    clearTimeout(timer);
  }

  const running = run();
  return {
    wake: () => woken.resolve(),
    close: async () => {
      stop.abort();
      stopped.resolve();
      await running;
    },
  };
}
