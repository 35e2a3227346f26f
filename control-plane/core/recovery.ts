/**
 * Recovery after the control plane's database was restored from an older state (corrections A5).
 *
 * What must always be true: while recovery runs nothing is granted and nothing is changed; of each
 * placement key the highest epoch in a cell's database wins; every other claimant is fenced, and
 * has said so, before anything is granted; no epoch falls; what nobody could speak for is
 * `unavailable`, never given to somebody else; nor is a key given back to a former owner while somebody
 * who could have it since is silent (recovery-heirs.ts).
 *
 * Pure: the two machines (the fleet's step, a cell's part in it) are tables, and `decideKey` says
 * for one key what becomes of it. The shell streams keys through it twice: once to find the losers
 * that must be fenced, once more, after they acknowledged, to write the placements.
 */
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import type { PlacementState } from "../../contract/control-api.ts";
import { unreachable } from "../../runtime/assert.ts";

/**
 * `collecting`: cells report all they own. `fencing`: lower claimants apply `moved`. From there the
 * placements are rewritten in one transaction that also ends recovery: that is the point of no
 * return, and it is a commit. Evidence in between starts the collection over.
 */
export const recoverySteps = ["none", "collecting", "fencing"] as const;
export type RecoveryStep = (typeof recoverySteps)[number];

export const recoveryEvents = ["evidence", "all-reported", "all-fenced"] as const;
export type RecoveryEvent = (typeof recoveryEvents)[number];

export const recoveryTransitions: Record<
  RecoveryStep,
  Partial<Record<RecoveryEvent, RecoveryStep>>
> = {
  none: { evidence: "collecting" },
  // More evidence while collecting only raises the numbers to surpass.
  collecting: { evidence: "collecting", "all-reported": "fencing" },
  fencing: { evidence: "collecting", "all-fenced": "none" },
};

export const nextRecoveryStep = (
  step: RecoveryStep,
  event: RecoveryEvent,
): RecoveryStep | undefined => recoveryTransitions[step][event];

/**
 * `awaited`: has not reported. `reported`: its last page is in. `frozen`: an operator, or the end of
 * the longest lease it was granted, said to go on without it; its keys stay unavailable. `lost`: an
 * operator gave it up, and with it whatever it may own that others claim too. A frozen or lost cell that
 * comes back starts a recovery of its own.
 */
export const recoveryCellStates = ["awaited", "reported", "frozen", "lost"] as const;
export type RecoveryCellState = (typeof recoveryCellStates)[number];

export type RecoveryCell = {
  readonly cell: string;
  readonly state: RecoveryCellState;
  /** What the cell has applied and read back. */
  readonly appliedRevision: number;
  /** Keys that this cell must be told it lost. */
  readonly fenced: number;
};

export type RecoveryView = {
  readonly step: RecoveryStep;
  readonly cells: readonly RecoveryCell[];
  /** Losers have obeyed when they applied this revision. */
  readonly fenceRevision: number;
  readonly sinceMs: number;
  readonly nowMs: number;
  /** After this long no cell can hold a lease that was granted before recovery began. */
  readonly freezeAfterMs: number;
};

export type RecoveryAction =
  | { readonly kind: "none"; readonly text: string }
  | { readonly kind: "wait"; readonly text: string; readonly cells: readonly string[] }
  | { readonly kind: "freeze"; readonly text: string; readonly cells: readonly string[] }
  | { readonly kind: "fence"; readonly text: string }
  | { readonly kind: "merge"; readonly text: string };

/** What the leader does now, with the sentence an operator reads. */
export function planRecovery(view: RecoveryView): RecoveryAction {
  switch (view.step) {
    case "none":
      return { kind: "none", text: "no action: the fleet is in mode normal" };
    case "collecting":
      return planCollecting(view);
    case "fencing":
      return planFencing(view);
    default:
      return unreachable(view.step);
  }
}

