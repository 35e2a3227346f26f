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
 * 4. Reads of a tenant's list are prefixes of one order in which it grew (check-lists.ts).
 * 5. A tenant's registers are linearizable (check-registers.ts).
 * And effects outside of all cells happen once (check-effects.ts).
 *
 * It shares no code with what it checks, does no I/O, and is not green when it saw nothing to check: a
 * history without acknowledgements, or with a tenant that was not read in the end, is a violation.
 * Rules and names follow Jepsen's checkers; the rules are those of the design's history checker.
 */
import { unreachable } from "../runtime/assert.ts";
import { createState, type Open, report, type State, type Write } from "./check-state.ts";
import { judge } from "./check-verdict.ts";
import type { Entry, EntryOf, Verdict } from "./model.ts";

export type Checker = {
  readonly feed: (entry: Entry) => void;
  /** After the last entry. Pure: may be asked again after more entries. */
  readonly verdict: () => Verdict;
};

/** `registerStepsMax`: bound of the search per register. */
export function createChecker(options: { readonly registerStepsMax?: number } = {}): Checker {
  const state = createState(options.registerStepsMax);
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
    case "list":
      begin(state, entry, { kind: "list" });
      state.lists.begun(entry);
      break;
    case "swap":
    case "look":
      feedRegister(state, entry);
      break;
    case "ok":
    case "listed":
    case "found":
    case "fail":
    case "info":
      feedOutcome(state, entry);
      break;
    case "present":
      feedPresent(state, entry);
      break;
    case "commit":
      feedCommit(state, entry);
      break;
    case "effect":
      state.effects.happened(entry);
      break;
    case "read":
    case "owner":
    case "reported-lost":
    case "unavailable":
    case "salvaged":
    case "settled":
      feedFact(state, entry);
      break;
    default:
      unreachable(entry);
  }
}

type Fact = "read" | "owner" | "reported-lost" | "unavailable" | "salvaged" | "settled";

function feedFact(state: State, entry: EntryOf<Fact>): void {
  switch (entry.kind) {
    case "read":
      state.readTenants.add(entry.tenant);
      break;
    case "owner":
      state.found.push(...state.writers.owner(entry));
      break;
    case "reported-lost":
      state.reportedLost.add(entry.value);
      checkNamed(state, entry);
      break;
    case "unavailable":
      state.unavailable.add(entry.tenant);
      break;
    case "salvaged":
      state.salvaged.add(`${entry.cell} ${entry.value}`);
      break;
    case "settled":
      state.effects.settled(entry.tenant);
      break;
    default:
      unreachable(entry);
  }
}

/** A report that names what nobody wrote, or another tenant's write, is not about this history. */
function checkNamed(state: State, { tenant, value }: EntryOf<"reported-lost">): void {
  const write = state.writes.get(value);
  if (write === undefined) {
    report(state, "malformed", tenant, value, "a report names it as lost, but nobody wrote it");
  } else if (write.tenant !== tenant) {
    const text = `a report names it as a loss of ${tenant}; it was written for ${write.tenant}`;
    report(state, "foreign", tenant, value, text);
  }
}

type Begin = { readonly at: number; readonly process: string; readonly tenant: string };

function begin(state: State, { at, process, tenant }: Begin, what: Open["what"]): void {
  const value = what.kind === "write" ? what.write.value : "";
  checkTime(state, at, tenant, value);
  if (state.open.has(process)) {
    const text = `${process} sent again before it was answered`;
    report(state, "malformed", tenant, value, text);
  }
  state.open.set(process, { tenant, floor: state.writers.answeredEpoch(tenant), what });
}

function feedInvoke(state: State, entry: EntryOf<"invoke">): void {
  const { at, tenant, value } = entry;
  if (state.writes.has(value)) {
    report(state, "malformed", tenant, value, "the value was sent before: values are unique");
    return;
  }
  const write: Write = {
    tenant,
    value,
    sentAt: at,
    outcome: "open",
    presentCount: 0,
    commitCount: 0,
    shown: false,
  };
  begin(state, entry, { kind: "write", write });
  state.writes.set(value, write);
}

function feedRegister(state: State, entry: EntryOf<"swap"> | EntryOf<"look">): void {
  const { at, process, tenant, register: name } = entry;
  const key = JSON.stringify([tenant, name]);
  const register = state.registers.get(key) ?? { tenant, name, ops: [] };
  state.registers.set(key, register);
  const { ops } = register;
  begin(state, entry, { kind: "register", index: ops.length, ops });
  ops.push({
    beganAt: at,
    endedAt: Infinity,
    swap: entry.kind === "swap" ? { expected: entry.expected, value: entry.value } : undefined,
    found: undefined,
    process,
  });
}

