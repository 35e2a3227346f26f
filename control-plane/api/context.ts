/** What the endpoints are given: the store, time and chance, and the settings they quote. */
import type { FailoverPolicy } from "../../contract/failover-api.ts";
import type { LeaseMode } from "../../contract/lease-mode.ts";
import type { MovePlan } from "../../contract/move-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Random } from "../../runtime/random.ts";
import type { Database } from "../store/database.ts";
import type { WakeHub } from "../store/wake-hub.ts";
import type { StandbySettings } from "./machine-standby.ts";

export type ApiEvents = {
  "request.done": {
    method: string;
    path: string;
    status: number;
    ms: number;
    requestId: string;
    caller: string;
    code: string;
  };
  "request.failed": { method: string; path: string; requestId: string; error: string };
};

export type ApiSettings = {
  /** This process, as it stands in the leader's row. */
  readonly instance: string;
  /** How long a grant lets a cell serve. Failover is refused while one that was granted lasts too long (core/failover/gates.ts). */
  readonly leaseTtlMs: number;
  /** How leases of a new cell end, where its creator does not say; absent: by themselves. */
  readonly leaseMode?: LeaseMode;
  /** What is done about a cell that is gone, where nobody has said otherwise at runtime. */
  readonly failover: FailoverPolicy;
  /** Partners that keep each cell's standbys; absent or 0: none are wanted. */
  readonly standbyPartners?: number;
  /** What becomes of an answer of tier gold that no partner has confirmed; absent: it is refused. */
  readonly goldOnPartnerLoss?: "refuse" | "degrade";
  /** Absent: agents are told of no standbys. */
  readonly standbys?: StandbySettings;
  /** Providers that this control plane can ask; absent means that nobody has said. */
  readonly providers?: readonly string[];
};

/** Keys of one keyspace and one source cell that would move together. */
export type MoveQuestion = {
  readonly keyspace: string;
  readonly keys: readonly string[];
  readonly source: string;
  readonly target: string;
};
export type MoveLook = Pick<MovePlan, "stores" | "tables" | "checks" | "estimate">;
/**
 * The preflight: looks into the databases of both cells and changes nothing. A database that cannot be
 * asked is a refused check, not an error.
 */
export type LookAtMove = (question: MoveQuestion, signal: AbortSignal) => Promise<MoveLook>;

export type ApiContext = {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<ApiEvents>;
  readonly metrics: Metrics;
  readonly settings: ApiSettings;
  /** Absent where no control plane runs moves: then none is planned or begun. */
  readonly lookAtMove?: LookAtMove;
  /** Told of every revision that a router says it serves. */
  readonly onAcknowledged?: (router: string, revision: number) => void;
};

/** Longest long poll. */
export const waitMsMax = 30_000;
