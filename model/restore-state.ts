/** What the model of a restored control plane consists of, and the mistakes that it can be asked to make. */
import type { RecoveryStep } from "../control-plane/core/recovery.ts";
import { must } from "../runtime/assert.ts";
import type { Step } from "./explore.ts";

export const restoreBugs = {
  "no-evidence": "A5: nobody is asked what they have seen, the restored state counts",
  "waits-for-evidence":
    "A5: it notices by itself that it was restored, yet grants until somebody presents more",
  "backup-wins": "A5: of two claims the one in the backup wins",
  "grant-before-fence": "A5: leases are granted while lower claimants are not fenced yet",
  "epoch-not-raised": "A5: the winner goes on at its epoch, below what others have seen",
  "silent-is-gone": "A5: the key of a cell that does not report is given to another",
  "silent-is-no-heir":
    "A5: a former owner is believed while a cell that may have taken over is silent",
  "kept-is-forgotten": "A5: what was kept from a former owner is its own as soon as it has a lease",
} as const;
export type RestoreBug = keyof typeof restoreBugs;
export type Has = (bug: RestoreBug) => boolean;

export type RestoreSizes = {
  readonly changesMax: number;
  /** May a key be taken from a cell that nobody reaches? */
  readonly takeovers: boolean;
  /** How often a cell may get out of reach. */
  readonly lossesMax: number;
  /** May recovery go on without a cell that can hold no lease any more? */
  readonly freezing: boolean;
};

export type Cell = {
  state: "active" | "moved" | "none";
  epoch: number;
  /** The epoch of the last acknowledged write that its rows hold. */
  data: number;
  lease: boolean;
  reachable: boolean;
  reported: boolean;
  frozen: boolean;
  /** It held a lease when this recovery first heard it. */
  leased: boolean;
};
export type Placement = { cell: number; epoch: number; unavailable: boolean };
export type Decision = { placement: Placement; losers: number[]; loserEpoch: number };
export type State = {
  known: Placement;
  backup: Placement;
  /** The highest epoch that was presented to this control plane. */
  floor: number;
  restored: boolean;
  step: RecoveryStep;
  decision: Decision | null;
  cells: Cell[];
  changes: number;
  losses: number;
};

export const at = (state: State, cell: number): Cell =>
  must(state.cells[cell], "one of three cells");

export const to = (state: State, label: string, change: (draft: State) => void): Step<State> => {
  const draft = structuredClone(state);
  change(draft);
  return { label, state: draft };
};
