/**
 * Who could own a key that recovery would give back to a cell, and was not heard. A takeover leaves no trace in
 * the database of the cell that died, and a move that was committed in the last moment none but a fence: so a
 * cell may claim, in good faith, what another one has had since the backup.
 *
 * What must always be true: a key goes back to a claimant only if nobody who could be its heir is silent. A cell
 * that held a lease for all its keys when it spoke has none by takeover: whoever takes over waits for its lease and
 * for what was promised to it. Where it has stopped the keys of a silent partner, others must speak for it: a
 * takeover is ordered from all of its standbys, and from one that is out of reach the keys are left alone. Pure.
 */
import type { Claim, KnownPlacement } from "./recovery.ts";

export type HeirFacts = {
  /** Cells that recovery goes on without, and that are not given up. */
  readonly silent: ReadonlySet<string>;
  /** Cells that have told all they own. */
  readonly heard: ReadonlySet<string>;
  /** Cells that held a lease for all their keys when this recovery first heard them. */
  readonly leased: ReadonlySet<string>;
  /** Cells that held one for a part at least, and whose database has run since before the backup. */
  readonly steady: ReadonlySet<string>;
  /** Standbys, as this database knows them. */
  readonly annexes: readonly {
    readonly annex: string;
    readonly origin: string;
    readonly lo: number;
    readonly hi: number;
    /** Its database has recorded that its origin is taken over. */
    readonly ordered: boolean;
  }[];
};

export type Claimed = {
  readonly claims: readonly Claim[];
  readonly known: KnownPlacement | undefined;
  /** Undefined: not known in which its standby would lie. */
  readonly bucket: number | undefined;
};

export function mayHaveHeir(facts: HeirFacts, claim: Claim, of: Claimed): boolean {
  const { silent, leased } = facts;
  if (silent.size === 0) return false;
  // In a move, or kept from being served: where it was to go is silent, unless that has spoken.
  if (claim.state === "fenced") return of.claims.every(({ state }) => state !== "importing");
  // An earlier recovery has kept it from the cell, which may have had a lease for other keys since.
  const wasKept = of.known?.state === "unavailable" && of.known.cell === claim.cell;
  const wasServing = leased.has(claim.cell) || isSpokenFor(facts, claim.cell);
  if (wasServing && !wasKept) return false;
  const { bucket } = of;
  return facts.annexes.some(
    ({ annex, origin, lo, hi }) =>
      origin === claim.cell &&
      silent.has(annex) &&
      (bucket === undefined || (lo <= bucket && bucket <= hi)),
  );
}

/** It ran all the while, and none of its other standbys was ordered to take over. */
function isSpokenFor({ steady, silent, heard, annexes }: HeirFacts, cell: string): boolean {
  const others = annexes.filter(({ annex, origin }) => origin === cell && !silent.has(annex));
  const speak = others.some(({ annex }) => heard.has(annex));
  return steady.has(cell) && speak && others.every(({ ordered }) => !ordered);
}
