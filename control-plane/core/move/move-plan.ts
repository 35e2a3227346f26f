/**
 * A plan in words: its steps are walked along the table (`move-state.ts`), so what is printed is what the
 * executor will do, and a step without words is a type error.
 */
import type { MoveCheck, MoveOptions, MoveStep } from "../../../contract/move-api.ts";
import { must } from "../../../runtime/assert.ts";
import { type MoveEvent, nextMoveStep } from "./move-state.ts";

type Asked = {
  readonly source: string;
  readonly target: string;
  readonly options: MoveOptions;
  /** It takes another move back: nothing is copied. */
  readonly isReversal: boolean;
};

/** Every step that can stand on the way of a move that goes well. */
type Planned = Exclude<
  MoveStep,
  "planned" | "diverged" | "releasing" | "aborting" | "done" | "cancelled" | "failed"
>;

const wayOf = ({ isReversal }: Asked): readonly MoveEvent[] => [
  "admitted",
  "fit",
  ...(isReversal ? (["streaming"] as const) : (["prepared", "copied"] as const)),
  "caught-up",
  "verified",
  "switched",
  "held",
  "closed",
  "fenced",
  "drained",
  "committed",
  "activated",
  "routed",
  "reversed",
  "soaked",
];

const texts: Readonly<Record<Planned, (asked: Asked) => string>> = {
  preflight: ({ source, target }) => `look at ${source} and ${target} once more; change nothing`,
  preparing: ({ source, target, isReversal }) =>
    isReversal
      ? `take over the stream from ${source} to ${target}`
      : `publication in ${source}; what an earlier move left in ${target} is removed`,
  copying: ({ options }) =>
    `copy the rows as of one moment${options.copyRateMax === undefined ? "" : `, ${options.copyRateMax} bytes a second at most`}`,
  "catching-up": ({ source }) => `follow what is written in ${source} meanwhile`,
  verifying: () => "compare count and checksum of every table; nobody waits for it",
  ready: ({ options }) =>
    options.switch === "auto" ? "switch as soon as it is ready" : "wait for `cellctl move switch`",
  holding: ({ options }) =>
    `routers hold new requests, ${options.pauseBudgetMs} ms at most, else all is taken back (${options.switchTriesMax} tries)`,
  closing: ({ source }) => `requests that are in ${source} end, and no other comes in`,
  fencing: ({ source }) => `the databases of ${source} refuse writes of the keys`,
  draining: ({ target }) => `${target} has applied everything up to the fence`,
  committing: ({ target }) =>
    `the keys belong to ${target}; until that is recorded all can be taken back`,
  activating: ({ target }) => `the databases of ${target} take writes; from here on only forward`,
  routing: ({ target }) => `routers send requests, held ones first, to ${target}`,
  reversing: ({ source, target }) =>
    `${source} follows ${target}; the frozen rows are compared once more`,
  soaking: ({ options, source, target }) =>
    `for ${seconds(options.soakMs)} ${source} follows ${target}, and the move can be taken back`,
  cleaning: ({ source }) => `streams and the rows in ${source} are removed`,
};

const seconds = (ms: number): string =>
  ms >= 60_000 && ms % 60_000 === 0 ? `${ms / 60_000} min` : `${ms / 1000} s`;

const isPlanned = (step: MoveStep): step is Planned => Object.hasOwn(texts, step);

export function planSteps(asked: Asked): Array<{ step: MoveStep; text: string }> {
  let at: MoveStep = "planned";
  return wayOf(asked).map((event) => {
    const step: MoveStep = must(nextMoveStep(at, event), `${event} after ${at}`);
    at = step;
    return { step, text: isPlanned(step) ? texts[step](asked) : step };
  });
}

/** A verdict of the control plane's own, in the form of the others. */
export const checkOf = (
  id: string,
  cell: string,
  verdict: MoveCheck["verdict"],
  text: string,
  fix = "",
): MoveCheck => ({ id, cell, store: "", verdict, text, fix });

export const refusedChecks = (checks: readonly MoveCheck[]): readonly MoveCheck[] =>
  checks.filter(({ verdict }) => verdict === "refused");
