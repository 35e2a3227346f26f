/**
 * A cell is lost, or only seems so: its lease, the promises of its standby partners, the list that names
 * them, the wait of the control plane, and answers that are still under way through two routers, one of
 * which nobody reaches. One tenant, one write; cell 0 has it, cells 1 and 2 may take it over.
 */
import type { Model, Step } from "./explore.ts";
import { confirmation, delivers } from "./gates.ts";
import {
  type Has,
  mayAdopt,
  mayServe,
  promiseTicks,
  remaining,
  type TakeoverBug,
  ttlLong,
  ttlShort,
} from "./takeover-parts.ts";

export type TakeoverSizes = {
  /** Restarts of the old cell's database. */
  readonly restartsMax: number;
  /** Restarts of partners. */
  readonly partnerRestartsMax: number;
  /** May the list of partners change? */
  readonly listChanges: boolean;
  /** A customer writes meanwhile. */
  readonly write: boolean;
};

type Partner = {
  /** Ticks of what it promised, on its own clock. */
  promise: number;
  /** Durable: this takeover has asked, it promises no more. */
  noMore: boolean;
  /** Counted down by the control plane since it was said; -1: it has not been. */
  reported: number;
  attached: boolean;
  has: boolean;
  active: boolean;
};
type State = {
  cell: {
    alive: boolean;
    lease: number;
    boot: boolean;
    partners: number[];
    promised: number[];
    silent: boolean;
    has: boolean;
  };
  /** The cell's question for a lease: its age, and the TTL once it was granted; -1: none. */
  ask: { age: number; granted: number };
  control: {
    revoking: boolean;
    committed: number;
    outstanding: number;
    ttl: number;
    wanted: number[];
    acknowledged: number[];
    proved: boolean;
  };
  partners: Partner[];
  /** The first can always be reached; nobody waits for the second. */
  routers: { knows: "old" | "revoked" | "new" }[];
  write: {
    at: "none" | "sent" | "locked" | "committed" | "answered" | "acked" | "unknown";
    router: number;
    age: number;
    left: number;
    header: string;
  };
  restarts: number;
  partnerRestarts: number;
};

