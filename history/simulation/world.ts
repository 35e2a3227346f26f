/**
 * Steps of many actors in one random order that a seed repeats. An actor is a generator: between two
 * `yield`s nothing else happens; what it yields, if anything, is what it waits for. Time passes by one with
 * each step.
 */
import type { BugName } from "./bugs.ts";

export type Wait = (() => boolean) | undefined;
export type Actor<Result = void> = Generator<Wait, Result, void>;
export type Running = { ended: boolean; readonly kill: () => void };

export type World = {
  readonly now: () => number;
  readonly has: (bug: BugName) => boolean;
  /** From 0, below 1. */
  readonly chance: () => number;
  readonly start: (actor: Actor<unknown>) => Running;
  /** Until `done`, or until nobody can go on, or for so many steps; says whether it was done. */
  readonly run: (done: () => boolean, stepsMax: number) => boolean;
};

type Entry = { readonly actor: Actor<unknown>; wait: Wait; readonly running: Running };

export function createWorld(seed: number, bug: BugName | undefined): World {
  const chance = mulberry(seed);
  let now = 0;
  let entries: Entry[] = [];

  function step(): void {
    now += 1;
    const ready = entries.filter(({ wait }) => wait === undefined || wait());
    const entry = ready[Math.floor(chance() * ready.length)];
    if (entry === undefined) return;
    const { done, value } = entry.actor.next();
    entry.wait = done === true ? undefined : value;
    if (done === true) entry.running.ended = true;
    if (entry.running.ended) entries = entries.filter((other) => other !== entry);
  }

  return {
    now: () => now,
    has: (name) => name === bug,
    chance,
    start: (actor) => {
      const running: Running = {
        ended: false,
        kill: () => {
          running.ended = true;
          entries = entries.filter((other) => other.running !== running);
        },
      };
      entries.push({ actor, wait: undefined, running });
      return running;
    },
    run: (done, stepsMax) => {
      for (let n = 0; n < stepsMax && !done(); n += 1) step();
      return done();
    },
  };
}

/** Some steps pass. */
export function* pause(world: World, most: number): Actor {
  const until = world.now() + Math.floor(world.chance() * most);
  yield () => world.now() >= until;
}

/** Small, good enough, and the same everywhere. */
function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
