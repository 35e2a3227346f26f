/**
 * The immutable view of the fleet that every decision takes: plain values, read in one snapshot.
 * Decisions also take `nowMs`; nothing here knows a database or a clock.
 */

import type { UnclassedTables } from "../../contract/cell-protocol.ts";
import type {
  Capacity,
  CellHealth,
  CellState,
  OpState,
  PlacementState,
  tiers,
} from "../../contract/control-api.ts";
import type { ProvidedCell } from "../../contract/provider-api.ts";
import type { CellStage, GuardMode, Strategy } from "../../contract/routing-table.ts";
import type { LeaseModeView } from "./lease-mode.ts";
import type { Reserve } from "./standby/reserve.ts";

export type Tier = (typeof tiers)[number];

export type Usage = { readonly tenants: number; readonly bytes: number; readonly rps: number };

export type AgentView = {
  readonly instance: string;
  readonly endpoint: string;
  readonly primary: boolean;
  readonly appReachable: boolean;
  readonly databaseReachable: boolean;
  readonly seenAtMs: number;
};

export type CellView = {
  readonly id: string;
  readonly state: CellState;
  readonly goal: CellState;
  readonly health: CellHealth;
  readonly healthReason: string;
  readonly region: string;
  readonly failureDomain: string;
  readonly tiers: readonly Tier[];
  readonly dedicated: boolean;
  readonly provider: string;
  readonly capacity: Capacity;
  readonly usage: Usage;
  /** Of the last lease granted: until when it may still be valid; 0 when none was granted. */
  readonly leaseUntilMs: number;
  /** How its leases end: of one that counts as manual the lease that was granted bounds nothing. */
  readonly leaseMode: LeaseModeView;
  readonly appliedRevision: number;
  readonly agents: readonly AgentView[];
  readonly stage: StageView;
  /** The cell whose adoption goes on in this fleet, while one does: only that one takes tenants. */
  readonly adopting: string | null;
  /** An annex: a standby of `origin` in the cell `host` (contract/annex.ts). Null: a cell of its own. */
  readonly annex: AnnexOf | null;
  /** No lease is granted to it: a failover takes, or took, its keys. */
  readonly revoking: boolean;
  /** What it keeps free for a failover of a partner; null: it keeps nobody's standby, and has none. */
  readonly reserve: Reserve | null;
};

export type AnnexOf = {
  readonly origin: string;
  readonly host: string;
};

/** Cells as people count them: annexes are parts of their hosts. */
export const wholeCells = (cells: readonly CellView[]): readonly CellView[] =>
  cells.filter(({ annex }) => annex === null);

/** A standby that nobody was taken over into: it has no application to run, and no tenant to miss it. */
export const isIdleAnnex = ({ annex, usage }: Pick<CellView, "annex" | "usage">): boolean =>
  annex !== null && usage.tenants === 0;

/** How far an adopted cell has come; every other cell enforces from its birth. */
export type StageView = {
  readonly adopted: boolean;
  /** What routers are told, and since when. */
  readonly now: CellStage;
  readonly sinceMs: number;
  /** What its agents are told, and what its database has applied. */
  readonly goal: CellStage;
  readonly applied: CellStage;
  /** False: its database has not made the last change of `goal`; an answer of an earlier one may be under way. */
  readonly isCurrent: boolean;
  readonly guardedTables: number;
  /** Tables that its manifest forgets; null: its agent has not told. */
  readonly unclassed: UnclassedTables | null;
  /** What would have been refused, by code. */
  readonly wouldRefuse: Readonly<Record<string, number>>;
  /** When one of these grew last; 0: never. */
  readonly refusedAtMs: number;
};

/** What a cell owns. */
export type Holding = {
  /** Keys that are not on their way out. */
  readonly keys: number;
  /** Of these: not served there yet, or not any more. */
  readonly waiting: number;
};

/** What only a cell that enforces holds to: tenants that are refused on purpose, deletions that go on. */
export type Closed = { readonly suspended: number; readonly deletions: number };
export const nothingClosed: Closed = { suspended: 0, deletions: 0 };

export type RouterView = {
  readonly id: string;
  readonly revision: number;
  readonly seenAtMs: number;
  /** When it counted a request that an adopted cell would have been spared; 0: never. */
  readonly refusedAtMs: number;
};

export type KeyspaceView = {
  readonly name: string;
  readonly strategy: Strategy;
  readonly slotCount: number | null;
  readonly guardMode: GuardMode;
};

export type PlacementView = {
  readonly key: string;
  readonly cell: string;
  readonly epoch: number;
  readonly state: PlacementState;
  readonly revision: number;
  readonly deleted: boolean;
};

/** What came of asking the provider last, for this operation. */
export type ProviderNote = {
  /** Null while the last call failed. */
  readonly answer: ProvidedCell | null;
  /** The action that was asked for; a look keeps the action it looks after. */
  readonly action: string;
  /** In a row. */
  readonly failures: number;
  readonly error: string;
  readonly askedAtMs: number;
};

export type OpView = {
  readonly id: string;
  readonly kind: string;
  readonly object: string;
  readonly state: OpState;
  readonly step: string;
  readonly headline: string;
  readonly attempt: number;
  readonly version: number;
  readonly revision: number | null;
  readonly deadlineAtMs: number | null;
  readonly updatedAtMs: number;
  readonly input: Readonly<Record<string, unknown>>;
  readonly provider: ProviderNote | null;
};

export type FleetSnapshot = {
  readonly nowMs: number;
  /** Since when the process that looks has led, by the same clock. */
  readonly listeningSinceMs: number;
  readonly revision: number;
  readonly mode: "normal" | "recovering";
  /** Entries of the audit log. */
  readonly auditEntries: number;
  readonly cells: readonly CellView[];
  readonly routers: readonly RouterView[];
  /** Pending and running, oldest first. */
  readonly ops: readonly OpView[];
  /** Placements that an open operation still waits for, by operation and cell. */
  readonly pending: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** What cells own; read only while the stage of a cell changes. */
  readonly holdings: ReadonlyMap<string, Holding>;
  /** Likewise. */
  readonly closed: Closed;
  /** Placements that open operations name as theirs, by key. */
  readonly placements: ReadonlyMap<string, PlacementView>;
  /** Cells that have not confirmed a purge, by operation; an operation without purges is not there. */
  readonly purges: ReadonlyMap<string, readonly string[]>;
};

/** A router counts as live for this long after its last call. */
export const routerLiveMs = 15_000;
/** A router that has been silent for this long is forgotten, whoever begins to listen. */
export const routerForgottenMs = 7 * 24 * 3_600_000;

/**
 * Routers that may be serving. While nobody listened a router could not call, and served on: its
 * silence counts from when this process began to lead.
 */
export const liveRouters = (
  fleet: Pick<FleetSnapshot, "routers" | "nowMs" | "listeningSinceMs">,
): readonly RouterView[] =>
  fleet.routers.filter(
    ({ seenAtMs }) =>
      fleet.nowMs - seenAtMs <= routerForgottenMs &&
      fleet.nowMs - Math.max(seenAtMs, fleet.listeningSinceMs) <= routerLiveMs,
  );
