/**
 * A move as decisions see it: plain values of the rows `op`, `move` and `move_key`. Its `version` is the
 * operation's, the condition of every compare-and-set; a wish or a pause changes none.
 */
import type { OpState } from "../../../contract/control-api.ts";
import type { CellId, Epoch, KeyspaceName, OpId } from "../../../contract/ids.ts";
import type {
  MoveOptions,
  MovePlan,
  MoveProgress,
  MoveStep,
  MoveVerification,
  PauseParts,
} from "../../../contract/move-api.ts";
import type { PlacementKey } from "../../../contract/placement-key.ts";
import type { Failure } from "../ops/machine.ts";

/** What somebody asked of a move that runs; the executor takes it up at the next step that allows it. */
export const moveWishes = ["none", "verify", "switch", "complete", "cancel"] as const;
export type MoveWish = (typeof moveWishes)[number];

export type MoveKeyView = {
  readonly key: PlacementKey;
  /** At the source, when the move began. */
  readonly epoch: Epoch;
};

export type MoveView = {
  readonly id: OpId;
  readonly object: string;
  readonly step: MoveStep;
  readonly state: OpState;
  readonly headline: string;
  readonly attempt: number;
  readonly version: number;
  readonly deadlineAtMs: number | null;
  readonly updatedAtMs: number;
  readonly keyspace: KeyspaceName;
  readonly keys: readonly MoveKeyView[];
  readonly source: CellId;
  readonly target: CellId;
  readonly plan: MovePlan;
  readonly options: MoveOptions;
  readonly wish: MoveWish;
  readonly paused: boolean;
  readonly reverses: OpId | null;
  readonly tries: number;
  readonly holdRevision: number | null;
  readonly releaseRevision: number | null;
  readonly progress: MoveProgress;
  readonly pause: PauseParts | null;
  readonly verifications: readonly MoveVerification[];
  readonly soakUntilMs: number | null;
  readonly failure: Failure | null;
};
