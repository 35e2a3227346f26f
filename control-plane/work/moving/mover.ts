/**
 * The executor of moves, in the process that leads: admits those that wait for their turn, and follows
 * each that is under way by a drive of its own. It stands still while the fleet recovers from a restore.
 *
 * Always true: a drive belongs to one term. When the term is over its signal is aborted before another
 * term's drive of the same move begins here; what it sent all the same is void by its attempt.
 */
import type { OpId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { errorFields } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import { admit, type MoveLimits, moveLimitsDefault } from "../../core/move/admit.ts";
import { nextMoveStep } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { isDue } from "../../core/move/wishes.ts";
import { databaseNowMs } from "../../store/database.ts";
import { enterStep } from "../../store/moves/enter.ts";
import { movesAtWork, toMoveView } from "../../store/moves/read.ts";
import { fleet } from "../../store/schema.ts";
import type { Leadership } from "../lead.ts";
import { driveMove } from "./drive.ts";
import type { SoakWatch } from "./soak-watch.ts";
import type { Sweeper } from "./sweep.ts";
import type { MovingWorld } from "./world.ts";

const intervalMs = 500;
const backoffMaxMs = 5000;

export type MoverOptions = {
  readonly world: MovingWorld;
  readonly lead: Pick<Leadership, "term">;
  readonly sweeper: Sweeper;
  readonly soakWatch: SoakWatch;
  readonly limits?: MoveLimits;
  /** Told when this process begins to lead, by the database's clock. */
  readonly onTerm: (sinceMs: number) => void;
  readonly onError: (error: unknown) => void;
};

export type Mover = {
  /** Moves that are followed here now. */
  readonly underWay: () => number;
  readonly wake: () => void;
  readonly close: () => Promise<void>;
};

type Driving = { readonly stop: AbortController; readonly done: Promise<void> };

export function startMover(options: MoverOptions): Mover {
  const { world, lead } = options;
  const { database, clock, random } = world;
  const drives = new Map<OpId, Driving>();
  let term: number | undefined;

  async function stopAll(): Promise<void> {
    for (const { stop } of drives.values()) stop.abort();
    await Promise.all([...drives.values()].map(({ done }) => done));
  }

  function follow(id: OpId, inTerm: number): void {
    const stop = new AbortController();
    const done = driveMove(world, id, inTerm, stop.signal)
      .catch((error) => {
        world.log.event(
          "move.failing",
          { move: id, step: "", error: "", ...errorFields(error) },
          "error",
        );
        options.onError(error);
      })
      .finally(() => {
        drives.delete(id);
        // It may have ended because it rests now: another waits for its turn.
        loop.wake();
      });
    drives.set(id, { stop, done });
  }

  async function enterTerm(now: number | undefined): Promise<void> {
    if (now === term) return;
    term = now;
    await stopAll();
    if (now !== undefined) options.onTerm(await databaseNowMs(database.read));
  }

  async function turn(): Promise<"idle"> {
    await enterTerm(lead.term());
    if (term === undefined) {
      world.metrics.steps([]);
      return "idle";
    }
    const [head] = await database.read.select({ mode: fleet.mode }).from(fleet);
    if (head?.mode !== "normal") {
      await stopAll();
      return "idle";
    }
    await followAll(term);
    await options.sweeper.turn(term);
    return "idle";
  }

  async function followAll(inTerm: number): Promise<void> {
    const moves = (await movesAtWork(database.read)).map(toMoveView);
    world.metrics.steps(moves.map(({ step }) => step));
    const nowMs = await databaseNowMs(database.read);
    options.soakWatch.turn(moves);
    for (const move of admit(moves, options.limits ?? moveLimitsDefault)) {
      if (await begin(move, inTerm)) follow(move.id, inTerm);
    }
    for (const move of moves) {
      if (!drives.has(move.id) && mustFollow(move, nowMs)) follow(move.id, inTerm);
    }
  }

  /** Its turn has come: the first step, or the end if it was cancelled while it waited. */
  async function begin(move: MoveView, inTerm: number): Promise<boolean> {
    const to = must(nextMoveStep("planned", "admitted"), "the step after planned");
    const headline = `looking at ${move.source} and ${move.target}`;
    const change = { step: to, state: "running", headline } as const;
    return (await enterStep(database, inTerm, move, change)) === "entered";
  }

  const loop: Loop = startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs, turn },
    onError: options.onError,
  });

  return {
    underWay: () => drives.size,
    wake: () => {
      // A drive of a term that is over stops at once, not at the loop's next turn.
      if (lead.term() !== term) for (const { stop } of drives.values()) stop.abort();
      loop.wake();
    },
    close: async () => {
      await loop.close();
      await stopAll();
    },
  };
}

const mustFollow = (move: MoveView, nowMs: number): boolean =>
  move.step === "planned" ? move.wish === "cancel" : isDue(move, nowMs);
