/**
 * Standbys and failovers as decisions want them: plain values, read in one snapshot (store/standby/read.ts).
 *
 * What must always be true: only `isAdoptable` says from which standby keys may be taken over; nothing
 * else may be concluded from a state.
 */
import type { StandbyProviderName, StandbyState } from "../../../contract/standby-api.ts";
import type { Buckets } from "./buckets.ts";

export type TakeoverView = {
  readonly failover: string;
  readonly attempt: number;
  readonly open: boolean;
};

export type StandbyView = {
  readonly annex: string;
  readonly origin: string;
  readonly host: string;
  readonly generation: number;
  readonly provider: StandbyProviderName;
  readonly buckets: Buckets;
  readonly state: StandbyState;
  readonly reason: string;
  /** Of the origin's partner list: that names it for the first time, that leaves it out; null: not yet. */
  readonly listedAt: number | null;
  readonly unlistedAt: number | null;
  readonly lagBytes: number | null;
  /** What its agent said last, and when. */
  readonly heartbeatAgeMs: number | null;
  readonly sees: "unknown" | "alive" | "silent";
  readonly promiseRemainingMs: number;
  readonly reportedAtMs: number | null;
  /** What a failover tells it, and what its database has recorded of that. */
  readonly order: TakeoverView | null;
  readonly takeover: TakeoverView | null;
  readonly severedAtMs: number | null;
  readonly remoteLsn: string | null;
  readonly createdAtMs: number;
  /** When its state changed last. */
  readonly changedAtMs: number;
  /** Placements that its annex owns. */
  readonly keys: number;
  /** Its agent reaches the application. */
  readonly warm: boolean;
  /** Its database and agent are run by an operator: nobody else makes or drops it. */
  readonly byHand: boolean;
};

/** It is being made, or stands. Neither on its way out nor in a failover's hands. */
export const livingStates: ReadonlySet<StandbyState> = new Set<StandbyState>([
  "planned",
  "building",
  "syncing",
  "announcing",
  "ready",
  "broken",
]);

export const isLiving = ({ state }: Pick<StandbyView, "state">): boolean => livingStates.has(state);

/** The origin has durably stored a list that names it, and none that leaves it out (corrections A2). */
export const isAdoptable = ({ state }: Pick<StandbyView, "state">): boolean => state === "ready";

/** An agent calls at least this often; one that sees the origin's heartbeats stop calls at once. */
const reportGapMsMax = 35_000;

/**
 * Age of the newest heartbeat that was applied there; null: none, or nobody told. While its agent sees them
 * arrive it is as it was told: the age grew by as much as new ones have made it young again.
 */
export function lagMsOf(
  one: Pick<StandbyView, "heartbeatAgeMs" | "reportedAtMs" | "sees">,
  nowMs: number,
): number | null {
  const { heartbeatAgeMs, reportedAtMs, sees } = one;
  if (heartbeatAgeMs === null || reportedAtMs === null) return null;
  const silentMs = Math.max(0, nowMs - reportedAtMs);
  return sees === "alive" && silentMs <= reportGapMsMax
    ? heartbeatAgeMs
    : heartbeatAgeMs + silentMs;
}
