/**
 * Every moment at which something may die while a tenant moves: before and after the effect of each step
 * of the table, and what dies. A step that is added to the table is in here without another line, unless
 * the ordinary way does not pass it: then the compiler asks how it is reached.
 */
import { type MoveStep, moveSteps } from "../../contract/move-api.ts";
import { steps } from "../../control-plane/work/moving/steps/all.ts";

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
 * ready. `blocked`: a transaction of the tenant stands in the way of the fence. `none`: a move that has
 * diverged rests; what goes on is another move, which takes it back.
 */
export type Way = "whole" | "cancelled" | "blocked" | "none";

const ways: Readonly<Partial<Record<MoveStep, Way>>> = {
  aborting: "cancelled",
  releasing: "blocked",
  diverged: "none",
};

export type CrashCase = {
  readonly step: MoveStep;
  readonly when: "before" | "after";
  readonly victim: Victim;
  readonly way: Way;
};

export const crashCases: readonly CrashCase[] = moveSteps
  .filter((step) => steps[step] !== undefined)
  .flatMap((step) =>
    (["before", "after"] as const).flatMap((when) =>
      victims.map((victim) => ({ step, when, victim, way: ways[step] ?? "whole" })),
    ),
  )
  .filter(({ way }) => way !== "none");

/** Each step and moment once, with the victims in turn: what runs every time. `round` turns further. */
export const sampleOf = (cases: readonly CrashCase[], round: number): readonly CrashCase[] =>
  cases.filter(({ victim }, index) => {
    const moment = Math.floor(index / victims.length);
    return victims.indexOf(victim) === (moment + round) % victims.length;
  });
