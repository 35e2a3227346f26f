/**
 * Every way in which a fleet is known to go wrong, by name: the simulation does each on request, and the
 * checker must see it. `scenario`: what must happen for it to do harm.
 */

export type Scenario = "move" | "takeover" | "move-then-takeover";

type Bug = {
  readonly scenario: Scenario;
  /** The mistake, in one line. */
  readonly text: string;
};

export const bugs = {
  "plain-select": {
    scenario: "move",
    text: "in REPEATABLE READ the guard reads ownership from the transaction's old snapshot",
  },
  "one-statement": {
    scenario: "move",
    text: "the guard takes its lock and reads ownership in one statement",
  },
  "trusting-guard": { scenario: "move", text: "the guard believes what the application says" },
  "two-locks": { scenario: "move", text: "writers lock the slot, the fence locks the tenant" },
  "activate-first": { scenario: "move", text: "the target is activated before COMMIT" },
  "default-publish": { scenario: "move", text: "the publication carries TRUNCATE" },
  "any-attempt": { scenario: "move", text: "a command of an older attempt is obeyed" },
  "both-streams": {
    scenario: "move",
    text: "the way back is on before the way there is off, and neither asks for the origin",
  },
  "copy-echo": {
    scenario: "move",
    text: "the reverse slot is older than the COPY, and nothing is advanced",
  },
  "wide-filter": {
    scenario: "move",
    text: "a tenant is added to the filter of a stream that runs already",
  },
  "same-sequences": { scenario: "move", text: "both cells hand out ids from the same range" },
  "unsafe-replay": {
    scenario: "takeover",
    text: "the router sends a request again although the cell may have done it",
  },
  "no-drain": { scenario: "move", text: "the target is committed before the marker arrived" },
  "free-outbox": { scenario: "move", text: "a worker sends without having claimed past the guard" },
  "old-copier": { scenario: "move", text: "a copier outlives its attempt" },
  "forgotten-table": {
    scenario: "takeover",
    text: "the records of idempotency keys are not replicated",
  },
  "purge-early": {
    scenario: "move-then-takeover",
    text: "the source is purged before the new home's standby has the rows",
  },
  "standby-without-origin": {
    scenario: "move-then-takeover",
    text: "the standby's subscription has origin = none",
  },
  "no-r2": { scenario: "takeover", text: "the router delivers answers without looking again" },
  "no-r4": { scenario: "takeover", text: "the stream of the dead cell is not severed" },
  "lease-from-response": {
    scenario: "takeover",
    text: "the cell counts its lease from the answer instead of its question",
  },
  "early-report": {
    scenario: "takeover",
    text: "routers hand in what they acknowledged while the cell may still acknowledge more",
  },
  "report-by-sent": {
    scenario: "takeover",
    text: "the report takes for arrived what was sent to the partner, not what it applied",
  },
  "salvage-consumes": {
    scenario: "takeover",
    text: "salvage moves the slot as it reads, breaks off, and the next one finds the rest alone",
  },
  "no-boot-check": {
    scenario: "takeover",
    text: "a restarted database goes on under the lease of its former life",
  },
} as const satisfies Record<string, Bug>;
export type BugName = keyof typeof bugs;
