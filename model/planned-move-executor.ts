/** The executor of a planned move: its effects, step by step of the real table, its end and its heirs. */
import type { OwnershipState } from "../contract/cell-protocol.ts";
import {
  isMoveEnd,
  type MoveEvent,
  nextMoveStep,
  switchSteps,
} from "../control-plane/core/move/move-state.ts";
import { must } from "../runtime/assert.ts";
import type { Step } from "./explore.ts";
import {
  type Command,
  epochAtStart,
  type Has,
  type MoveSizes,
  type Route,
  type State,
  same,
  source,
  stepTo,
  target,
} from "./planned-move-state.ts";

export function executorSteps(state: State, sizes: MoveSizes, has: Has): Step<State>[] {
  const steps: Step<State>[] = [];
  const { step, executors, alive } = state;
  if (isMoveEnd(step)) return steps;
  if (alive && executors < sizes.executorsMax) {
    steps.push(
      stepTo(state, `executor ${executors} dies in ${step}`, (s) => {
        s.alive = false;
      }),
    );
  }
  if (!alive) {
    steps.push(
      stepTo(state, `executor ${executors + 1} takes over in ${step}`, (s) => {
        s.alive = true;
        s.executors += 1;
        s.attempt += 1;
        s.phase = 0;
        if (switchSteps.includes(s.step)) enter(s, "taken-over", has);
      }),
    );
    return steps;
  }
  const isSwitching = switchSteps.includes(step);
  if (isSwitching) {
    steps.push(stepTo(state, `${step}: backed off`, (s) => enter(s, "backed-off", has)));
  }
  return [...steps, ...workOf(state, sizes, has)];
}

function enter(state: State, event: MoveEvent, has: Has): void {
  state.step = must(nextMoveStep(state.step, event), `${state.step} knows ${event}`);
  state.phase = 0;
  if (event === "backed-off" && !has("release-same-attempt")) state.attempt += 1;
  if (event === "released" && !has("try-same-attempt")) state.attempt += 1;
}

/** What the executor does in a step: its effects by phase, then the event that ends it. */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one list of all that may happen, read from top to bottom
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one list of all that may happen, read from top to bottom
function workOf(state: State, sizes: MoveSizes, has: Has): Step<State>[] {
  const { step, phase, attempt, cells, control, routers } = state;
  const [a, b] = cells;
  const label = (what: string) => `${step} (attempt ${attempt}): ${what}`;
  const heard = routers.every(({ route, deaf }) => deaf || same(route, control));
  // Agents answer for an attempt. Of opening nobody asks whose it was: a repeated one may still be under way.
  const closed = a.closed && a.gateAttempt === attempt;
  const does = (what: string, when: boolean, change: (s: State) => void) =>
    when
      ? [
          stepTo(state, label(what), (s) => {
            s.phase += 1;
            change(s);
          }),
        ]
      : [];
  const ends = (event: MoveEvent, when: boolean, change: (s: State) => void = () => {}) =>
    when
      ? [
          stepTo(state, label(event), (s) => {
            change(s);
            enter(s, event, has);
          }),
        ]
      : [];
  const own = (of: number, to: OwnershipState, epoch: number) => (s: State) =>
    send(s, { kind: "own", cell: of, state: to, epoch, attempt });
  const gate = (closed: boolean) => (s: State) => send(s, { kind: "gate", closed, attempt });
  const next = control.epoch + 1;
  switch (step) {
    case "ready":
      return state.tries < sizes.triesMax
        ? ends("switched", true, (s) => {
            s.tries += 1;
          })
        : ends("abandoned", true);
    case "holding":
      return [
        ...does("publish hold", phase === 0, (s) =>
          publish(s, { ...s.control, state: "hold" }, has),
        ),
        ...ends("held", phase === 1 && heard),
      ];
    case "closing":
      return [
        ...does("close the gate", phase === 0, gate(true)),
        ...ends(
          "closed",
          phase === 1 && (has("no-gate-drain") || (closed && isEmpty(state, source))),
        ),
      ];
    case "fencing": {
      const epoch = has("fence-raises-epoch") ? epochAtStart + 1 : epochAtStart;
      return [
        ...does("send the fence", phase === 0, own(source, "fenced", epoch)),
        ...ends(
          "fenced",
          phase === 1 && a.state === "fenced" && (a.attempt === attempt || has("any-attempt")),
        ),
      ];
    }
    case "draining": {
      const drained = (a.rows & ~b.rows) === 0 || has("no-drain");
      return [
        ...does(
          "activate the target",
          phase === 0 && has("activate-first"),
          own(target, "active", next),
        ),
        ...ends("drained", drained),
      ];
    }
    case "committing":
      return ends("committed", true, (s) =>
        publish(
          s,
          { cell: target, epoch: next, state: has("release-early") ? "active" : "hold" },
          has,
        ),
      );
    case "activating":
      return [
        ...does("activate the target", phase === 0, own(target, "active", control.epoch)),
        ...does("tell the source", phase === 1, own(source, "moved", epochAtStart)),
        ...ends("activated", phase === 2 && b.state === "active" && b.epoch === control.epoch),
      ];
    case "routing":
      return [
        ...does("release the route", phase === 0, (s) =>
          publish(s, { ...s.control, state: "active" }, has),
        ),
        ...ends("routed", phase === 1 && heard),
      ];
    case "reversing": {
      const told = a.state === "moved" && a.known.state === "moved";
      return [
        ...does(
          "open the source's gate",
          phase === 0 && (told || has("open-gate-early")),
          gate(false),
        ),
        ...ends("reversed", phase === 1 && told && !a.closed),
      ];
    }
    case "soaking":
      return ends("soaked", true);
    case "cleaning":
      return ends("cleaned", true, (s) => {
        s.cells[source].rows = 0;
      });
    case "releasing": {
      const unfenced = a.state === "active" && (a.attempt === attempt || has("any-attempt"));
      return [
        ...does("lift the fence", phase === 0, own(source, "active", epochAtStart)),
        ...does("open the gate", phase === 1 && unfenced, gate(false)),
        ...does("release the route", phase === 2 && !a.closed && a.known.state === "active", (s) =>
          publish(s, { ...s.control, state: "active" }, has),
        ),
        ...ends("released", phase === 3 && heard),
      ];
    }
    case "aborting":
      return ends("undone-failed", true, (s) => {
        s.cells[target].rows = 0;
      });
    default:
      return [];
  }
}

/** Nobody is past the gate. */
const isEmpty = ({ writes }: State, cell: number): boolean =>
  writes.every((one) => one.cell !== cell || !["inside", "locked", "written"].includes(one.at));

function send(state: State, command: Command): void {
  const text = JSON.stringify(command);
  if (!state.wire.some((one) => JSON.stringify(one) === text)) state.wire.push(command);
}

function publish(state: State, route: Route, has: Has): void {
  state.control = route;
  for (const router of state.routers) router.deaf = false;
  if (!has("late-hold") || route.state !== "hold") return;
  for (const router of [0, 1]) send(state, { kind: "hold", router });
}
