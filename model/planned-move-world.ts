/** What happens around the executor of a planned move: commands arrive, agents and routers hear, customers write. */
import { stepHold } from "../router/place/hold.ts";
import { must } from "../runtime/assert.ts";
import type { Step } from "./explore.ts";
import { admits, confirmation, delivers } from "./gates.ts";
import { takesEffect } from "./ownership-order.ts";
import {
  type Command,
  type Has,
  type State,
  same,
  source,
  stepTo,
  target,
  type Write,
} from "./planned-move-state.ts";

const take = (state: State, command: Command): void => {
  state.wire = state.wire.filter((one) => one !== command);
};

/** A command that came too late once is too late for ever: it need not be looked at again. */
export function isVoid(command: Command, cells: State["cells"], has: Has): boolean {
  const op = "op_1";
  switch (command.kind) {
    case "hold":
      return false;
    case "own": {
      const there = command.cell === source ? cells[source] : cells[target];
      return !has("any-attempt") && !takesEffect({ ...command, op }, { ...there, op });
    }
    case "gate": {
      const { closed, gateAttempt } = cells[source];
      if (has("no-gate-attempt")) return false;
      // Within one attempt the gate closes first and opens last.
      const back = command.attempt === gateAttempt && command.closed && !closed;
      return command.attempt < gateAttempt || back;
    }
  }
}

export const deliveries = (state: State, has: Has): Step<State>[] =>
  state.wire.flatMap((command) => deliver(state, command, has));

function deliver(state: State, command: Command, has: Has): Step<State>[] {
  switch (command.kind) {
    case "hold":
      return [
        stepTo(state, `router ${command.router} is told to hold`, (s) => {
          const router = s.routers[command.router];
          if (router === undefined) return;
          router.route.state = "hold";
          router.deaf = true;
        }),
      ];
    case "gate": {
      const does = command.closed ? "closes" : "opens";
      return [
        stepTo(state, `attempt ${command.attempt} ${does} the gate`, (s) => {
          take(s, command);
          s.cells[source].closed = command.closed;
          s.cells[source].gateAttempt = command.attempt;
        }),
      ];
    }
    case "own":
      return deliverOwnership(state, command, has);
  }
}

function deliverOwnership(
  state: State,
  command: Extract<Command, { kind: "own" }>,
  has: Has,
): Step<State>[] {
  const there = command.cell === source ? state.cells[source] : state.cells[target];
  const locked = state.writes.some(
    ({ at, cell }) => (at === "locked" || at === "job-locked") && cell === command.cell,
  );
  const leaves = there.state === "active" && command.state !== "active";
  if (leaves && locked && !has("fence-does-not-wait")) return [];
  const { cell, attempt, epoch } = command;
  return [
    stepTo(
      state,
      `cell ${cell} becomes ${command.state} at ${epoch} by attempt ${attempt}`,
      (s) => {
        take(s, command);
        const one = cell === source ? s.cells[source] : s.cells[target];
        one.state = command.state;
        one.epoch = epoch;
        one.attempt = attempt;
      },
    ),
  ];
}

export function cellSteps(state: State, has: Has): Step<State>[] {
  const steps: Step<State>[] = [];
  const [a, b] = state.cells;
  for (const n of [source, target]) {
    const one = n === source ? a : b;
    if (one.known.state === one.state && one.known.epoch === one.epoch) continue;
    steps.push(
      stepTo(state, `the agent of cell ${n} hears`, (s) => {
        const heard = n === source ? s.cells[source] : s.cells[target];
        heard.known = { state: heard.state, epoch: heard.epoch };
      }),
    );
  }
  const missing = a.rows & ~b.rows;
  if (missing !== 0 && b.state === "importing") {
    steps.push(
      stepTo(state, "the stream brings a write", (s) => {
        s.cells[target].rows |= missing & -missing;
      }),
    );
  }
  if (has("cell-unfences") && a.state === "fenced") {
    steps.push(
      stepTo(state, "cell 0 unfences itself", (s) => {
        s.cells[source].state = "active";
      }),
    );
  }
  return steps;
}

export function routerSteps(state: State): Step<State>[] {
  return state.routers.flatMap((router, n) => {
    if (router.deaf || same(router.route, state.control)) return [];
    return [
      stepTo(
        state,
        `router ${n} hears of ${state.control.state} in cell ${state.control.cell}`,
        (s) => {
          const one = must(s.routers[n], "a router");
          one.route = { ...s.control };
          one.hold = stepHold(one.hold, one.route.state === "active" ? "released" : "held-again");
        },
      ),
    ];
  });
}

