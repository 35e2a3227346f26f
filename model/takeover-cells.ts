/** Time passes, cell 0 asks for leases and promises, databases restart and die. */
import type { Step } from "./explore.ts";
import { type Has, promiseTicks } from "./takeover-parts.ts";
import { type State, type TakeoverSizes, to } from "./takeover-state.ts";

const down = (ticks: number): number => (ticks > 0 ? ticks - 1 : ticks);
/** No lease and no promise is longer. */
const oldest = 2;

export function time(state: State): Step<State>[] {
  return [
    to(state, "a tick passes", ({ cell, ask, control, partners, write }) => {
      cell.lease = down(cell.lease);
      cell.promised = cell.promised.map(down);
      control.outstanding = down(control.outstanding);
      for (const one of partners) {
        one.promise = down(one.promise);
        one.reported = down(one.reported);
      }
      if (ask.age >= 0) ask.age = Math.min(oldest, ask.age + 1);
      const flying = write.at !== "none" && write.at !== "acked" && write.at !== "unknown";
      if (flying) write.age = Math.min(oldest, write.age + 1);
    }),
  ];
}

export function leases(state: State, has: Has): Step<State>[] {
  const { cell, ask, control } = state;
  const steps: Step<State>[] = [];
  if (cell.alive && ask.age < 0) {
    steps.push(
      to(state, "cell 0 asks for a lease", (s) => {
        s.ask = { age: 0, granted: 0 };
      }),
    );
  }
  if (ask.age >= 0 && ask.granted === 0) {
    if (!control.revoking || has("late-grant")) {
      steps.push(
        to(state, "the control plane grants", (s) => {
          s.ask.granted = s.control.ttl;
          const recorded = has("late-grant") && s.control.revoking ? 0 : s.control.ttl;
          s.control.outstanding = Math.max(s.control.outstanding, recorded);
        }),
      );
    }
    steps.push(
      to(state, "the question is lost", (s) => {
        s.ask = { age: -1, granted: 0 };
      }),
    );
  }
  if (ask.granted > 0) {
    steps.push(
      to(state, "cell 0 hears of its grant", (s) => {
        const counted = has("lease-from-answer") ? s.ask.granted : s.ask.granted - s.ask.age;
        s.cell.lease = Math.max(s.cell.lease, counted, 0);
        s.cell.boot = true;
        s.ask = { age: -1, granted: 0 };
      }),
    );
  }
  return steps;
}

/** Partners are asked when the control plane is silent. An answer that takes longer only promises less. */
export function promises(state: State, has: Has): Step<State>[] {
  const { cell, partners } = state;
  if (!cell.alive) return [];
  return cell.partners.flatMap((n) => {
    const one = partners[n];
    if (one === undefined) return [];
    const steps: Step<State>[] = [];
    if ((!one.noMore || has("promises-go-on")) && !one.active) {
      steps.push(
        to(state, `cell ${n} promises`, (s) => {
          const it = s.partners[n];
          if (it !== undefined) it.promise = promiseTicks;
          s.cell.promised[n] = promiseTicks;
          s.cell.silent = false;
        }),
      );
    }
    if (!cell.silent && has("one-dead-partner-stops-all")) {
      steps.push(
        to(state, `cell ${n} does not answer`, (s) => {
          s.cell.silent = true;
        }),
      );
    }
    return steps;
  });
}

export function crashes(state: State, sizes: TakeoverSizes, has: Has): Step<State>[] {
  const steps: Step<State>[] = [];
  if (state.restarts < sizes.restartsMax && state.cell.alive) {
    steps.push(
      to(state, "the database of cell 0 restarts", (s) => {
        s.restarts += 1;
        s.cell.boot = false;
        s.cell.promised = [0, 0, 0];
        s.ask = { age: -1, granted: 0 };
        if (s.write.at === "locked") Object.assign(s.write, { at: "unknown", age: 0 });
      }),
    );
    steps.push(
      to(state, "cell 0 dies", (s) => {
        s.restarts += 1;
        s.cell.alive = false;
        s.cell.lease = 0;
        s.cell.promised = [0, 0, 0];
        s.ask = { age: -1, granted: 0 };
        if (s.write.at === "locked") Object.assign(s.write, { at: "unknown", age: 0 });
      }),
    );
  }
  if (state.partnerRestarts < sizes.partnerRestartsMax) {
    for (const n of state.cell.partners) {
      steps.push(
        to(state, `cell ${n} restarts`, (s) => {
          s.partnerRestarts += 1;
          const it = s.partners[n];
          if (it === undefined) return;
          // Its clock is a new one: as much as it may ever have promised counts again.
          it.promise = has("restart-forgets") ? 0 : promiseTicks;
          if (it.reported >= 0) it.reported = it.promise;
        }),
      );
    }
  }
  return steps;
}
