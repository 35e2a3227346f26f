/**
 * What probes say of one endpoint: a table of states, and counters. Pure.
 *
 * A flip needs several observations against it in a row, and one that agrees starts the count anew. What
 * nobody has observed yet is usable: no verdict must not mean down. A green probe permits nothing by
 * itself: the breaker has its own opinion, and the table names the endpoints.
 */

export const healthStates = ["unknown", "up", "down"] as const;
export type HealthState = (typeof healthStates)[number];
export const healthEvents = ["rose", "fell"] as const;
export type HealthEvent = (typeof healthEvents)[number];

export const healthTransitions: Readonly<
  Record<HealthState, Readonly<Partial<Record<HealthEvent, HealthState>>>>
> = {
  unknown: { rose: "up", fell: "down" },
  up: { fell: "down" },
  down: { rose: "up" },
};

export type HealthLimits = { readonly fall: number; readonly rise: number };
export const healthLimits: HealthLimits = { fall: 3, rise: 2 };

export type Health = {
  readonly state: HealthState;
  /** Observations in a row that said the same. */
  readonly good: number;
  readonly bad: number;
};
export const unknownHealth: Health = { state: "unknown", good: 0, bad: 0 };

export function observeHealth(health: Health, isGood: boolean, limits: HealthLimits): Health {
  const good = isGood ? Math.min(health.good + 1, limits.rise) : 0;
  const bad = isGood ? 0 : Math.min(health.bad + 1, limits.fall);
  if (good >= limits.rise) return { state: stepHealth(health.state, "rose"), good, bad };
  if (bad >= limits.fall) return { state: stepHealth(health.state, "fell"), good, bad };
  return { state: health.state, good, bad };
}

const stepHealth = (state: HealthState, event: HealthEvent): HealthState =>
  healthTransitions[state][event] ?? state;
