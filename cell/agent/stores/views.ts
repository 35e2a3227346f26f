/**
 * Lease, ownership and stage of a cell, over all its stores: what the gate, the admin port and the
 * conversation with the control plane look at.
 *
 * Always true: of a cell with one store each view says exactly what that store says; of several the
 * strictest of them counts, so the gate serves only what every store would let be written.
 */
import type { LeaseKeeper } from "../lease-keeper.ts";
import type { OwnershipCache } from "../ownership-cache.ts";
import type { StageKeeper } from "../stage-keeper.ts";
import { strictestPlacement, strictestStage } from "./strictest.ts";

/** `grant`: the lowest of all; `grantMax`: the highest ever heard of. Time is left as long as every store has some. */
export type LeaseView = Pick<
  LeaseKeeper,
  "grant" | "grantMax" | "remainingMs" | "leftShare" | "isRenewalDue" | "msUntilRenewal" | "tick"
> & {
  /** Starts of the databases, in the order of the stores: has each had a lease in this life? */
  readonly knowsAll: (boots: readonly string[]) => boolean;
};

type Some<T> = readonly [T, ...T[]];

export function leaseOf(all: Some<LeaseKeeper>): LeaseView {
  return {
    get grant() {
      return Math.min(...all.map(({ grant }) => grant));
    },
    get grantMax() {
      return Math.max(...all.map(({ grantMax }) => grantMax));
    },
    remainingMs: () => Math.min(...all.map((one) => one.remainingMs())),
    leftShare: () => Math.min(...all.map((one) => one.leftShare())),
    knowsAll: (boots) => all.every((one, at) => one.knows(boots[at] ?? "")),
    isRenewalDue: () => all.some((one) => one.isRenewalDue()),
    msUntilRenewal: () => Math.min(...all.map((one) => one.msUntilRenewal())),
    tick: () => {
      for (const one of all) one.tick();
    },
  };
}

/** `order`, `generation` and `countByState` are the first store's. */
export type OwnershipView = Pick<
  OwnershipCache,
  "get" | "order" | "generation" | "countByState" | "isFresh"
>;

export function ownershipOf([first, ...others]: Some<OwnershipCache>): OwnershipView {
  return {
    get: (key) => {
      let placement = first.get(key);
      for (const other of others) placement = strictestPlacement(placement, other.get(key));
      return placement;
    },
    get order() {
      return first.order;
    },
    get generation() {
      return first.generation;
    },
    countByState: () => first.countByState(),
    isFresh: (nowMonoMs) => [first, ...others].every((one) => one.isFresh(nowMonoMs)),
  };
}

export type StageView = Pick<StageKeeper, "now" | "wouldLeave" | "hear">;

export function stageOf(all: Some<StageKeeper>): StageView {
  return {
    get now() {
      return strictestStage(all.map(({ now }) => now));
    },
    wouldLeave: (stage, number) => all.some((one) => one.wouldLeave(stage, number)),
    hear: (stage, number) => {
      for (const one of all) one.hear(stage, number);
    },
  };
}
