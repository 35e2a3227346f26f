import type { StandbyFacts } from "./standby-facts.ts";

/** Of a cell that was never told of partners, and is no annex. */
export const withoutStandbys: StandbyFacts = {
  listRevision: null,
  controlGrant: 0,
  refused: false,
  leased: false,
  manual: false,
  modeNumber: 0,
  leaseTimeline: null,
  lsn: "0/0",
  stopped: [],
  keyspaces: [],
  annex: null,
};
