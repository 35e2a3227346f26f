/** The control plane's part of a takeover: the list of partners, REVOKING, COMMIT, the new route. */
import type { Step } from "./explore.ts";
import { type Has, mayAdopt } from "./takeover-parts.ts";
import { type State, type TakeoverSizes, to } from "./takeover-state.ts";

export function lists(state: State, sizes: TakeoverSizes, has: Has): Step<State>[] {
  if (!sizes.listChanges || state.control.revoking) return [];
  const { control, cell } = state;
  const steps: Step<State>[] = [];
  const stored = control.acknowledged.join();
  // From 1 to 2 by way of both: of any two lists that follow each other one partner stands in both.
  const next = { "1": has("list-without-overlap") ? [2] : [1, 2], "1,2": [2] }[stored];
  if (next !== undefined && control.wanted.join() === stored) {
    steps.push(
      to(state, `the partners shall be ${next.join(" and ")}`, (s) => {
        s.control.wanted = next;
      }),
    );
  }
  if (cell.partners.join() !== control.wanted.join()) {
    steps.push(
      to(state, "cell 0 stores the list", (s) => {
        s.cell.partners = [...s.control.wanted];
      }),
    );
  }
  if (control.acknowledged.join() !== cell.partners.join()) {
    steps.push(
      to(state, "the control plane hears of it", (s) => {
        s.control.acknowledged = [...s.cell.partners];
      }),
    );
  }
  return steps;
}

export function controlSteps(state: State, has: Has): Step<State>[] {
  const { control } = state;
  if (control.committed > 0) return [...activation(state, has), ...published(state)];
  if (control.revoking) {
    return [
      ...acknowledgements(state),
      ...proof(state, has),
      ...[1, 2].flatMap((n) => [...asking(state, n), ...adoption(state, n, has)]),
    ];
  }
  return [
    to(state, "REVOKING is committed", (s) => {
      s.control.revoking = true;
      if (has("wait-as-configured")) s.control.outstanding = s.control.ttl;
    }),
  ];
}

const acknowledgements = (state: State): Step<State>[] =>
  state.routers.flatMap(({ knows }, n) =>
    knows === "old"
      ? [
          to(state, `router ${n} acknowledges the revocation`, (s) => {
            const it = s.routers[n];
            if (it !== undefined) it.knows = "revoked";
          }),
        ]
      : [],
  );

/** A restart proves the end of the former life alone: nobody may have given anything to the new one, and nobody may from now on. */
function proof(state: State, has: Has): Step<State>[] {
  const { control, cell, partners, ask } = state;
  const nothingNew =
    has("death-of-a-former-life") ||
    (ask.granted === 0 &&
      cell.promised.every((left) => left === 0) &&
      cell.partners.every((n) => partners[n]?.noMore === true));
  if (control.proved || (cell.alive && (cell.boot || !nothingNew))) return [];
  return [
    to(state, "the death of cell 0 is proved", (s) => {
      s.control.proved = true;
    }),
  ];
}

function asking(state: State, n: number): Step<State>[] {
  const one = state.partners[n];
  const steps: Step<State>[] = [];
  if (one !== undefined && one.reported < 0) {
    steps.push(
      to(state, `cell ${n} promises no more and says what remains`, (s) => {
        const it = s.partners[n];
        if (it === undefined) return;
        it.noMore = true;
        it.reported = it.promise;
      }),
    );
  }
  if (one?.attached === true) {
    steps.push(
      to(state, `the stream to cell ${n} is severed`, (s) => {
        const it = s.partners[n];
        if (it !== undefined) it.attached = false;
      }),
    );
  }
  return steps;
}

function adoption(state: State, n: number, has: Has): Step<State>[] {
  const { control, partners, routers } = state;
  const one = partners[n];
  if (one === undefined) return [];
  const facts = {
    ...{ partner: n, acknowledged: control.acknowledged, wanted: control.wanted },
    ...{ outstanding: control.outstanding, proved: control.proved, severed: !one.attached },
    reported: one.reported < 0 ? undefined : one.reported,
    routersRevoked: routers.every(({ knows }) => knows === "revoked"),
  };
  if (routers[0]?.knows !== "revoked" || !mayAdopt(facts, has)) return [];
  return [
    to(state, `COMMIT: the tenant belongs to cell ${n} at epoch 2`, (s) => {
      s.control.committed = n;
    }),
  ];
}

/** The SQL that activates asks the promise in the same transaction, unless the cell is proved dead. */
function activation(state: State, has: Has): Step<State>[] {
  const n = state.control.committed;
  const one = state.partners[n];
  if (one === undefined || one.active) return [];
  const free = one.promise === 0 || state.control.proved;
  if (!free && !has("promise-not-waited")) return [];
  return [
    to(state, `cell ${n} becomes active at epoch 2`, (s) => {
      const it = s.partners[n];
      if (it !== undefined) it.active = true;
    }),
  ];
}

function published(state: State): Step<State>[] {
  const heir = state.partners[state.control.committed];
  if (heir?.active !== true) return [];
  return state.routers.flatMap(({ knows }, n) =>
    knows === "new"
      ? []
      : [
          to(state, `router ${n} hears of the new owner`, (s) => {
            const it = s.routers[n];
            if (it !== undefined) it.knows = "new";
          }),
        ],
  );
}