type End = "ok" | "listed" | "found" | "fail" | "info";
const answerOf: Readonly<Record<Open["what"]["kind"], End>> = {
  write: "ok",
  list: "listed",
  register: "found",
};

function feedOutcome(state: State, entry: EntryOf<End>): void {
  const open = state.open.get(entry.process);
  checkTime(state, entry.at, open?.tenant ?? "", "");
  if (open === undefined) {
    report(state, "malformed", "", "", `${entry.process} was answered without having sent`);
    return;
  }
  state.open.delete(entry.process);
  if (entry.kind === "fail" || entry.kind === "info") {
    endWithout(state, open, entry);
    return;
  }
  if (entry.kind !== answerOf[open.what.kind]) {
    const text = `${entry.process} asked for ${open.what.kind} and was answered ${entry.kind}`;
    report(state, "malformed", open.tenant, "", text);
    return;
  }
  const { cell, epoch } = entry;
  if (epoch < open.floor) {
    const value = open.what.kind === "write" ? open.what.write.value : "";
    const text = `sent after epoch ${open.floor} was acknowledged, yet ${cell} answered it under epoch ${epoch}`;
    report(state, "ack-order", open.tenant, value, text);
  }
  state.writers.answered({ tenant: open.tenant, cell, epoch });
  endWith(state, open, entry);
}

function endWithout(state: State, { what }: Open, entry: EntryOf<"fail"> | EntryOf<"info">): void {
  switch (what.kind) {
    case "write":
      what.write.outcome = entry.kind;
      break;
    case "list":
      state.lists.given(entry.process);
      break;
    case "register": {
      // Certainly not done: it never was. What it keeps in place of itself explains nothing.
      const op = what.ops[what.index];
      if (entry.kind === "fail" && op !== undefined)
        what.ops[what.index] = { ...op, swap: undefined };
      break;
    }
    default:
      unreachable(what);
  }
}

function endWith(
  state: State,
  { tenant, what }: Open,
  entry: EntryOf<"ok"> | EntryOf<"listed"> | EntryOf<"found">,
): void {
  if (entry.kind === "ok" && what.kind === "write") {
    const { value } = what.write;
    const { cell, epoch, ref, at } = entry;
    what.write.outcome = "ok";
    state.writers.acknowledged({ tenant, cell, epoch, value });
    claimRef(state, tenant, value, ref);
    state.lists.told({ tenant, value, ref, at });
  } else if (entry.kind === "listed") {
    feedListed(state, tenant, entry);
  } else if (entry.kind === "found" && what.kind === "register") {
    const op = what.ops[what.index];
    if (op !== undefined) {
      what.ops[what.index] = { ...op, endedAt: entry.at, found: entry.value };
    }
  }
}

function feedListed(state: State, tenant: string, entry: EntryOf<"listed">): void {
  state.listCount += 1;
  const shown = new Set<string>();
  const mine = entry.seen.filter(({ value, ref }) => {
    if (shown.has(value)) {
      report(state, "duplicate", tenant, value, `is in one read of ${entry.process} twice`);
      return false;
    }
    shown.add(value);
    const write = findWrite(state, { tenant, value, cell: entry.cell });
    if (write === undefined) return false;
    write.shown = true;
    claimRef(state, tenant, value, ref);
    return true;
  });
  state.findings.push(
    ...state.lists.listed(
      { ...entry, seen: mine },
      (value) => state.writes.get(value)?.sentAt ?? 0,
    ),
  );
}

/** The write of a value that was found, or a violation. */
function findWrite(
  state: State,
  { tenant, value, cell }: { tenant: string; value: string; cell: string },
): Write | undefined {
  const write = state.writes.get(value);
  if (write === undefined) {
    report(state, "phantom", tenant, value, `found in ${cell}, but nobody wrote it`);
  } else if (write.tenant !== tenant) {
    const text = `written for ${write.tenant}, found in the data of ${tenant} in ${cell}`;
    report(state, "foreign", tenant, value, text);
    return undefined;
  }
  return write;
}

function feedPresent(state: State, { tenant, value, cell, ref }: EntryOf<"present">): void {
  state.present += 1;
  const write = findWrite(state, { tenant, value, cell });
  if (write === undefined) return;
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
