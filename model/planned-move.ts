/**
 * A planned move, from `ready` to its end: executor, two cells, two routers, writes of a customer. The table
 * of steps, the gate's decisions, the router's hold and rule R2 are the real ones; databases, streams and
 * the wire are what they promise to be.
 *
 * A command to a cell may arrive at any later time, in any order, or never. The executor may die between any two steps and is followed by one of a greater attempt.
 */
import type { OwnershipState } from "../contract/cell-protocol.ts";
import { isMoveEnd } from "../control-plane/core/move/move-state.ts";
import type { Model } from "./explore.ts";
import { executorSteps } from "./planned-move-executor.ts";
import {
  type Cell,
  epochAtStart,
  type MoveBug,
  type MoveSizes,
  type Route,
  type State,
  same,
  source,
  target,
} from "./planned-move-state.ts";
import { cellSteps, deliveries, isVoid, routerSteps, writeSteps } from "./planned-move-world.ts";

export function plannedMove(sizes: MoveSizes, bug?: MoveBug): Model<State> {
  const has = (name: MoveBug) => bug === name;
  const cell = (state: OwnershipState): Cell => ({
    state,
    epoch: epochAtStart,
    attempt: 0,
    known: { state, epoch: epochAtStart },
    closed: false,
    gateAttempt: 0,
    rows: 0,
  });
  const route: Route = { cell: source, epoch: epochAtStart, state: "active" };
  const idle = { at: "idle", router: 0, cell: 0, epoch: 0, header: "" } as const;
  return {
    initial: {
      step: "ready",
      attempt: 1,
      executors: 1,
      alive: true,
      tries: 0,
      phase: 0,
      control: route,
      cells: [cell("active"), cell("importing")],
      routers: [0, 1].map(() => ({ route: { ...route }, hold: "idle", deaf: false })),
      writes: Array.from({ length: sizes.writes + sizes.jobs }, (_, n) => ({
        ...idle,
        at: n < sizes.writes ? "idle" : "job",
      })),
      wire: [],
    },
    next: (state) => [
      ...executorSteps(state, sizes, has),
      ...deliveries(state, has),
      ...cellSteps(state, has),
      ...routerSteps(state),
      ...state.writes.flatMap((_, index) => writeSteps(state, index)),
    ],
    broken: (state) => faultOf(state),
    brokenStep: (before, after) =>
      after.control.epoch < before.control.epoch ||
      after.cells.some(({ epoch }, n) => epoch < (before.cells[n]?.epoch ?? 0))
        ? "an epoch fell"
        : undefined,
    isServed,
    canonical: (state) =>
      orderRouters({ ...state, wire: state.wire.filter((one) => !isVoid(one, state.cells, has)) }),
  };
}

function faultOf({ cells, control, writes }: State): string | undefined {
  const [a, b] = cells;
  if (a.state === "active" && b.state === "active") return "two cells are active";
  const owner = control.cell === source ? a : b;
  if (control.state === "active" && (owner.state !== "active" || owner.epoch !== control.epoch)) {
    return "I4: the published route names a cell that is not active at its epoch";
  }
  for (const [index, { at }] of writes.entries()) {
    if (at === "refused") return "a request that was let in was refused by the guard";
    const bit = 1 << index;
    if (at === "acked" && owner.state === "active" && (owner.rows & bit) === 0) {
      return "an acknowledged write is not in the cell that owns the tenant";
    }
  }
  return undefined;
}

function isServed({ step, control, cells, routers, writes }: State): boolean {
  const owner = control.cell === source ? cells[source] : cells[target];
  return (
    isMoveEnd(step) &&
    control.state === "active" &&
    owner.state === "active" &&
    owner.known.state === "active" &&
    owner.known.epoch === control.epoch &&
    !owner.closed &&
    routers.every((router) => same(router.route, control) && router.hold === "idle") &&
    writes.every(({ at }) => at !== "held")
  );
}

/** Routers have no names that matter. */
function orderRouters(state: State): State {
  const [first, second] = state.routers;
  if (first === undefined || second === undefined) return state;
  const swapped: State = {
    ...state,
    routers: [second, first],
    writes: state.writes.map((write) => ({ ...write, router: 1 - write.router })),
    wire: state.wire.map((one) => (one.kind === "hold" ? { ...one, router: 1 - one.router } : one)),
  };
  const textOf = (s: State) =>
    JSON.stringify([s.routers, s.writes.map(({ router }) => router), s.wire]);
  return textOf(swapped) < textOf(state) ? swapped : state;
}
