/**
 * Exchanges that last: upgraded connections and event streams, which have no end of their own.
 *
 * Always true: closing a gate neither waits for them nor ends them, because a move may be taken back;
 * they are ended when their key has left this cell, or cannot be served any more, with what tells the
 * other side to come again; so none of them goes on where its key is not.
 */
import { type Entered, type EntryOptions, mayStay } from "./entry.ts";

export type Lasting = {
  /** `end` is called at most once. */
  readonly add: (entry: Entered, end: () => void) => void;
  readonly over: (entry: Entered) => void;
  /** Ends those that may not stay. Cheap: called whenever something may have changed. */
  readonly review: (options: EntryOptions) => void;
};

export function createLasting(): Lasting {
  const all = new Map<Entered, () => void>();
  return {
    add: (entry, end) => {
      all.set(entry, end);
      entry.ticket.last();
    },
    over: (entry) => all.delete(entry),
    review: (options) => {
      for (const [entry, end] of [...all]) {
        if (mayStay(options, entry)) continue;
        all.delete(entry);
        end();
      }
    },
  };
}
