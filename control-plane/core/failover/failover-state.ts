/**
 * A failover's steps and what may follow what: the one table that executor, API, CLI, tests and documents
 * read. The meaning of each step stands in contract/failover-api.ts.
 *
 * What must always be true: until `severing` is entered the cell may still be given its lease again;
 * from `adopting` on each key that was given away stays away (its epoch is higher), so there is only
 * the way forward. A step is entered in the transaction that records what its predecessor came to, and
 * its effect may be repeated by whoever takes over (attempt + 1).
 */
import { type FailoverStep, failoverSteps } from "../../../contract/failover-api.ts";

export const failoverEvents = [
  /** Mode unplanned: the cell is not trusted any more. */
  "revoke",
  /** Mode planned: the cell is healthy and is emptied by live moves. */
  "evacuate",
  /** Lease, promises and routers are waited out, or proved over. */
  "stopped",
  "severed",
  "adopted",
  "routed",
  "verified",
  "reprotected",
  "evacuated",
  /** Canaries or a wave of tenants brought the symptom along. */
  "poisoned",
  /** Somebody decided: go on with the tenants that are not suspected. */
  "resumed",
  /** Somebody decided, or the cell turned out to be healthy: before anything was severed. */
  "aborted",
  "restored",
  "gave-up",
] as const;
export type FailoverEvent = (typeof failoverEvents)[number];

export const failoverTransitions: Readonly<
  Record<FailoverStep, Readonly<Partial<Record<FailoverEvent, FailoverStep>>>>
> = {
  confirmed: { revoke: "revoking", evacuate: "evacuating", aborted: "cancelled" },
  revoking: { stopped: "severing", aborted: "restoring" },
  severing: { severed: "adopting" },
  adopting: { adopted: "routing", poisoned: "halted" },
  routing: { routed: "verifying" },
  verifying: { verified: "reprotecting", poisoned: "halted" },
  halted: { resumed: "adopting" },
  reprotecting: { reprotected: "done" },
  evacuating: { evacuated: "done", aborted: "cancelled", "gave-up": "failed" },
  restoring: { restored: "cancelled" },
  done: {},
  cancelled: {},
  failed: {},
};

export const nextFailoverStep = (
  step: FailoverStep,
  event: FailoverEvent,
): FailoverStep | undefined => failoverTransitions[step][event];

export const isFailoverEnd = (step: FailoverStep): boolean =>
  Object.keys(failoverTransitions[step]).length === 0;

/** May it still be called off? */
export const canAbort = (step: FailoverStep): boolean =>
  failoverTransitions[step].aborted !== undefined;

/** Keys change owner, and routers hear of it: whoever asks for one may wait for that. */
export const handoverSteps: readonly FailoverStep[] = ["adopting", "routing"];

export const parseFailoverStep = (raw: string): FailoverStep | undefined =>
  failoverSteps.find((step) => step === raw);
