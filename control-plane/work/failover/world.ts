/** What the executor of failovers works with, and what a step of a failover is to it. */
import type { FailoverStep, RpoReport } from "../../../contract/failover-api.ts";
import type { OpId } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Random } from "../../../runtime/random.ts";
import type { StandbyPair, StandbyProvider } from "../../../standby/ports.ts";
import type { FailoverEvent } from "../../core/failover/failover-state.ts";
import type { FailoverRun } from "../../core/failover/phases.ts";
import type { PoisonLimits } from "../../core/failover/poison.ts";
import type { StopLimits } from "../../core/failover/stopped.ts";
import type { WaveLimits } from "../../core/failover/waves.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import type { Database } from "../../store/database.ts";
import type { FailoverChange } from "../../store/failover/enter.ts";
import type { AnnexRow } from "../../store/failover/revoke.ts";
import type { WakeHub } from "../../store/wake-hub.ts";
import type { RouterWatch } from "../moving/routers.ts";
import type { Provider } from "../provider.ts";
import type { ClockWatch } from "./clock-watch.ts";

export type FailoverEvents = {
  "failover.stepped": {
    failover: string;
    cell: string;
    from: string;
    to: string;
    headline: string;
  };
  "failover.failing": { failover: string; step: string; error: string };
  "failover.poisoned": { failover: string; cell: string; text: string };
};

export type FailoverBoundary = (at: {
  readonly op: string;
  readonly step: FailoverStep;
  readonly when: "before" | "after";
}) => Promise<void>;

/** Every wait of a failover has a limit here. */
export type FailoverPatience = StopLimits & {
  /** A living origin's last rows are waited for so long once its lease is over. */
  readonly drainMs: number;
  /** An annex whose stream cannot be cut, that records no order or is not prepared, is left out after this. */
  readonly annexMs: number;
  /** The same of a physical one, whose server is promoted and started: nobody else has any of its rows. */
  readonly serverMs: number;
  /** Databases of annexes are told so long which keys are theirs; then it is left to their agents. */
  readonly ownMs: number;
  /** Application processes of an annex that do not start are left to start behind its back after this. */
  readonly serveMs: number;
  /** Canaries are looked at for this long before others follow, and this long at most when they lag. */
  readonly canaryMs: number;
  readonly canaryMostMs: number;
  /** Routers and annexes that are behind are named and not waited for. */
  readonly routeMs: number;
  /** Routers have so long to tell whose requests went wrong, before everybody who may have done it is suspected. */
  readonly marksMs: number;
  /** Adopters are watched for this long after the last key came. */
  readonly watchMs: number;
  readonly waves: WaveLimits;
  readonly poison: PoisonLimits;
};

/** Written and read back as a client would; resolves with what it came to, for people. */
export type CanaryCheck = (annex: string, run: FailoverRun, signal: AbortSignal) => Promise<string>;

export type FailoverWorld = {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<FailoverEvents>;
  readonly routers: RouterWatch;
  readonly provider: Pick<Provider, "act" | "look">;
  readonly standby: Pick<StandbyProvider, "status" | "sever" | "activate" | "open" | "own">;
  /** Logins resolved. Throws STANDBY_BROKEN, CONFIG_INVALID. */
  readonly pairOf: (row: AnnexRow) => Promise<StandbyPair>;
  /**
   * The way back of a move, cut at the source: nothing of the dead cell is applied there any more. How far
   * it had come; null: nobody knows.
   */
  readonly cutWayBack: (move: MoveView) => Promise<string | null>;
  readonly clockWatch: ClockWatch;
  readonly canary: CanaryCheck;
  readonly report: (failover: OpId) => Promise<RpoReport>;
  readonly patience: FailoverPatience;
  readonly onBoundary: FailoverBoundary | undefined;
};

/** What one drive remembers between steps; another one goes on without it. */
export type DriveMemory = {
  /** Monotonic: when this drive knew that the step stands. */
  enteredMs: number;
  /** Provider's action `serve`, by annex: what came of it, or undefined while it is under way. */
  readonly serving: Map<string, { outcome: string | undefined }>;
  /** The provider was asked whether the origin is dead, at this monotonic time. */
  lookedDeadMs: number;
  lookingDead: Promise<void> | undefined;
  proof: string;
  lastGoodMs: number | undefined;
  /** What annexes need before keys become active, by annex, while it is made or was: see ahead.ts. */
  readonly activating: Map<string, Promise<void>>;
  /** Sessions at the annexes were asked for. */
  hasReached: boolean;
  /** Progress was counted at this monotonic time. */
  countedMs: number;
};

export type StepContext = {
  readonly world: FailoverWorld;
  readonly run: FailoverRun;
  readonly term: number;
  /** Aborted when this process leads no longer, or stops. */
  readonly signal: AbortSignal;
  readonly memory: DriveMemory;
  /** Sleeps, unless something happens to the failover. */
  readonly wait: (ms: number) => Promise<void>;
  readonly note: (headline: string) => Promise<void>;
};

/** What a step came to. */
export type StepResult = Pick<
  FailoverChange,
  "headline" | "patch" | "within" | "events" | "failure"
> & { readonly event: FailoverEvent };

/** Undefined: nothing yet; look at the failover again. */
export type Step = (context: StepContext) => Promise<StepResult | undefined>;
