/**
 * A cell is lost, or only seems so: its lease, the promises of its standby partners, the list that names
 * them, the wait of the control plane, and answers that are still under way through two routers, one of
 * which nobody reaches. One tenant, one write; cell 0 has it, cells 1 and 2 may take it over.
 */
import type { Model } from "./explore.ts";
import { crashes, leases, promises, time } from "./takeover-cells.ts";
import { controlSteps, lists } from "./takeover-control.ts";
import { type Has, mayServe, type TakeoverBug, ttlLong, ttlShort } from "./takeover-parts.ts";
import { clone, type Partner, type State, type TakeoverSizes } from "./takeover-state.ts";
import { traffic } from "./takeover-traffic.ts";

export function takeover(sizes: TakeoverSizes, bug?: TakeoverBug): Model<State> {
  const has: Has = (name) => name === bug;
  const partner: Partner = {
    ...{ promise: 0, noMore: false, reported: -1, attached: true, has: false, active: false },
  };
  return {
    initial: {
      cell: {
        ...{ alive: true, lease: ttlLong, boot: true, partners: [1] },
        ...{ promised: [0, 0, 0], silent: false, has: false },
      },
      ask: { age: -1, granted: 0 },
      control: {
        ...{ revoking: false, committed: 0, outstanding: ttlLong, ttl: ttlShort },
        ...{ wanted: [1], acknowledged: [1], proved: false },
      },
      partners: Array.from({ length: sizes.listChanges ? 3 : 2 }, () => ({ ...partner })),
      routers: [{ knows: "old" }, { knows: "old" }],
      write: { at: "none", router: 0, age: 0, left: 0, header: "" },
      restarts: 0,
      partnerRestarts: 0,
    },
    next: (state) => [
      ...time(state),
      ...leases(state, has),
      ...promises(state, has),
      ...lists(state, sizes, has),
      ...controlSteps(state, has),
      ...crashes(state, sizes, has),
      ...(sizes.write ? traffic(state, has) : []),
    ],
    broken: (state) => faultOf(state, has),
    isServed: (state) => isServed(state, has),
    canonical: (state) => forget(state),
  };
}

/** What nobody will ask for any more is the same in all states. */
function forget(state: State): State {
  const { control, write } = state;
  const draft = clone(state);
  if (write.at === "acked" || write.at === "unknown") {
    draft.write = { ...write, router: Math.min(0, write.router), age: 0, left: 0, header: "" };
  }
  if (write.at === "locked" || write.at === "sent") draft.write.left = 0;
  Object.assign(draft.partners[0] ?? {}, { attached: false, promise: 0 });
  if (control.committed === 0) return draft;
  draft.control = { ...control, outstanding: 0, ttl: 0, wanted: [], acknowledged: [] };
  for (const [n, one] of draft.partners.entries()) {
    one.reported = -1;
    // After COMMIT to somebody else it plays no part.
    if (n !== control.committed && !state.cell.partners.includes(n)) one.promise = 0;
  }
  return draft;
}

function faultOf(state: State, has: Has): string | undefined {
  const { cell, partners, control, write } = state;
  const active = partners.findIndex((one) => one.active);
  if (partners.filter((one) => one.active).length > 1) return "two partners are active";
  if (active >= 0 && mayServe(cell, has)) {
    return `R1: cell 0 may commit at epoch 1 while cell ${active} is active at epoch 2`;
  }
  if (write.at === "acked" && write.router < 0) {
    return "R2: an answer of epoch 1 was delivered after COMMIT of epoch 2";
  }
  if (
    active >= 0 &&
    partners[active]?.attached === true &&
    cell.has &&
    partners[active]?.has === false
  ) {
    return "R4: the tail of the old cell flows into rows that were taken over";
  }
  const promised =
    cell.partners.length > 0 && cell.partners.every((one) => (cell.promised[one] ?? 0) > 0);
  if (promised && cell.alive && !control.revoking && !mayServe(cell, has)) {
    return "A1: the cell stops although its partners' promises last";
  }
  return undefined;
}

/** The tenant is served, by whom it belongs to, and the reachable router knows. */
function isServed({ cell, control, partners, routers }: State, has: Has): boolean {
  if (control.committed > 0) {
    return partners[control.committed]?.active === true && routers[0]?.knows === "new";
  }
  return mayServe(cell, has) && routers[0]?.knows === "old";
}