type Change = (label: string, change: (w: Write, s: State) => void) => Step<State>[];

export function writeSteps(state: State, index: number): Step<State>[] {
  const write = must(state.writes[index], "a write");
  const to: Change = (label, change) => [
    stepTo(state, `write ${index} ${label}`, (s) => change(must(s.writes[index], "a write"), s)),
  ];
  switch (write.at) {
    case "job":
    case "job-locked":
      return jobSteps(state, write, 1 << index, to);
    case "idle":
    case "held":
      return arrivalSteps(state, write, to);
    case "sent":
    case "inside":
    case "locked":
      return cellWork(state, write, 1 << index, to);
    case "written":
    case "answered":
      return answerSteps(state, write, to);
    default:
      return [];
  }
}

const cellOf = (state: State, n: number) => state.cells[n === source ? source : target];

function jobSteps(state: State, { at, cell }: Write, bit: number, to: Change): Step<State>[] {
  if (at === "job-locked") {
    return to("of a job commits", (w, s) => {
      w.at = "acked";
      cellOf(s, cell).rows |= bit;
    });
  }
  return [source, target].flatMap((n) =>
    cellOf(state, n).state === "active"
      ? to(`of a job passes the guard of cell ${n}`, (w) => {
          w.at = "job-locked";
          w.cell = n;
        })
      : [],
  );
}

/** At a router that holds, or on through it. */
function arrivalSteps(state: State, write: Write, to: Change): Step<State>[] {
  if (write.at === "held") {
    const router = must(state.routers[write.router], "a router");
    if (router.route.state === "hold" || router.hold !== "draining") return [];
    return to("is released", (w, s) => {
      const one = must(s.routers[w.router], "a router");
      const more = s.writes.some(
        (other) => other !== w && other.at === "held" && other.router === w.router,
      );
      if (!more) one.hold = stepHold(one.hold, "emptied");
      Object.assign(w, { at: "sent", cell: one.route.cell, epoch: one.route.epoch });
    });
  }
  return state.routers.flatMap(({ route }, n) =>
    route.state === "hold"
      ? to(`waits at router ${n}`, (w, s) => {
          const one = must(s.routers[n], "a router");
          one.hold = stepHold(stepHold(one.hold, "held-again"), "arrived");
          w.at = "held";
          w.router = n;
        })
      : to(`goes through router ${n}`, (w) => {
          Object.assign(w, { at: "sent", router: n, cell: route.cell, epoch: route.epoch });
        }),
  );
}

const viewOf = ({ known, closed }: State["cells"][number]) => ({ known, closed, leaseLeft: 1 });

function cellWork(state: State, write: Write, bit: number, to: Change): Step<State>[] {
  const cell = cellOf(state, write.cell);
  switch (write.at) {
    case "sent":
      return admits(write.cell, write.epoch, viewOf(cell))
        ? to("is let in", (w) => {
            w.at = "inside";
          })
        : to("is turned away before it is read", (w) => {
            // Rule of replay: it was not admitted, so it may be sent again.
            Object.assign(w, { at: "idle", router: 0, cell: 0, epoch: 0 });
          });
    case "inside":
      return cell.state === "active" && cell.epoch === write.epoch
        ? to("passes the guard", (w) => {
            w.at = "locked";
          })
        : to("is refused by the guard", (w) => {
            w.at = "refused";
          });
    default:
      return to("commits", (w, s) => {
        w.at = "written";
        cellOf(s, w.cell).rows |= bit;
      });
  }
}

function answerSteps(state: State, write: Write, to: Change): Step<State>[] {
  if (write.at === "written") {
    const view = viewOf(cellOf(state, write.cell));
    return to("is answered", (w) => {
      w.at = "answered";
      w.header = confirmation(w.cell, w.epoch, view) ?? "";
    });
  }
  const now = must(state.routers[write.router], "a router").route;
  const good = delivers(write.header === "" ? undefined : write.header, write, now);
  return to(good ? "is acknowledged" : "stays unknown", (w) => {
    Object.assign(w, { at: good ? "acked" : "unknown", router: 0, header: "" });
  });
}
