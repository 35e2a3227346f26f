/**
 * The version of the wire language, and its history in one line per change.
 *
 * Raise `contractVersion` whenever a schema in this room changes; `tests/contract.golden.test.ts`
 * pins a hash of all of them, so that the wire cannot change by accident.
 */
export const contractVersion = 2;

/** One line per version, newest last. */
export const contractHistory = [
  "1: ids, errors, headers, routing table, cell protocol, control API, provider API",
  "2: stages of adopted cells, names of tenants, classes of routes, services behind agents, suspension, deletion, questions; absent fields mean what they meant in 1",
] as const;
