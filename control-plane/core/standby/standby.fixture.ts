/** Standbys in plain values, for tests of decisions. */
import type { StandbyView } from "./standby-view.ts";

export const aStandby = (
  annex: string,
  origin: string,
  host: string,
  change: Partial<StandbyView> = {},
): StandbyView => ({
  ...{ annex, origin, host, generation: 1, provider: "logical" },
  ...{ buckets: { lo: 0, hi: 255 }, state: "ready", reason: "", listedAt: null, unlistedAt: null },
  ...{ lagBytes: null, heartbeatAgeMs: null, sees: "unknown", promiseRemainingMs: 0 },
  ...{ reportedAtMs: null, order: null, takeover: null, severedAtMs: null, remoteLsn: null },
  ...{ createdAtMs: 0, changedAtMs: 0, keys: 0, warm: false, byHand: false },
  ...change,
});