const clone = (s: State): State => ({
  ...s,
  cell: { ...s.cell, partners: [...s.cell.partners], promised: [...s.cell.promised] },
  ask: { ...s.ask },
  control: {
    ...s.control,
    wanted: [...s.control.wanted],
    acknowledged: [...s.control.acknowledged],
  },
  partners: s.partners.map((one) => ({ ...one })),
  routers: s.routers.map((one) => ({ ...one })),
  write: { ...s.write },
});
const to = (state: State, label: string, change: (draft: State) => void): Step<State> => {
  const draft = clone(state);
  change(draft);
  return { label, state: draft };
};

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
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one list of all that may happen, read from top to bottom
function forget(state: State): State {
  const { control, write, cell } = state;
  const draft = clone(state);
  if (write.at === "acked" || write.at === "unknown") {
    draft.write = { ...write, router: Math.min(0, write.router), age: 0, left: 0, header: "" };
  }
  if (write.at === "locked" || write.at === "sent") draft.write.left = 0;
  if (control.committed > 0) {
    draft.control = { ...control, outstanding: 0, ttl: 0, wanted: [], acknowledged: [] };
    for (const one of draft.partners) one.reported = -1;
  }
  for (const [n, one] of draft.partners.entries()) {
    const listed = [control.wanted, control.acknowledged, cell.partners].some((list) =>
      list.includes(n),
    );
    if (n === 0) Object.assign(one, { attached: false, promise: 0 });
    // After COMMIT to somebody else, or under no list at all, it plays no part.
    if (control.committed > 0 ? n !== control.committed && !cell.partners.includes(n) : !listed) {
      draft.partners[n] = { ...one, promise: control.committed > 0 ? 0 : one.promise };
    }
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

const down = (ticks: number): number => (ticks > 0 ? ticks - 1 : ticks);
/** No lease and no promise is longer. */
const oldest = 2;

function time(state: State): Step<State>[] {
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

function leases(state: State, has: Has): Step<State>[] {
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
function promises(state: State, has: Has): Step<State>[] {
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

function lists(state: State, sizes: TakeoverSizes, has: Has): Step<State>[] {
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

// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one list of all that may happen, read from top to bottom
function controlSteps(state: State, has: Has): Step<State>[] {
  const { control, partners, routers, cell } = state;
  if (control.committed > 0) {
    return [...activation(state, has), ...published(state)];
  }
  if (!control.revoking) {
    return [
      to(state, "REVOKING is committed", (s) => {
        s.control.revoking = true;
        if (has("wait-as-configured")) s.control.outstanding = s.control.ttl;
      }),
    ];
  }
  const steps: Step<State>[] = [];
  for (const [n, { knows }] of routers.entries()) {
    if (knows !== "old") continue;
    steps.push(
      to(state, `router ${n} acknowledges the revocation`, (s) => {
        const it = s.routers[n];
        if (it !== undefined) it.knows = "revoked";
      }),
    );
  }
  // A restart proves the end of the former life alone: nobody may have given anything to the new one, and
  // nobody may from now on.
  const nothingNew =
    has("death-of-a-former-life") ||
    (state.ask.granted === 0 &&
      cell.promised.every((left) => left === 0) &&
      cell.partners.every((n) => partners[n]?.noMore === true));
  if (!control.proved && (!cell.alive || (!cell.boot && nothingNew))) {
    steps.push(
      to(state, "the death of cell 0 is proved", (s) => {
        s.control.proved = true;
      }),
    );
  }
  for (const n of [1, 2]) {
    const one = partners[n];
    if (one === undefined) continue;
    if (one.reported < 0) {
      steps.push(
        to(state, `cell ${n} promises no more and says what remains`, (s) => {
          const it = s.partners[n];
          if (it === undefined) return;
          it.noMore = true;
          it.reported = it.promise;
        }),
      );
    }
    if (one.attached) {
      steps.push(
        to(state, `the stream to cell ${n} is severed`, (s) => {
          const it = s.partners[n];
          if (it !== undefined) it.attached = false;
        }),
      );
    }
    const facts = {
      ...{ partner: n, acknowledged: control.acknowledged, wanted: control.wanted },
      ...{ outstanding: control.outstanding, proved: control.proved, severed: !one.attached },
      reported: one.reported < 0 ? undefined : one.reported,
      routersRevoked: routers.every(({ knows }) => knows === "revoked"),
    };
    if (routers[0]?.knows === "revoked" && mayAdopt(facts, has)) {
      steps.push(
        to(state, `COMMIT: the tenant belongs to cell ${n} at epoch 2`, (s) => {
          s.control.committed = n;
        }),
      );
    }
  }
  return steps;
}

/** The SQL that activates asks the promise in the same transaction, unless the cell is proved dead. */
function activation(state: State, has: Has): Step<State>[] {
  const n = state.control.committed;
  const one = state.partners[n];
  if (one === undefined || one.active) return [];
  const free = one.promise === 0 || state.control.proved || has("no-look-at-activation");
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

function crashes(state: State, sizes: TakeoverSizes, has: Has): Step<State>[] {
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

/** One write: guard, commit, confirmation, and rule R2 where its answer arrives. */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one list of all that may happen, read from top to bottom
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one list of all that may happen, read from top to bottom
function traffic(state: State, has: Has): Step<State>[] {
  const { write, cell, routers, control } = state;
  const stream = [1, 2].flatMap((n) => {
    const one = state.partners[n];
    return one?.attached === true && cell.has && !one.has && !one.active
      ? [
          to(state, `the stream brings the write to cell ${n}`, (s) => {
            const it = s.partners[n];
            if (it !== undefined) it.has = true;
          }),
        ]
      : [];
  });
  const known = { state: "active", epoch: 1 } as const;
  switch (write.at) {
    case "none":
      return routers.flatMap(({ knows }, n) =>
        knows === "old"
          ? [
              to(
                state,
                `a write goes to cell 0 through router ${n}`,
                (s) => void Object.assign(s.write, { at: "sent", router: n, age: 0 }),
              ),
            ]
          : [],
      );
    case "sent":
      return mayServe(cell, has)
        ? [
            to(state, "the write passes the guard", (s) => {
              s.write.at = "locked";
            }),
          ]
        : [
            to(
              state,
              "the write is refused",
              (s) => void Object.assign(s.write, { at: "unknown", age: 0 }),
            ),
          ];
    case "locked":
      // The stall between the guard's last look and the commit is what R2 is for.
      return [
        to(state, "the write commits", (s) => {
          s.write.at = "committed";
          s.cell.has = true;
        }),
      ];
    case "committed": {
      const leaseLeft = mayServe(cell, has) ? remaining(cell) : 0;
      const header = confirmation(0, 1, { known, closed: false, leaseLeft }) ?? "";
      return [
        ...stream,
        to(
          state,
          "the write is answered",
          (s) => void Object.assign(s.write, { at: "answered", left: leaseLeft, header }),
        ),
      ];
    }
    case "answered": {
      const router = routers[write.router];
      if (router === undefined) return stream;
      const now =
        router.knows === "new" ? { cell: control.committed, epoch: 2 } : { cell: 0, epoch: 1 };
      const mine = delivers(
        write.header === "" ? undefined : write.header,
        { cell: 0, epoch: 1 },
        now,
      );
      const revoked = router.knows === "revoked" && !has("revoke-is-hold");
      // The router's own send time counts, so the way to the cell and back is in it.
      const live = has("route-lease-from-arrival") || write.age < write.left;
      const good = has("no-r2") || (mine && !revoked && live);
      return [
        ...stream,
        to(state, good ? "the answer is delivered" : "the outcome stays unknown", (s) => {
          const late = good && s.control.committed > 0;
          Object.assign(s.write, { at: good ? "acked" : "unknown", age: 0, left: 0, header: "" });
          s.write.router = late ? -1 : 0;
        }),
      ];
    }
    default:
      return stream;
  }
}