function planCollecting(view: RecoveryView): RecoveryAction {
  const awaited = view.cells.filter(({ state }) => state === "awaited").map(({ cell }) => cell);
  if (awaited.length === 0) {
    return { kind: "fence", text: "every cell has reported what it owns, or is frozen" };
  }
  const names = awaited.join(", ");
  if (view.nowMs - view.sinceMs >= view.freezeAfterMs) {
    return {
      kind: "freeze",
      cells: awaited,
      text: `${names} has been silent for longer than any lease lasts that was granted, and has not reported: its keys stay frozen until it does`,
    };
  }
  return {
    kind: "wait",
    cells: awaited,
    text: `waiting until ${names} reports what it owns (if it does not return: cellctl recovery freeze)`,
  };
}

function planFencing(view: RecoveryView): RecoveryAction {
  const late = view.cells
    .filter(
      ({ state, fenced, appliedRevision }) =>
        state === "reported" && fenced > 0 && appliedRevision < view.fenceRevision,
    )
    .map(({ cell }) => cell);
  if (late.length === 0) {
    return { kind: "merge", text: "every cell that lost a key has fenced it" };
  }
  return {
    kind: "wait",
    cells: late,
    text: `waiting until ${late.join(", ")} fences the keys it lost (if it does not return: cellctl recovery freeze)`,
  };
}

/** What one cell's database says about a key. */
export type Claim = {
  readonly cell: string;
  readonly state: OwnershipState;
  readonly epoch: number;
};

/** What the restored database says about it. */
export type KnownPlacement = {
  readonly cell: string;
  readonly epoch: number;
  readonly state: PlacementState;
  readonly deleted: boolean;
};

export type KeyFacts = {
  readonly known: KnownPlacement | undefined;
  readonly claims: readonly Claim[];
  /** May this cell's report be believed to be complete? False for a frozen or forgotten cell. */
  readonly hasReported: (cell: string) => boolean;
  /** Could somebody who was not heard have it since? */
  readonly mayHaveHeir: (claim: Claim) => boolean;
  /** The highest epoch that anybody has presented, of whatever key: a new epoch is above it. */
  readonly epochFloor: number;
};

export type KeyOutcome =
  /** The cell and the database agree; nothing changes but the revision. */
  | { readonly kind: "keep"; readonly cell: string; readonly epoch: number }
  /** Somebody owns it at a new epoch, above all that was seen: pending until the cell applied it. */
  | { readonly kind: "own"; readonly cell: string; readonly epoch: number }
  /** Somebody who did not report might own it; where the cell did, it is told to serve it no more. */
  | { readonly kind: "unavailable"; readonly cell: string; readonly epoch: number }
  /** Its last owner dropped it after the backup was made. */
  | { readonly kind: "gone"; readonly cell: string; readonly epoch: number }
  /** Known only as a trace of the past. */
  | { readonly kind: "ignore" };

export type KeyDecision = {
  readonly outcome: KeyOutcome;
  /** Who must be told that the key is not theirs, before anything is granted, and at which epoch. */
  readonly losers: readonly string[];
  readonly loserEpoch: number;
};

/** A fenced key is owned too: a move that had not been committed stood still there. */
const owns = (claim: Claim): boolean => claim.state === "active" || claim.state === "fenced";

export function decideKey(facts: KeyFacts): KeyDecision {
  const { known, claims } = facts;
  const epochSeen = Math.max(known?.epoch ?? 0, ...claims.map(({ epoch }) => epoch));
  const fresh = Math.max(epochSeen, facts.epochFloor) + 1;
  const writers = claims.filter(mayStillWrite);
  const decided = (outcome: KeyOutcome, losers: readonly Claim[]): KeyDecision => ({
    outcome,
    losers: losers.map(({ cell }) => cell),
    loserEpoch: fresh,
  });
  const winner = strongestClaim(claims, known);
  if (winner === undefined) return decided(withoutOwner(facts, epochSeen, fresh), writers);
  // The backup knows at least as high an epoch as anybody who reported: a tombstone stays one, and
  // the key of a cell that did not report stays with it.
  if (known !== undefined && known.epoch >= winner.epoch) {
    const { cell } = known;
    if (known.deleted) return decided({ kind: "gone", cell, epoch: fresh }, writers);
    if (isSilent(facts)) return decided({ kind: "unavailable", cell, epoch: epochSeen }, writers);
  }
  const losers = writers.filter(({ cell }) => cell !== winner.cell);
  if (facts.mayHaveHeir(winner)) {
    return decided({ kind: "unavailable", cell: winner.cell, epoch: epochSeen }, losers);
  }
  const agreed =
    known !== undefined &&
    !known.deleted &&
    known.cell === winner.cell &&
    known.epoch === winner.epoch &&
    winner.epoch === epochSeen &&
    winner.state === "active" &&
    losers.length === 0;
  return decided(
    agreed
      ? { kind: "keep", cell: winner.cell, epoch: winner.epoch }
      : { kind: "own", cell: winner.cell, epoch: fresh },
    losers,
  );
}

