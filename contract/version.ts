/**
 * The version of the wire language, and its history in one line per change.
 *
 * Raise `contractVersion` whenever a schema in this room changes; `tests/contract.golden.test.ts`
 * pins a hash of all of them, so that the wire cannot change by accident.
 */
export const contractVersion = 1;

/** One line per version, newest last. */
export const contractHistory = [
  "1: ids, errors, headers, routing table, cell protocol, control API, provider API",
] as const;
