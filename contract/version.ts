/**
 * The version of the wire language, and its history in one line per change.
 *
 * Raise `contractVersion` whenever a schema in this room changes; `tests/contract.golden.test.ts`
 * pins a hash of all of them, so that the wire cannot change by accident.
 */
export const contractVersion = 5;

/** One line per version, newest last. */
export const contractHistory = [
  "1: ids, errors, headers, routing table, cell protocol, control API, provider API",
  "2: stages of adopted cells, names of tenants, classes of routes, services behind agents, suspension, deletion, questions; absent fields mean what they meant in 1",
  "3: what routes ask for (any-cell, public, priority, deadline, fallback), limits of tenants, feature flags, tenants named by tokens, requests signed by routers; absent fields mean what they meant in 2",
  "4: moves of placements between cells; stores with a login that moves, and hooks; absent fields mean what they meant in 3",
  "5: standbys in partner cells, promises between cells, failover with a report of what was lost, salvage, drain, rebalance, safety rules; absent fields mean what they meant in 4",
] as const;
