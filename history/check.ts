/**
 * The history checker: reads a history entry by entry and says what went wrong, naming every write.
 *
 * 1. No acknowledged write is lost, except those that an RPO report names.
 * 2. Nothing comes back from the dead and nothing is doubled: what failed is absent, every value and every
 *    id is there at most once, nothing is there that nobody wrote, nothing is in another tenant's data.
 * 3. One writer: per tenant and epoch at most one cell commits or acknowledges, it is the owner, and no
 *    acknowledgement of an older epoch follows one of a newer epoch. A commit that vanished was never
 *    acknowledged and is in a salvage file.
 *
 * It shares no code with what it checks, does no I/O, and is not green when it saw nothing to check: a
 * history without acknowledgements, or with a tenant that was not read in the end, is a violation.
 * Rules and names follow Jepsen's checkers; the rules are rules 1 to 3 of the design's history checker.
 */
import { unreachable } from "../runtime/assert.ts";
import { createWriters, type Writers } from "./check-writers.ts";
import type { Entry, EntryOf, Verdict, Violation, ViolationKind } from "./model.ts";

export type Checker = {
  readonly feed: (entry: Entry) => void;
  /** After the last entry. Pure: may be asked again after more entries. */
  readonly verdict: () => Verdict;
};

type Outcome = "open" | "ok" | "fail" | "info";
type Write = {
  readonly tenant: string;
  readonly value: string;
  /** The highest epoch acknowledged for the tenant when this was sent. */
  readonly floor: number;
  outcome: Outcome;
  presentCount: number;
  commitCount: number;
};

type State = {
  readonly writes: Map<string, Write>;
  readonly open: Map<string, Write>;
  readonly refs: Map<string, string>;
  readonly readTenants: Set<string>;
  readonly reportedLost: Set<string>;
  readonly salvaged: Set<string>;
  readonly writers: Writers;
  readonly found: Violation[];
  present: number;
  commits: number;
  lastAt: number;
};

export function createChecker(): Checker {
  const state: State = {
    writes: new Map(),
    open: new Map(),
    refs: new Map(),
    readTenants: new Set(),
    reportedLost: new Set(),
    salvaged: new Set(),
    writers: createWriters(),
    found: [],
    present: 0,
    commits: 0,
    lastAt: Number.NEGATIVE_INFINITY,
  };
  return {
    feed: (entry) => feed(state, entry),
    verdict: () => judge(state),
  };
}

export function checkHistory(entries: Iterable<Entry>): Verdict {
  const checker = createChecker();
  for (const entry of entries) checker.feed(entry);
  return checker.verdict();
}

function feed(state: State, entry: Entry): void {
  switch (entry.kind) {
    case "head":
      break;
    case "invoke":
      feedInvoke(state, entry);
      break;
    case "ok":
    case "fail":
    case "info":
      feedOutcome(state, entry);
      break;
    case "present":
      feedPresent(state, entry);
      break;
    case "read":
      state.readTenants.add(entry.tenant);
      break;
    case "commit":
      feedCommit(state, entry);
      break;
    case "owner":
      state.found.push(...state.writers.owner(entry));
      break;
    case "reported-lost":
      state.reportedLost.add(entry.value);
      break;
    case "salvaged":
      state.salvaged.add(`${entry.cell} ${entry.value}`);
      break;
    default:
      unreachable(entry);
  }
}

function feedInvoke(state: State, { at, process, tenant, value }: EntryOf<"invoke">): void {
  checkTime(state, at, tenant, value);
  const running = state.open.get(process);
  if (running !== undefined) {
    report(
      state,
      "malformed",
      tenant,
      value,
      `${process} sent before ${running.value} was answered`,
    );
  }
  if (state.writes.has(value)) {
    report(state, "malformed", tenant, value, "the value was sent before: values are unique");
    return;
  }
  const write: Write = {
    tenant,
    value,
    floor: state.writers.acknowledgedEpoch(tenant),
    outcome: "open",
    presentCount: 0,
    commitCount: 0,
  };
  state.writes.set(value, write);
  state.open.set(process, write);
}

function feedOutcome(state: State, entry: EntryOf<"ok"> | EntryOf<"fail"> | EntryOf<"info">): void {
  const write = state.open.get(entry.process);
  checkTime(state, entry.at, write?.tenant ?? "", write?.value ?? "");
  if (write === undefined) {
    report(state, "malformed", "", "", `${entry.process} was answered without having sent`);
    return;
  }
  state.open.delete(entry.process);
  write.outcome = entry.kind;
  if (entry.kind !== "ok") return;

  const { tenant, value, floor } = write;
  const { cell, epoch, ref } = entry;
  if (epoch < floor) {
    const text = `sent after epoch ${floor} was acknowledged, yet ${cell} acknowledged it under epoch ${epoch}`;
    report(state, "ack-order", tenant, value, text);
  }
  state.writers.acknowledged({ tenant, cell, epoch, value });
  claimRef(state, tenant, value, ref);
}

