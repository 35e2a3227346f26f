/** One write of a customer and its answer, and the stream that carries it to the partners. */
import type { Step } from "./explore.ts";
import { confirmation, delivers } from "./gates.ts";
import { type Has, mayServe, remaining } from "./takeover-parts.ts";
import { type State, to } from "./takeover-state.ts";

/** Guard, commit, confirmation, and rule R2 where the answer arrives. */
export function traffic(state: State, has: Has): Step<State>[] {
  const { write, cell } = state;
  const change = (label: string, what: Partial<State["write"]>) =>
    to(state, label, (s) => void Object.assign(s.write, what));
  switch (write.at) {
    case "none":
      return state.routers.flatMap(({ knows }, n) =>
        knows === "old"
          ? [
              change(`a write goes to cell 0 through router ${n}`, {
                at: "sent",
                router: n,
                age: 0,
              }),
            ]
          : [],
      );
    case "sent":
      return mayServe(cell, has)
        ? [change("the write passes the guard", { at: "locked" })]
        : [change("the write is refused", { at: "unknown", age: 0 })];
    case "locked":
      // The stall between the guard's last look and the commit is what R2 is for.
      return [
        to(state, "the write commits", (s) => {
          s.write.at = "committed";
          s.cell.has = true;
        }),
      ];
    case "committed": {
      const left = mayServe(cell, has) ? remaining(cell) : 0;
      const view = {
        known: { state: "active", epoch: 1 },
        closed: false,
        leaseLeft: left,
      } as const;
      const header = confirmation(0, 1, view) ?? "";
      return [...stream(state), change("the write is answered", { at: "answered", left, header })];
    }
    case "answered":
      return [...stream(state), ...answer(state, has)];
    default:
      return stream(state);
  }
}

function stream(state: State): Step<State>[] {
  return [1, 2].flatMap((n) => {
    const one = state.partners[n];
    if (one?.attached !== true || !state.cell.has || one.has || one.active) return [];
    return [
      to(state, `the stream brings the write to cell ${n}`, (s) => {
        const it = s.partners[n];
        if (it !== undefined) it.has = true;
      }),
    ];
  });
}

function answer(state: State, has: Has): Step<State>[] {
  const { write, control } = state;
  const router = state.routers[write.router];
  if (router === undefined) return [];
  const sent = { cell: 0, epoch: 1 };
  const now = router.knows === "new" ? { cell: control.committed, epoch: 2 } : sent;
  const mine = delivers(write.header === "" ? undefined : write.header, sent, now);
  const revoked = router.knows === "revoked" && !has("revoke-is-hold");
  // The router's own send time counts, so the way to the cell and back is in it.
  const live = has("route-lease-from-arrival") || write.age < write.left;
  const good = has("no-r2") || (mine && !revoked && live);
  return [
    to(state, good ? "the answer is delivered" : "the outcome stays unknown", (s) => {
      const late = good && s.control.committed > 0;
      Object.assign(s.write, { at: good ? "acked" : "unknown", age: 0, left: 0, header: "" });
      s.write.router = late ? -1 : 0;
    }),
  ];
}
