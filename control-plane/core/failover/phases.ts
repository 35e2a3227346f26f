/**
 * A failover as its executor sees it: plain values of the rows `op` and `failover`, what it has learnt on
 * the way, and how long each step took. `version` is the operation's, the condition of every
 * compare-and-set; a wish changes none.
 */
import type { OpState } from "../../../contract/control-api.ts";
import type { FailoverStep, failoverModes } from "../../../contract/failover-api.ts";
import type { CellId, OpId } from "../../../contract/ids.ts";

export type SeveredStores = {
  readonly stores: ReadonlyArray<{ readonly name: string; readonly remoteLsn: string | null }>;
  readonly heartbeatAgeMs: number | null;
};

/** `left-out`: nothing is adopted from it in this failover, and `reason` says why. */
export type AnnexFact = {
  readonly status: "ordered" | "stopped" | "severed" | "left-out";
  readonly reason: string;
  readonly severed?: SeveredStores | undefined;
};

/** What an adopter looked like before the first key came to it: a sign is what changed since. */
export type AdopterLook = {
  readonly annex: string;
  /** The primary agent's process, and the start of its database's server. */
  readonly instance: string;
  readonly boot: string;
  readonly appReachable: boolean;
  readonly databaseReachable: boolean;
  /** Since the agent called last. */
  readonly silentMs: number;
  readonly hostBoot: string;
  readonly hostHealth: string;
  /** Share of requests that routers saw fail; null: not known, or too few. */
  readonly errorShare: number | null;
};

export type FailoverEvidence = {
  /** When it began: since witnesses had confirmed the death first; undefined: they never did. */
  readonly goneForMs?: number | undefined;
  /** When the step that stands was entered, by the database's clock. */
  readonly enteredAtMs?: number | undefined;
  /** The cell's, to go back to. */
  readonly before?: { readonly state: string; readonly goal: string } | undefined;
  /** The last lease as it was recorded when nothing more was granted. */
  readonly lease?:
    | { readonly ttlMs: number; readonly sinceGrantMs: number | null; readonly waitMs: number }
    | undefined;
  /** What ended the wait for promises before their time; empty: nothing did. */
  readonly proof?: string | undefined;
  readonly annexes: Readonly<Record<string, AnnexFact>>;
  readonly baseline?: readonly AdopterLook[] | undefined;
  readonly poisoned?:
    | ReadonlyArray<{
        readonly annex: string;
        readonly sign: string;
        readonly suspects: number;
        /** Came with them, and are served on. */
        readonly spared?: number | undefined;
        /** What speaks against each of them. */
        readonly because?:
          | ReadonlyArray<{ readonly key: string; readonly because: string }>
          | undefined;
      }>
    | undefined;
  /** What the check through a public router came to, by annex. */
  readonly canaries?: Readonly<Record<string, string>> | undefined;
};

export type FailoverProgress = {
  readonly keys: number;
  readonly adopted: number;
  readonly routed: number;
  readonly unavailable: number;
  readonly quarantined: number;
  readonly reprotected: number;
};
export const noProgress: FailoverProgress = {
  ...{ keys: 0, adopted: 0, routed: 0, unavailable: 0, quarantined: 0, reprotected: 0 },
};

export type FailoverRun = {
  readonly id: OpId;
  readonly cell: CellId;
  readonly step: FailoverStep;
  readonly state: OpState;
  readonly headline: string;
  readonly attempt: number;
  readonly version: number;
  readonly createdAtMs: number;
  readonly mode: (typeof failoverModes)[number];
  readonly startedBy: string;
  readonly wish: "none" | "abort" | "resume";
  /** Somebody has seen that the cell is powered off. */
  readonly provedDead: boolean;
  readonly evidence: FailoverEvidence;
  readonly phases: Readonly<Record<string, number>>;
  readonly progress: FailoverProgress;
  readonly fencedAtMs: number | null;
};

/** Milliseconds per step so far; a step that is entered twice counts both times. */
export function addPhase(
  phases: Readonly<Record<string, number>>,
  step: FailoverStep,
  enteredAtMs: number,
  nowMs: number,
): Record<string, number> {
  return { ...phases, [step]: (phases[step] ?? 0) + Math.max(0, Math.round(nowMs - enteredAtMs)) };
}

export const leaveOut = (
  evidence: FailoverEvidence,
  annex: string,
  reason: string,
): FailoverEvidence => {
  const known = evidence.annexes[annex];
  const fact: AnnexFact = { ...known, status: "left-out", reason };
  return { ...evidence, annexes: { ...evidence.annexes, [annex]: fact } };
};
