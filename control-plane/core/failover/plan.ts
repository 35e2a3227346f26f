/**
 * A failover in words before it begins: its steps are walked along the table (failover-state.ts), so what is
 * printed is what the executor will do. The plan is recorded with the failover as it was decided.
 */
import type { FailoverGate, FailoverPlan, FailoverStep } from "../../../contract/failover-api.ts";
import type { CellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { type FailoverEvent, nextFailoverStep } from "./failover-state.ts";
import type { FailoverMode, GateFacts, PartnerFacts } from "./gates.ts";

export type PlanFacts = GateFacts & {
  /** Longest promise that a partner still owes the cell. */
  readonly promiseLeftMs: number;
  readonly unavailableReason: string;
};

const ways: Readonly<Record<FailoverMode, readonly FailoverEvent[]>> = {
  unplanned: ["revoke", "stopped", "severed", "adopted", "routed", "verified"],
  planned: ["evacuate"],
};

type Worded = Exclude<
  FailoverStep,
  "confirmed" | "halted" | "restoring" | "done" | "cancelled" | "failed"
>;

const texts: Readonly<Record<Worded, (facts: PlanFacts, waitMs: number) => string>> = {
  revoking: ({ cell }, waitMs) =>
    `no lease for ${cell.id} any more, routers send nothing there; wait until it certainly has stopped: ${seconds(waitMs)} at most from now on. Until then it can be called off`,
  severing: () => "cut the streams: what the old cell brings when it returns reaches nobody's rows",
  adopting: ({ partners }) =>
    `give the keys to ${hostsOf(partners)} under the next epoch, a few first, then wave by wave: a key that was given away stays away`,
  routing: () => "every live router serves the new owners",
  verifying: () =>
    "write and read back through a router; report which acknowledged writes are lost, by name",
  reprotecting: () =>
    "live moves bring the tenants into whole cells: until then they have no standby",
  evacuating: ({ cell }) =>
    `live moves empty ${cell.id}: nothing is lost or refused, and it can be called off at any key`,
};

const isWorded = (step: FailoverStep): step is Worded => Object.hasOwn(texts, step);

/** How long until the old owner certainly has stopped. Proof of death ends promises, never a lease. */
export function waitMsOf(
  facts: Pick<PlanFacts, "mode" | "leaseLeftMs" | "promiseLeftMs" | "provedDead">,
): number {
  if (facts.mode === "planned") return 0;
  const promised = facts.provedDead ? 0 : facts.promiseLeftMs;
  return Math.round(Math.max(0, facts.leaseLeftMs, promised));
}

export function buildPlan(
  facts: PlanFacts,
  gates: readonly FailoverGate[],
  brand: (id: string) => CellId,
): FailoverPlan {
  const waitMs = waitMsOf(facts);
  const verdict = facts.verdicts.find(({ cell }) => cell === facts.cell.id);
  return {
    cell: brand(facts.cell.id),
    mode: facts.mode,
    witnesses: [...(verdict?.witnesses ?? [])],
    gates: [...gates],
    partners: facts.partners.map(({ annex, host, state, keys, lagBytes, lagSeconds }) => ({
      ...{ annex: brand(annex), host: brand(host) },
      ...{ state, keys, lagBytes },
      lagSeconds: lagSeconds === null ? null : Math.round(lagSeconds * 1000) / 1000,
    })),
    unavailable:
      facts.mode === "planned"
        ? { keys: 0, reason: "" }
        : { keys: facts.keys.unavailable, reason: facts.unavailableReason },
    waitMs,
    steps: planSteps(facts, waitMs),
  };
}

function planSteps(facts: PlanFacts, waitMs: number): FailoverPlan["steps"] {
  let at: FailoverStep = "confirmed";
  return ways[facts.mode].map((event) => {
    const step: FailoverStep = must(nextFailoverStep(at, event), `${event} after ${at}`);
    at = step;
    return { step, text: isWorded(step) ? texts[step](facts, waitMs) : step };
  });
}

const hostsOf = (partners: readonly PartnerFacts[]): string => {
  const fit = partners.filter(({ unfit }) => unfit === undefined).map(({ host }) => host);
  return fit.length === 0 ? "nobody (no copy is fit)" : [...new Set(fit)].join(", ");
};

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
