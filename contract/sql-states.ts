/** What a cell's database says when it refuses, and what an application does about it. */

/**
 * SQLSTATE codes raised by the `cellfleet` schema of a cell's database (class CF), and what an
 * application does with each: `requeue` means resolve the route anew and repeat the transaction.
 */
export const sqlStates = {
  CF001: {
    name: "key_not_active",
    action: "requeue",
    meaning: "The placement key is not active in this cell.",
  },
  CF002: {
    name: "key_changed",
    action: "fail",
    meaning: "An UPDATE tried to change the key column of a row.",
  },
  CF003: {
    name: "enter_missing",
    action: "fail",
    meaning: "Strict mode: enter() was not called in this transaction.",
  },
  CF004: { name: "lease_missing", action: "requeue", meaning: "The cell holds no valid lease." },
  CF005: {
    name: "truncate_refused",
    action: "fail",
    meaning: "TRUNCATE would remove other tenants' rows.",
  },
  CF006: {
    name: "epoch_stale",
    action: "requeue",
    meaning: "Strict mode: the epoch given to enter() is not the placement's.",
  },
  CF007: {
    name: "key_not_entered",
    action: "fail",
    meaning: "Strict mode: the row belongs to a key that was not entered.",
  },
  CF008: {
    name: "command_stale",
    action: "fail",
    meaning: "A command of an older attempt or a lower epoch was refused.",
  },
  CF009: {
    name: "key_invalid",
    action: "fail",
    meaning: "The key is NULL or breaks the rules for ids.",
  },
  CF010: {
    name: "id_range_exhausted",
    action: "requeue",
    meaning: "No leased id range is left for this sequence.",
  },
  CF011: {
    name: "takeover_not_open",
    action: "fail",
    meaning: "A standby makes a key active only by an open takeover, with no promise left.",
  },
} as const;
export type SqlState = keyof typeof sqlStates;
