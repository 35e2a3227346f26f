/**
 * The parts of a takeover that are decided by rule, as pure functions of what somebody knows: who may
 * commit, what a partner may promise, whom the control plane may adopt from and how long it waits. Written
 * for the model; times are counted in ticks of one clock each.
 */

export const takeoverBugs = {
  "one-dead-partner-stops-all": "A1: a silent partner stops the cell although its promise lasts",
  "promise-not-waited": "A1: the takeover does not wait for what was promised",
  "unacknowledged-list": "A2: a partner is adopted from that the cell has not stored yet",
  "dropped-partner": "A2: a partner that was dropped from the list is adopted from",
  "list-without-overlap":
    "A2: the only partner is replaced in one step, so that nobody is left to adopt from",
  "promises-go-on": "A3: a partner promises again after it was asked what remains",
  "restart-forgets": "A3: after its restart a partner knows of no promise",
  "route-lease-from-arrival": "A4: a router counts the cell's lease from the arrival of the answer",
  "no-r2": "R2: the router delivers without looking again",
  "revoke-is-hold": "R3: a revoked route only makes new requests wait, answers are delivered",
  "lease-from-answer": "the cell counts its lease from the answer, not from its question",
  "wait-as-configured": "A6: the takeover waits for the configured TTL, not for what was granted",
  "late-grant": "A6: a grant is answered although REVOKING is committed",
  "no-boot-check": "a restarted database goes on under the lease of its former life",
  "death-of-a-former-life":
    "a restart proves the death of a life that a partner may have promised to since (A1 with A19)",
  "death-frees-routers": "a proved death spares the wait for routers that nobody reaches",
  "no-sever": "R4: the stream of the old cell stays attached",
} as const;
export type TakeoverBug = keyof typeof takeoverBugs;
export type Has = (bug: TakeoverBug) => boolean;

/** Ticks. The first grant may be longer than what is configured later. */
export const ttlLong = 2;
export const ttlShort = 1;
export const promiseTicks = 2;

/** Rule R1, the part about time: a lease of this boot, or promises of all acknowledged partners. */
export function mayServe(
  cell: {
    readonly alive: boolean;
    readonly lease: number;
    readonly boot: boolean;
    readonly partners: readonly number[];
    readonly promised: readonly number[];
    /** A partner did not answer when it was last asked. */
    readonly silent: boolean;
  },
  has: Has,
): boolean {
  if (!cell.alive) return false;
  if (cell.lease > 0 && (cell.boot || has("no-boot-check"))) return true;
  if (cell.silent && has("one-dead-partner-stops-all")) return false;
  return cell.partners.length > 0 && cell.partners.every((one) => (cell.promised[one] ?? 0) > 0);
}

/** How long the cell's word is good, as it says in its answers. */
export const remaining = (cell: {
  readonly lease: number;
  readonly partners: readonly number[];
  readonly promised: readonly number[];
}): number =>
  Math.max(
    cell.lease,
    cell.partners.length === 0
      ? 0
      : Math.min(...cell.partners.map((one) => cell.promised[one] ?? 0)),
  );

/** May the control plane give the tenant to this partner now? */
export function mayAdopt(
  facts: {
    readonly partner: number;
    readonly acknowledged: readonly number[];
    readonly wanted: readonly number[];
    /** Ticks of the longest grant that may still be out there. */
    readonly outstanding: number;
    /** What the partner said remains of its promise, counted down since; undefined: it has not said. */
    readonly reported: number | undefined;
    readonly proved: boolean;
    /** Every router has acknowledged the revocation. */
    readonly routersRevoked: boolean;
    readonly severed: boolean;
  },
  has: Has,
): boolean {
  const { partner, acknowledged, wanted, outstanding, reported } = facts;
  // The cell has stored one of the two lists: who stands in both has certainly been asked.
  const stored = acknowledged.includes(partner) || has("unacknowledged-list");
  const kept = wanted.includes(partner) || (has("dropped-partner") && partner === 1);
  if (!(stored || (has("dropped-partner") && partner === 1)) || !kept) return false;
  if (!facts.severed && !has("no-sever")) return false;
  if (
    facts.proved &&
    reported !== undefined &&
    (facts.routersRevoked || has("death-frees-routers"))
  )
    return true;
  if (outstanding > 0) return false;
  if (has("promise-not-waited")) return true;
  return reported === 0;
}
