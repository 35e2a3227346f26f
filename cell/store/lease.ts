/**
 * The cell's lease, as its database keeps it. The guard reads it inside every write.
 *
 * `expiresAt` is the database's own clock, read before the request for the lease was sent, plus the
 * time granted (corrections A18): take `clock` and `boot` from `readFacts` first. Texts, not `Date`,
 * because a `Date` would cut the microseconds of `boot` and never equal it again.
 */
import type { Queryable } from "./queryable.ts";

/**
 * `set`: counts. `same`: stood already. `other-boot`: the postmaster it was asked for is gone.
 * `stale-grant`: the database has seen this grant or a newer one, and only a new one opens it.
 * `refused`: of an own one, after the control plane has said no.
 */
export type LeaseOutcome = "set" | "same" | "other-boot" | "stale-grant" | "refused";

const outcomes: Readonly<Record<string, LeaseOutcome>> = {
  set: "set",
  same: "same",
  other_boot: "other-boot",
  stale_grant: "stale-grant",
  refused: "refused",
};

export type LeaseGrant = {
  readonly grant: number;
  /** `clock` of `readFacts`, before the request was sent. */
  readonly clock: string;
  readonly ttlMs: number;
  /** `boot` of the same `readFacts`. */
  readonly boot: string;
  /** The agent's instance. */
  readonly holder: string;
  /** The cell's agent gives it to itself: no control plane knows of it. */
  readonly own?: boolean;
};

export async function setLease(client: Queryable, lease: LeaseGrant): Promise<LeaseOutcome> {
  const { rows } = await client.query<{ outcome: string }>(
    `select cellfleet.set_lease($1, $2::timestamptz + $3 * interval '1 millisecond', $4, $5, $6) as outcome`,
    [lease.grant, lease.clock, lease.ttlMs, lease.boot, lease.holder, lease.own ?? false],
  );
  return leaseOutcomeOf(rows[0]?.outcome ?? "");
}

/** As the database says it. */
export function leaseOutcomeOf(said: string): LeaseOutcome {
  const outcome = outcomes[said];
  if (outcome === undefined) throw new Error(`set_lease answered ${said}`);
  return outcome;
}

/** Ends the lease at once, unless one of a newer grant stands: then false. */
export async function expireLease(client: Queryable, grant: number): Promise<boolean> {
  const { rows } = await client.query<{ ended: boolean }>(
    "select cellfleet.expire_lease($1) as ended",
    [grant],
  );
  return rows[0]?.ended === true;
}
