/**
 * Who could own a key that recovery would give back to a cell, and was not heard. A takeover leaves no trace in
 * the database of the cell that died, and a move that was committed in the last moment none but a fence: so a
 * cell may claim, in good faith, what another one has had since the backup.
 *
 * What must always be true: a key goes back to a claimant only if nobody who could be its heir is silent. A cell
 * that held a lease when it spoke has none by takeover: whoever takes over waits for its lease and for what was
 * promised to it. Pure.
 */
import type { Claim, KnownPlacement } from "./recovery.ts";

export type HeirFacts = {
  /** Cells that recovery goes on without, and that are not given up. */
  readonly silent: ReadonlySet<string>;
  /** Cells that held a lease when this recovery first heard them. */
  readonly leased: ReadonlySet<string>;
  /** Standbys, as this database knows them. */
  readonly annexes: readonly {
    readonly annex: string;
    readonly origin: string;
    readonly lo: number;
    readonly hi: number;
  }[];
};

export type Claimed = {
  readonly claims: readonly Claim[];
  readonly known: KnownPlacement | undefined;
  /** Undefined: not known in which its standby would lie. */
  readonly bucket: number | undefined;
};

export function mayHaveHeir(
  { silent, leased, annexes }: HeirFacts,
  claim: Claim,
  { claims, known, bucket }: Claimed,
): boolean {
  if (silent.size === 0) return false;
  // In a move, or kept from being served: where it was to go is silent, unless that has spoken.
  if (claim.state === "fenced") return claims.every(({ state }) => state !== "importing");
  // An earlier recovery has kept it from the cell, which may have had a lease for other keys since.
  const wasKept = known?.state === "unavailable" && known.cell === claim.cell;
  if (leased.has(claim.cell) && !wasKept) return false;
  return annexes.some(
    ({ annex, origin, lo, hi }) =>
      origin === claim.cell &&
      silent.has(annex) &&
      (bucket === undefined || (lo <= bucket && bucket <= hi)),
  );
}
