/** What the model of a takeover consists of, and how large it may be. */
import type { Step } from "./explore.ts";

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

export type Partner = {
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
export type State = {
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

export const clone = (s: State): State => ({
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
export const to = (state: State, label: string, change: (draft: State) => void): Step<State> => {
  const draft = clone(state);
  change(draft);
  return { label, state: draft };
};
