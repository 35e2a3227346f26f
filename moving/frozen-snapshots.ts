/**
 * Snapshots of a move's stores as they were between fence and activation, both sides, kept from `drain`
 * until the comparison after the switch takes them over.
 *
 * Always true: a snapshot has one owner. Who keeps it here gives it away; who takes it closes it; what
 * nobody takes `forget` closes. They live in this process alone: after a crash there are none.
 */
import type { Queryable } from "../cell/store/queryable.ts";
import type { OpId } from "../contract/ids.ts";

/** A connection in a REPEATABLE READ transaction that only reads, whose snapshot stands. */
export type FrozenSnapshot = Queryable & { readonly close: () => Promise<void> };
export type FrozenPair = {
  readonly store: string;
  readonly source: FrozenSnapshot;
  readonly target: FrozenSnapshot;
};

export type FrozenSnapshots = {
  /** All stores of the move, in its order. Replaces what an earlier try has left. */
  readonly keep: (op: OpId, pairs: readonly FrozenPair[]) => Promise<void>;
  /** Undefined: none are here, or they were taken already. */
  readonly take: (op: OpId) => readonly FrozenPair[] | undefined;
  readonly forget: (op: OpId) => Promise<void>;
  readonly close: () => Promise<void>;
};

export function createFrozenSnapshots(): FrozenSnapshots {
  const kept = new Map<OpId, readonly FrozenPair[]>();

  const take = (op: OpId): readonly FrozenPair[] | undefined => {
    const pairs = kept.get(op);
    kept.delete(op);
    return pairs;
  };
  const forget = (op: OpId): Promise<void> => closeAll(take(op) ?? []);
  return {
    keep: async (op, pairs) => {
      const former = take(op);
      kept.set(op, pairs);
      await closeAll(former ?? []);
    },
    take,
    forget,
    close: async () => {
      await Promise.all([...kept.keys()].map(forget));
    },
  };
}

async function closeAll(pairs: readonly FrozenPair[]): Promise<void> {
  await Promise.all(pairs.flatMap(({ source, target }) => [source.close(), target.close()]));
}
