/**
 * What a move does in cells' databases, as the executor sees it (control-plane/work/moving). Everything
 * here is idempotent: it is called again after a crash, by another process, under a greater attempt.
 *
 * What must always be true: nothing of a smaller attempt takes effect after something of a greater one;
 * an object is made only after its record is committed (`objectsOf`); what fails has a code, and
 * `CELL_DATABASE_UNREACHABLE` alone is worth trying again by itself.
 */
import type { CellId, Epoch, OpId, TenantId } from "../contract/ids.ts";
import type { MoveCheck, MovePlan, MoveProgress, MoveVerification } from "../contract/move-api.ts";
import type { PlacementKey } from "../contract/placement-key.ts";
import type { RoutedKeyspace, StoreHook } from "../contract/routing-table.ts";

/** One database of one cell, opened as the role that moves (`cellfleet_mover`). */
export type StoreLogin = {
  readonly cell: CellId;
  readonly store: string;
  readonly url: string;
};

export type MovingKey = {
  readonly key: PlacementKey;
  /** At the source, when the move began; the target is activated at the next one. */
  readonly epoch: Epoch;
  /** Of a range: where the next range begins; null: it is the last. */
  readonly until: string | null;
  /** Tenants that stand above this container: their rows are not part of it. */
  readonly overrides: readonly TenantId[];
};

/** A cell's side of a store of kind `external`. Neither hook nor `ignore`: the move is refused. */
export type ExternalSide = { readonly hook: StoreHook | undefined; readonly ignore: boolean };

/** All that a call needs to know. */
export type MoveTask = {
  readonly op: OpId;
  readonly attempt: number;
  readonly keyspace: RoutedKeyspace;
  readonly keys: readonly MovingKey[];
  readonly source: CellId;
  readonly target: CellId;
  /** Source first, per store, in the order of the plan. */
  readonly stores: ReadonlyArray<{
    readonly name: string;
    readonly source: StoreLogin;
    readonly target: StoreLogin;
  }>;
  /** Stores that are no PostgreSQL, of either cell; a side that has none of this name is null. */
  readonly external: ReadonlyArray<{
    readonly name: string;
    readonly source: ExternalSide | null;
    readonly target: ExternalSide | null;
  }>;
  /** The move whose reverse stream carries this one (`move reverse`). */
  readonly reverses: OpId | null;
};

export type MoveObjectKind =
  | "publication"
  | "slot"
  | "subscription"
  | "rows"
  | "ownership"
  | "gate";
export type MoveObject = {
  readonly cell: CellId;
  readonly store: string;
  readonly kind: MoveObjectKind;
  readonly name: string;
};

/** What the target still lacks of the source's stream. */
export type StreamState = {
  /** Bytes of write-ahead log not applied yet; null: not known now. */
  readonly lagBytes: number | null;
  /** Why it will not get there by itself: lost slot, apply error, schema that differs. */
  readonly broken: string | undefined;
};

export type CopyOptions = {
  readonly rateMax: number | undefined;
  /** Called a few times per second at most. */
  readonly onProgress: (progress: MoveProgress) => void;
  /** The copy cannot begin before these transactions of others end; undefined: it begins. */
  readonly onWait?: (blockers: string | undefined) => void;
  readonly signal: AbortSignal;
};

/** Streams and rows (moving/streams.ts, copy.ts, residue.ts). */
export type StreamPort = {
  /** Everything that the move may make anywhere, to be recorded before. */
  readonly objectsOf: (task: MoveTask) => readonly MoveObject[];
  /** Target: keys `importing`, no row of them left. Source: publication. */
  readonly prepare: (task: MoveTask, signal: AbortSignal) => Promise<void>;
  /**
   * From nothing, always: ends an older copier, drops slot and subscription, removes copied rows, then
   * slot with exported snapshot, COPY, and the subscription, disabled.
   */
  readonly copy: (task: MoveTask, options: CopyOptions) => Promise<void>;
  /** Subscription on; publication, slot and (disabled) subscription of the way back. */
  readonly startStream: (task: MoveTask) => Promise<void>;
  /** The reverse stream of `task.reverses` becomes this move's own; makes a new way back. */
  readonly adoptStream: (task: MoveTask) => Promise<void>;
  readonly streamState: (task: MoveTask) => Promise<StreamState>;
  /** After the switch: forward subscription and slot gone, then the way back on. */
  readonly turnAround: (task: MoveTask) => Promise<void>;
  /** Of the way back, while it soaks. */
  readonly reverseState: (task: MoveTask) => Promise<StreamState>;
  /**
   * Way back and publications gone, then the source's rows in batches, counted empty at the end. `spared`:
   * cells whose databases are not touched; of `clean` never the source.
   */
  readonly clean: (
    task: MoveTask,
    signal: AbortSignal,
    spared?: ReadonlySet<string>,
  ) => Promise<void>;
  /** Before the point of no return: everything gone, target's rows and `importing` too. */
  readonly undo: (
    task: MoveTask,
    signal: AbortSignal,
    spared?: ReadonlySet<string>,
  ) => Promise<void>;
};

