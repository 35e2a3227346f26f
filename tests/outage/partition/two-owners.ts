/**
 * Asks every database of a fleet, all the time, which keys it could write now. Two that could at one moment are
 * two owners, whether or not anybody wrote.
 */
import { systemClock } from "../../../runtime/clock.ts";
import type { TestFleet } from "../../fleet.ts";
import { type Owner, type Owners, ownersIn } from "../owners.ts";

const lookEveryMs = 1000;

export type OwnersWatch = {
  readonly looks: () => number;
  readonly stop: () => Promise<readonly string[]>;
};

export function watchOwners(fleet: TestFleet, cells: readonly string[]): OwnersWatch {
  const over = new AbortController();
  const found = new Set<string>();
  let looks = 0;
  const running = (async () => {
    let before: Owners = new Map();
    while (!over.signal.aborted) {
      const now = await ownersIn(fleet, cells);
      for (const one of overlapping(before, now)) found.add(one);
      before = now;
      looks += 1;
      await systemClock.sleep(lookEveryMs, over.signal);
    }
  })();
  return {
    looks: () => looks,
    stop: async () => {
      over.abort();
      await running;
      return [...found];
    },
  };
}

/**
 * Databases are asked one after the other, and a key may change hands between two questions. Who owned it at
 * the first look owns it still at the second, if nobody of a greater epoch had it at the first already.
 */
export function overlapping(before: Owners, now: Owners): readonly string[] {
  return [...now].flatMap(([key, owners]) => {
    const newest = ableOf(before.get(key)).reduce((most, { epoch }) => Math.max(most, epoch), 0);
    const first = ableOf(before.get(key)).find(({ epoch }) => epoch === newest);
    const late = ableOf(owners).find(
      ({ where, epoch }) => epoch <= newest && where !== first?.where,
    );
    return first === undefined || late === undefined
      ? []
      : [
          `two owners of ${key}: ${first.where} at ${first.epoch}, then ${late.where} at ${late.epoch}`,
        ];
  });
}

const ableOf = (owners: readonly Owner[] | undefined): readonly Owner[] =>
  (owners ?? []).filter(({ leased }) => leased);
