/** What the executor of moves works with, and what a step of a move is to it. */
import type { MoveStep } from "../../../contract/move-api.ts";
import type { CellMover, MoveTask, StoreLogin } from "../../../moving/ports.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Random } from "../../../runtime/random.ts";
import type { Patience } from "../../core/move/failure.ts";
import type { MoveEvent } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import type { Failure } from "../../core/ops/machine.ts";
import type { Database } from "../../store/database.ts";
import type { StepChange } from "../../store/moves/enter.ts";
import type { WakeHub } from "../../store/wake-hub.ts";
import type { MoveMetrics } from "./metrics.ts";
import type { PauseWatch } from "./pause.ts";
import type { RouterWatch } from "./routers.ts";

export type MovingEvents = {
  "move.stepped": { move: string; from: string; to: string; headline: string };
  "move.failing": { move: string; step: string; error: string };
  "move.swept": { move: string; text: string };
};

export type MoveBoundary = (at: {
  readonly op: string;
  readonly step: MoveStep;
  readonly when: "before" | "after";
}) => Promise<void>;

export type MovingWorld = {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<MovingEvents>;
  readonly mover: CellMover;
  readonly routers: RouterWatch;
  readonly metrics: MoveMetrics;
  /** The task of a move, with references resolved. Throws MOVE_UNFIT, CONFIG_INVALID. */
  readonly taskOf: (view: MoveView) => Promise<MoveTask>;
  /** Of every store that tells a login for moves, in all cells that are not retired. */
  readonly allLogins: () => Promise<readonly StoreLogin[]>;
  readonly patience: Patience;
  readonly onBoundary: MoveBoundary | undefined;
};

export type StepContext = {
  readonly world: MovingWorld;
  readonly view: MoveView;
  readonly task: MoveTask;
  /** Aborted when this process leads no longer, or stops. */
  readonly signal: AbortSignal;
  /** For how long this step's effect has failed, in a row. */
  readonly failingMs: number;
  readonly memory: DriveMemory;
  /** Sleeps, unless something happens to the move. */
  readonly wait: (ms: number) => Promise<void>;
  readonly note: (headline: string) => Promise<void>;
};

/** What one drive remembers between steps; another one goes on without it. */
export type DriveMemory = {
  pause: PauseWatch | undefined;
  /** Monotonic: no switch before this. */
  notBeforeMs: number;
  /** A switch was taken back, and the hooks have not been told: nobody waits for them. */
  rollbackDue: boolean;
  /** Of the last step that read one. */
  task: MoveTask | undefined;
};

/** What a step came to. */
export type StepResult = Pick<
  StepChange,
  "headline" | "patch" | "within" | "events" | "lockTimeoutMs" | "failure"
> & {
  readonly event: MoveEvent;
};

/** Undefined: nothing yet; look at the move again. */
export type Step = (context: StepContext) => Promise<StepResult | undefined>;

export const abandoned = (failure: Failure): StepResult => ({
  event: "abandoned",
  headline: failure.message,
  failure,
  patch: { failure },
});
