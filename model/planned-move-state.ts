/** What the model of a planned move consists of, and the mistakes that it can be asked to make. */
import type { OwnershipState } from "../contract/cell-protocol.ts";
import type { MoveStep } from "../contract/move-api.ts";
import type { HoldState } from "../router/place/hold.ts";
import type { Step } from "./explore.ts";

export const moveBugs = {
  "any-attempt": "cells obey commands of older attempts",
  "release-same-attempt": "the fence is lifted under the attempt that was fencing",
  "try-same-attempt": "the next try closes gates under the attempt that opened them",
  "activate-first": "the target is activated before COMMIT",
  "release-early": "the route is released before ACTIVE was read back from the target",
  "late-hold": "hold and release are messages of their own: a hold can follow its release",
  "fence-does-not-wait": "the fence does not wait for transactions that passed the guard",
  "no-drain": "COMMIT does not wait until the target has applied everything",
  "no-gate-drain": "the fence comes while requests are in flight",
  "cell-unfences": "a fenced cell that hears nothing goes on by itself",
  "fence-raises-epoch": "the fence raises the epoch, not COMMIT",
  "open-gate-early": "the source's gate opens before its agent has heard that the key moved",
  "no-gate-attempt": "closing a gate carries no attempt",
} as const;
export type MoveBug = keyof typeof moveBugs;

export type MoveSizes = {
  /** Of customers, through routers. */
  readonly writes: number;
  /** Writes of the cells' own background work: past no gate, acknowledged when they are committed. */
  readonly jobs: number;
  /** One after the other. */
  readonly executorsMax: number;
  readonly triesMax: number;
};

export type Command =
  | {
      readonly kind: "own";
      readonly cell: number;
      readonly state: OwnershipState;
      readonly epoch: number;
      readonly attempt: number;
    }
  | { readonly kind: "gate"; readonly closed: boolean; readonly attempt: number }
  | { readonly kind: "hold"; readonly router: number };

export type Cell = {
  state: OwnershipState;
  epoch: number;
  attempt: number;
  /** The agent's memory. */
  known: { state: OwnershipState; epoch: number };
  closed: boolean;
  gateAttempt: number;
  /** Which writes are there, as bits. */
  rows: number;
};
export type Route = { cell: number; epoch: number; state: "active" | "hold" };
type Router = { route: Route; hold: HoldState; deaf: boolean };
export type Write = {
  at:
    | "idle"
    | "job"
    | "job-locked"
    | "held"
    | "sent"
    | "inside"
    | "locked"
    | "written"
    | "answered"
    | "acked"
    | "unknown"
    | "refused";
  router: number;
  cell: number;
  epoch: number;
  header: string;
};
export type State = {
  step: MoveStep;
  /** Raised by every takeover and every release: what was sent before is void after. */
  attempt: number;
  executors: number;
  alive: boolean;
  tries: number;
  /** How far the effects of this step have come, by this executor. */
  phase: number;
  control: Route;
  cells: [Cell, Cell];
  routers: Router[];
  writes: Write[];
  wire: Command[];
};

export const epochAtStart = 1;
export const source = 0;
export const target = 1;

const clone = (s: State): State => ({
  ...s,
  control: { ...s.control },
  cells: [
    { ...s.cells[source], known: { ...s.cells[source].known } },
    { ...s.cells[target], known: { ...s.cells[target].known } },
  ],
  routers: s.routers.map((router) => ({ ...router, route: { ...router.route } })),
  writes: s.writes.map((write) => ({ ...write })),
  wire: [...s.wire],
});

export type Has = (bug: MoveBug) => boolean;
export const stepTo = (
  state: State,
  label: string,
  change: (draft: State) => void,
): Step<State> => {
  const draft = clone(state);
  change(draft);
  return { label, state: draft };
};

export const same = (a: Route, b: Route): boolean =>
  a.cell === b.cell && a.epoch === b.epoch && a.state === b.state;