/** A half-imported copy must not be mistaken for the tenant either. */
const mayStillWrite = (claim: Claim): boolean => owns(claim) || claim.state === "importing";

const isSilent = ({ known, hasReported }: KeyFacts): boolean =>
  known !== undefined && !hasReported(known.cell);

/** Highest epoch; then active before fenced; then the one that the database names; then the name. */
function strongestClaim(
  claims: readonly Claim[],
  known: KnownPlacement | undefined,
): Claim | undefined {
  const rank = (claim: Claim): readonly number[] => [
    claim.epoch,
    claim.state === "active" ? 1 : 0,
    claim.cell === known?.cell ? 1 : 0,
  ];
  return claims.filter(owns).reduce<Claim | undefined>((best, claim) => {
    if (best === undefined) return claim;
    const [a, b] = [rank(claim), rank(best)];
    const first = a.findIndex((value, index) => value !== b[index]);
    if (first < 0) return claim.cell < best.cell ? claim : best;
    return (a[first] ?? 0) > (b[first] ?? 0) ? claim : best;
  }, undefined);
}

function withoutOwner(facts: KeyFacts, epochSeen: number, fresh: number): KeyOutcome {
  const { known, claims } = facts;
  if (known === undefined) return { kind: "ignore" };
  const { cell } = known;
  if (known.deleted) return { kind: "gone", cell, epoch: epochSeen };
  if (isSilent(facts)) return { kind: "unavailable", cell, epoch: epochSeen };
  const last = claims.reduce<Claim | undefined>(
    (best, claim) => (best === undefined || claim.epoch > best.epoch ? claim : best),
    undefined,
  );
  // The owner that the backup names has never heard of the key: what it was told was lost, or never
  // arrived. It owns it now, at an epoch nobody has seen.
  if (last === undefined) return { kind: "own", cell, epoch: fresh };
  if (last.state === "dropped" && last.epoch >= known.epoch) {
    return { kind: "gone", cell, epoch: fresh };
  }
  // It moved on to somebody who has not reported, or whom this database does not know.
  return { kind: "unavailable", cell, epoch: epochSeen };
}

/**
 * A router that was away may serve a revision that nobody reported; the new revisions begin well
 * above all that was seen, so that it takes the new table without another recovery.
 */
export const revisionMargin = 1_000_000;

/** Numbers above this are no evidence but nonsense: believing them would use the range up. */
export const presentedMax = 2 ** 50;

export type Evidence = {
  readonly revision: number;
  readonly epoch: number;
  /** Of one cell's lease; 0 when a router speaks. */
  readonly grant: number;
};

/** The sentence that starts a recovery, or undefined when what is presented is not above what is known. */
export function evidenceOfRestore(
  who: string,
  presented: Evidence,
  known: Evidence,
): string | undefined {
  const above: string[] = [];
  if (presented.revision > known.revision) {
    above.push(`revision ${presented.revision} (ours is ${known.revision})`);
  }
  if (presented.epoch > known.epoch) {
    above.push(`epoch ${presented.epoch} (the highest of ours is ${known.epoch})`);
  }
  if (presented.grant > known.grant) {
    above.push(`lease grant ${presented.grant} (our last is ${known.grant})`);
  }
  return above.length === 0
    ? undefined
    : `${who} has seen ${above.join(" and ")}: this control plane was restored from an older state`;
}
