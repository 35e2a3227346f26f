/**
 * In which order databases get a migration: the canary, then rings of a size, and in each the standbys
 * before what they stand by for, because a standby that does not know a new column yet stops
 * receiving. Pure.
 *
 * Standbys of a ring go with their ring, not all before the canary: a migration that is broken must
 * not reach the standbys of cells that still serve.
 */

export type MigrationTarget = {
  readonly cell: string;
  readonly store: string;
  /** The cell whose rows it receives; absent: it serves. */
  readonly standbyOf?: string;
};

/** What must come one after the other; different chains of a ring run side by side. */
export type Chain = readonly MigrationTarget[];
/** Begins when the ring before is done. */
export type Ring = { readonly name: string; readonly chains: readonly Chain[] };

export function orderRings(
  targets: readonly MigrationTarget[],
  options: { readonly canary: string | undefined; readonly ringSize: number },
): Ring[] {
  const serving = [
    ...new Set(targets.filter(({ standbyOf }) => standbyOf === undefined).map(({ cell }) => cell)),
  ].toSorted((a, b) => (a < b ? -1 : 1));
  const canary = serving.filter((cell) => cell === options.canary);
  const others = serving.filter((cell) => cell !== options.canary);
  const rings = canary.length > 0 ? [{ name: "canary", cells: canary }] : [];
  for (let at = 0; at < others.length; at += options.ringSize) {
    const number = Math.floor(at / options.ringSize) + 1;
    rings.push({ name: `ring ${number}`, cells: others.slice(at, at + options.ringSize) });
  }
  const orphans = targets.filter(
    ({ standbyOf }) => standbyOf !== undefined && !serving.includes(standbyOf),
  );
  const ordered = rings.map(({ name, cells }) => ({
    name,
    chains: cells.map((cell) => chainOf(cell, targets)),
  }));
  // What they stand by for is not migrated now: they lead, and nothing follows them.
  return orphans.length === 0 ? ordered : [{ name: "standbys", chains: [orphans] }, ...ordered];
}

const chainOf = (cell: string, targets: readonly MigrationTarget[]): Chain => [
  ...targets.filter(({ standbyOf }) => standbyOf === cell),
  ...targets.filter((target) => target.cell === cell && target.standbyOf === undefined),
];