function feedPresent(state: State, { tenant, value, cell, ref }: EntryOf<"present">): void {
  state.present += 1;
  const write = state.writes.get(value);
  if (write === undefined) {
    report(state, "phantom", tenant, value, `found in ${cell}, but nobody wrote it`);
    return;
  }
  if (write.tenant !== tenant) {
    const text = `written for ${write.tenant}, found in the data of ${tenant} in ${cell}`;
    report(state, "foreign", tenant, value, text);
    return;
  }
  write.presentCount += 1;
  claimRef(state, tenant, value, ref);
}

function feedCommit(state: State, entry: EntryOf<"commit">): void {
  state.commits += 1;
  state.writers.committed(entry);
  const write = state.writes.get(entry.value);
  if (write === undefined) {
    const text = `${entry.cell} committed it in transaction ${entry.txid}, but nobody wrote it`;
    report(state, "phantom", entry.tenant, entry.value, text);
    return;
  }
  write.commitCount += 1;
}

/** One id of the application belongs to one write, over all cells and tenants. */
function claimRef(state: State, tenant: string, value: string, ref: string): void {
  const holder = state.refs.get(ref);
  if (holder === undefined) state.refs.set(ref, value);
  else if (holder !== value) {
    report(state, "id-collision", tenant, value, `id ${ref} was given to ${holder} as well`);
  }
}

function checkTime(state: State, at: number, tenant: string, value: string): void {
  if (at < state.lastAt) {
    report(state, "malformed", tenant, value, `time runs back, from ${state.lastAt} to ${at}`);
  }
  state.lastAt = Math.max(state.lastAt, at);
}

function report(
  state: State,
  kind: ViolationKind,
  tenant: string,
  value: string,
  text: string,
): void {
  state.found.push({ kind, tenant, value, text });
}

function judge(state: State): Verdict {
  const writes = [...state.writes.values()];
  const withOutcome = (outcome: Outcome) => writes.filter((write) => write.outcome === outcome);
  const acknowledged = withOutcome("ok");
  const isRead = (write: Write) => state.readTenants.has(write.tenant);
  const missing = acknowledged.filter((write) => isRead(write) && write.presentCount === 0);
  const violations = [
    ...state.found,
    ...unreadTenants(state, writes),
    ...writes.flatMap((write) => faultsOfWrite(state, write)),
    ...state.writers.faults((cell, value) => state.salvaged.has(`${cell} ${value}`)),
    ...(acknowledged.length === 0 ? [nothingChecked] : []),
  ];
  return {
    ok: violations.length === 0,
    violations,
    counts: {
      invoked: writes.length,
      acknowledged: acknowledged.length,
      failed: withOutcome("fail").length,
      unknown: withOutcome("info").length + withOutcome("open").length,
      present: state.present,
      commits: state.commits,
      reportedLost: missing.filter(({ value }) => state.reportedLost.has(value)).length,
      falseAlarms: [...state.reportedLost].filter(
        (value) => (state.writes.get(value)?.presentCount ?? 0) > 0,
      ).length,
    },
  };
}

const nothingChecked: Violation = {
  kind: "vacuous",
  tenant: "",
  value: "",
  text: "no write was acknowledged, so there is nothing that could have been lost",
};

function unreadTenants(state: State, writes: readonly Write[]): Violation[] {
  const tenants = new Set(writes.map(({ tenant }) => tenant));
  return [...tenants]
    .filter((tenant) => !state.readTenants.has(tenant))
    .map((tenant) => ({ kind: "unread", tenant, value: "", text: "was not read in the end" }));
}

function faultsOfWrite(state: State, write: Write): Violation[] {
  const { tenant, value, outcome, presentCount, commitCount } = write;
  const fault = (kind: ViolationKind, text: string): Violation => ({ kind, tenant, value, text });
  const isRead = state.readTenants.has(tenant);
  const isGone = isRead && presentCount === 0;
  const salvaged = state.writers
    .committers(value)
    .some((cell) => state.salvaged.has(`${cell} ${value}`));
  const faults: Violation[] = [];
  if (outcome === "ok" && isGone && !state.reportedLost.has(value)) {
    faults.push(fault("lost", "was acknowledged, is not there, and no report names it"));
  }
  if (outcome === "fail" && presentCount + commitCount > 0) {
    const where = presentCount > 0 ? "is there" : "was committed";
    faults.push(fault("resurrected", `was refused as certainly not done, yet ${where}`));
  }
  if (presentCount > 1) faults.push(fault("duplicate", `is there ${presentCount} times`));
  if (commitCount > 1 && !salvaged) {
    faults.push(fault("duplicate", `was committed ${commitCount} times`));
  }
  if (outcome !== "ok" && isGone && commitCount > 0 && !salvaged) {
    faults.push(fault("phantom", "was committed, is not there, and no salvage file holds it"));
  }
  return faults;
}
