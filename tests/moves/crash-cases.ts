/**
 * Every moment at which something may die while a tenant moves: before and after the effect of each step
 * of the table, and what dies. A step that is added to the table is in here without another line, unless
 * the ordinary way does not pass it: then the compiler asks how it is reached.
 */
import { type MoveStep, moveSteps } from "../../contract/move-api.ts";
import { isMoveEnd } from "../../control-plane/core/move/move-state.ts";

export const victims = [
  "control-plane",
  "source-app",
  "source-database",
  "target-app",
  "target-database",
  "router",
] as const;
export type Victim = (typeof victims)[number];

/**
 * How a step is reached. `whole`: a move from beginning to end. `cancelled`: asked to stop when it is
 * ready. `blocked`: a transaction of the tenant stands in the way of the fence. `differs`: a row is taken
 * away on the target behind the move's back. No name: the effect is nothing, or waiting.
 */
export type Way = "whole" | "cancelled" | "blocked" | "differs";

const ways: Readonly<Partial<Record<MoveStep, Way>>> = {
  aborting: "cancelled",
  releasing: "blocked",
  diverged: "differs",
};

export type CrashCase = {
  readonly step: MoveStep;
  readonly when: "before" | "after";
  readonly victim: Victim;
  readonly way: Way;
};

export const crashCases: readonly CrashCase[] = moveSteps
  .filter((step) => !isMoveEnd(step))
  .flatMap((step) =>
    (["before", "after"] as const).flatMap((when) =>
      victims.map((victim) => ({ step, when, victim, way: ways[step] ?? "whole" })),
    ),
  );

/** Each step and moment once, with the victims in turn: what runs every time. `round` turns further. */
export const sampleOf = (cases: readonly CrashCase[], round: number): readonly CrashCase[] =>
  cases.filter(({ victim }, index) => {
    const moment = Math.floor(index / victims.length);
    return victims.indexOf(victim) === (moment + round) % victims.length;
  });