/**
 * Who may write (moving/switch/*.ts over cell/sql/110-move.sql). STATE_CONFLICT: a greater attempt, or a
 * later operation, has spoken; nothing was changed, and nothing more is to be tried under this attempt.
 */
export type SwitchPort = {
  /**
   * Before the pause begins: opens the connections that the switch needs, which would cost some 10 ms in
   * it. Changes nothing, may be left out, and never rejects.
   */
  readonly warm: (task: MoveTask) => Promise<void>;
  /**
   * Every agent instance of the source lets no request of the keys in and has none in flight. Rejects with
   * PAUSE_BUDGET_EXCEEDED and the instances that are not done when `signal` aborts.
   */
  readonly closeGates: (task: MoveTask, signal: AbortSignal) => Promise<void>;
  /** Also after the switch: nothing of the move stays in the source's list of gates. */
  readonly openGates: (task: MoveTask) => Promise<void>;
  /**
   * In every store, one after the other: keys `fenced` at their epoch, and a marker behind all their
   * writes. FENCE_BLOCKED with the sessions in the way: nothing is changed in that store.
   */
  readonly fence: (task: MoveTask, lockTimeoutMs: number) => Promise<void>;
  /**
   * Keys `active` again at the same epoch, in every store. Its attempt must be greater than that of the
   * fence which it takes back; call it before `openGates`.
   */
  readonly unfence: (task: MoveTask) => Promise<void>;
  /**
   * Until the marker of every store is seen on the target; opens the snapshots of both sides for
   * `compareAfter` (moving/frozen-snapshots.ts): the source's too, for the way back writes into it later.
   */
  readonly drain: (task: MoveTask, signal: AbortSignal) => Promise<void>;
  /** Target: `active` at the next epoch in every store, committed durably and read back. */
  readonly activate: (task: MoveTask) => Promise<void>;
  /** Source: `moved`. */
  readonly tellMoved: (task: MoveTask) => Promise<void>;
  /** What is open there may stand still: what comes next has connections of its own. */
  readonly discard: (task: MoveTask) => void;
};

/** Are the rows the same (moving/verify/*.ts)? */
export type VerifyPort = {
  /** Both sides at one point of the stream, then compared at leisure. */
  readonly compareBefore: (task: MoveTask, signal: AbortSignal) => Promise<MoveVerification>;
  /**
   * The frozen source against the target as of `drain`. Call `turnAround` first: the snapshots that `drain`
   * opened do not see the way back, and where they are gone (another process) both sides are taken at one
   * point of the way back, which must be on for that. Never throws for a difference: `equal` is false.
   */
  readonly compareAfter: (task: MoveTask, signal: AbortSignal) => Promise<MoveVerification>;
  /** Definitions of all tables of the keys, one text per store: unequal texts are drift. */
  readonly schemaOf: (login: StoreLogin) => Promise<string>;
};

/** Is the move possible, and how large is it (moving/preflight/*.ts)? Changes nothing. */
export type PreflightPort = {
  readonly look: (
    task: MoveTask,
  ) => Promise<Pick<MovePlan, "tables" | "checks" | "estimate"> & { readonly fit: boolean }>;
};

export const hookPhases = [
  "prepare",
  "copy",
  "fence",
  "verify",
  "activate",
  "rollback",
  "purge",
] as const;
export type HookPhase = (typeof hookPhases)[number];

/** What PostgreSQL does not hold (moving/hooks.ts): asked at each phase, bounded, idempotent. */
export type HookPort = {
  readonly call: (task: MoveTask, phase: HookPhase, signal: AbortSignal) => Promise<void>;
  readonly checks: (task: MoveTask) => readonly MoveCheck[];
};

export type CellMover = StreamPort &
  SwitchPort &
  VerifyPort &
  PreflightPort & {
    readonly hooks: HookPort;
    /** Connections and snapshots that a move holds between calls. */
    readonly forget: (op: OpId) => Promise<void>;
    readonly close: () => Promise<void>;
  };
