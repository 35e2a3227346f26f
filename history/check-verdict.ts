/**
 * The verdict over what the checker remembers: pure, so it may be asked for again after more entries.
 */
import { unreachable } from "../runtime/assert.ts";
import { judgeRegister } from "./check-registers.ts";
import type { Outcome, Register, State, Write } from "./check-state.ts";
import type { Verdict, Violation, ViolationKind } from "./model.ts";

export function judge(state: State): Verdict {
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
    ...state.findings.flatMap((finding) => finding((value) => mayVanish(state, value)) ?? []),
    ...[...state.registers.values()].flatMap((one) => faultsOfRegister(state, one)),
    ...state.effects.faults(
      state.writes,
      (tenant) => state.readTenants.has(tenant),
      (value) => mayVanish(state, value),
    ),
    ...(acknowledged.length + registerAnswers(state) === 0 ? [nothingChecked] : []),
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
      lists: state.listCount,
      registers: registerAnswers(state),
      effects: state.effects.count(),
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
    .filter((tenant) => !state.readTenants.has(tenant) && !state.unavailable.has(tenant))
    .map((tenant) => ({ kind: "unread", tenant, value: "", text: "was not read in the end" }));
}

const registerAnswers = ({ registers }: State): number =>
  [...registers.values()].reduce(
    (sum, { ops }) => sum + ops.filter(({ found }) => found !== undefined).length,
    0,
  );

function faultsOfRegister(state: State, { tenant, name, ops }: Register): Violation[] {
  const verdict = judgeRegister(ops, state.registerStepsMax);
  switch (verdict.kind) {
    case "linearizable":
      return [];
    case "undecided": {
      const text = `register ${name} is too large to judge: no answer within ${verdict.steps} steps`;
      return [{ kind: "undecided", tenant, value: "", text }];
    }
    case "violated": {
      const { explained, answered, stuck } = verdict;
      const asked =
        stuck.swap === undefined ? "a look" : `a swap of ${stuck.swap.expected ?? "nothing"}`;
      const text = `register ${name}: no order explains more than ${explained} of ${answered} answers; ${asked} by ${stuck.process} found ${stuck.found ?? "nothing"}`;
      return [{ kind: "not-linearizable", tenant, value: stuck.swap?.value ?? "", text }];
    }
    default:
      return unreachable(verdict);
  }
}

const isSalvaged = (state: State, value: string): boolean =>
  state.writers.committers(value).some((cell) => state.salvaged.has(`${cell} ${value}`));

const mayVanish = (state: State, value: string): boolean =>
  state.reportedLost.has(value) || isSalvaged(state, value);

function faultsOfWrite(state: State, write: Write): Violation[] {
  const { tenant, value, outcome, presentCount, commitCount, shown } = write;
  const isGone = state.readTenants.has(tenant) && presentCount === 0;
  const salvaged = isSalvaged(state, value);
  // Who reads in a dying cell may be told of a commit that nobody acknowledged and that goes with it.
  const promised = outcome === "ok" || (shown && !salvaged);
  const how = outcome === "ok" ? "acknowledged" : "read by somebody";
  const where = commitCount > 0 && presentCount === 0 ? "was committed" : "is there";
  const faults: readonly (readonly [boolean, ViolationKind, string])[] = [
    [
      promised && isGone && !state.reportedLost.has(value),
      "lost",
      `was ${how}, is not there, and no report names it`,
    ],
    [
      outcome === "fail" && (presentCount + commitCount > 0 || shown),
      "resurrected",
      `was refused as certainly not done, yet ${where}`,
    ],
    [presentCount > 1, "duplicate", `is there ${presentCount} times`],
    [commitCount > 1 && !salvaged, "duplicate", `was committed ${commitCount} times`],
    [
      outcome !== "ok" && isGone && commitCount > 0 && !salvaged,
      "phantom",
      "was committed, is not there, and no salvage file holds it",
    ],
  ];
  return faults.flatMap(([is, kind, text]) => (is ? [{ kind, tenant, value, text }] : []));
}
