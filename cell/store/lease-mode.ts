/**
 * How the leases of one store end (contract/lease-mode.ts), as its database keeps it; and the leases that the
 * cell's agent gives it in the manual mode, which the database allows in that mode alone.
 */
import type { LeaseModeWord } from "../../contract/lease-mode.ts";
import { type LeaseGrant, type LeaseOutcome, leaseOutcomeOf } from "./lease.ts";
import type { Queryable } from "./queryable.ts";

/**
 * `set`; `same`, when it stood already; `stale`: a later word stands. `pending`: a lease that the cell gave
 * itself is live, and no control plane has recorded its end; repeat after the next grant.
 */
export type ModeOutcome = "set" | "same" | "stale" | "pending";

const outcomes: ReadonlySet<string> = new Set<ModeOutcome>(["set", "same", "stale", "pending"]);
const isModeOutcome = (text: string): text is ModeOutcome => outcomes.has(text);

export async function takeLeaseMode(
  client: Queryable,
  { mode, number }: LeaseModeWord,
): Promise<ModeOutcome> {
  const { rows } = await client.query<{ outcome: string }>(
    "select cellfleet.take_lease_mode($1, $2) as outcome",
    [mode === "manual", number],
  );
  const outcome = rows[0]?.outcome ?? "";
  if (!isModeOutcome(outcome)) throw new Error(`take_lease_mode answered ${outcome}`);
  return outcome;
}

/** By nobody's leave; what was promoted, restored or is timed is given none. */
export async function setManualLease(
  client: Queryable,
  { grant, clock, ttlMs, boot, holder }: Omit<LeaseGrant, "own">,
): Promise<LeaseOutcome | "not-manual" | "other-timeline"> {
  const { rows } = await client.query<{ outcome: string }>(
    `select cellfleet.set_manual_lease($1, $2::timestamptz + $3 * interval '1 millisecond', $4, $5) as outcome`,
    [grant, clock, ttlMs, boot, holder],
  );
  const outcome = rows[0]?.outcome ?? "";
  if (outcome === "not_manual") return "not-manual";
  return outcome === "other_timeline" ? "other-timeline" : leaseOutcomeOf(outcome);
}
