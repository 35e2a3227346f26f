/**
 * Observations in, verdict out: healthy, suspect, down. A verdict flips only after several contrary
 * observations in a row, and one agreeing observation starts the count anew (as in pingora's health
 * check). Health is not permission: it never changes a cell's state, and a state never hides health.
 */
import type { CellHealth } from "../../contract/control-api.ts";
import { type AgentView, type CellView, isIdleAnnex } from "./fleet.ts";

export type HealthLimits = {
  /** Bad observations in a row until `suspect`, and until `down`. */
  readonly suspectAfter: number;
  readonly downAfter: number;
  /** Good observations in a row until `healthy`. */
  readonly healthyAfter: number;
  /** A primary agent that has not called for this long is silent. Longer than its longest long poll. */
  readonly silentMs: number;
};

export const healthLimits: HealthLimits = {
  suspectAfter: 2,
  downAfter: 4,
  healthyAfter: 2,
  silentMs: 15_000,
};

/** What one look at a cell found. */
export type Observation =
  | { readonly good: true }
  | { readonly good: false; readonly reason: string };

export type HealthTrack = {
  readonly health: CellHealth;
  /** Observations in a row that say otherwise than before. */
  readonly goods: number;
  readonly bads: number;
  readonly reason: string;
};

export const startTrack = (cell: CellView): HealthTrack => ({
  health: cell.health,
  goods: 0,
  bads: 0,
  reason: cell.healthReason,
});

/** `probe`: undefined when the agent answered, else why it did not. */
export type Probe = { readonly instance: string; readonly failure: string | undefined };

/**
 * Looks at one cell. `knownSinceMs` is when this process began to lead: silence from before that is
 * ours, not the cell's.
 */
export function observe(
  cell: CellView,
  probes: readonly Probe[],
  nowMs: number,
  knownSinceMs: number,
  limits: HealthLimits = healthLimits,
): Observation {
  const primary = newest(cell.agents.filter((agent) => agent.primary));
  if (primary === undefined) return { good: false, reason: "no primary agent has reported" };
  // First what was tried just now: it says more than how long nobody called.
  const probe = probes.find(({ instance }) => instance === primary.instance);
  if (probe?.failure !== undefined) {
    return {
      good: false,
      reason: `its gate at ${primary.endpoint} does not answer (${probe.failure})`,
    };
  }
  const silence = nowMs - Math.max(primary.seenAtMs, knownSinceMs);
  if (silence > limits.silentMs) {
    return { good: false, reason: `its agent has not called for ${Math.round(silence / 1000)} s` };
  }
  if (!primary.databaseReachable)
    return { good: false, reason: "its agent cannot reach the database" };
  if (!primary.appReachable && !isIdleAnnex(cell))
    return { good: false, reason: "its agent cannot reach the application" };
  return { good: true };
}

/** The primary that called last: a crashed one may stand in the table for a while. */
const newest = (agents: readonly AgentView[]): AgentView | undefined =>
  agents.toSorted((a, b) => b.seenAtMs - a.seenAtMs)[0];

/**
 * A cell in pass-through is not ours to call down: its requests go past its agents, if there are any.
 * An agent that serves makes it healthy, which is what the next stage asks for.
 */
export function judgePassThrough(
  track: HealthTrack,
  observation: Observation,
  hasAgents: boolean,
): HealthTrack {
  if (observation.good) return judge(track, observation);
  const reason = hasAgents
    ? "pass-through: its requests go past its agent, which does not serve"
    : "pass-through: nothing of ours runs there";
  return { health: "unknown", goods: 0, bads: track.bads + 1, reason };
}

export function judge(
  track: HealthTrack,
  observation: Observation,
  limits: HealthLimits = healthLimits,
): HealthTrack {
  if (observation.good) {
    const goods = track.goods + 1;
    // What was never known cannot flap: a new cell need not wait for a second look.
    const enough = track.health === "unknown" ? 1 : limits.healthyAfter;
    const risen = track.health === "healthy" || goods >= enough;
    return risen
      ? { health: "healthy", goods, bads: 0, reason: "agent, application and database answer" }
      : { ...track, goods, bads: 0 };
  }
  const bads = track.bads + 1;
  return {
    health: fallen(track.health, bads, limits),
    goods: 0,
    bads,
    reason: observation.reason,
  };
}

/** A cell that never was healthy is not `down`: it is not known yet. */
function fallen(health: CellHealth, bads: number, limits: HealthLimits): CellHealth {
  if (health === "unknown" || health === "down") return health;
  if (bads >= limits.downAfter) return "down";
  return bads >= limits.suspectAfter ? "suspect" : health;
}
