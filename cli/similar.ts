/** "Did you mean": the known words nearest to what was typed, a slip or two away. */

const namedMax = 3;

export function similar(word: string, known: readonly string[]): string[] {
  const slipsMax = word.length <= 3 ? 1 : word.length <= 8 ? 2 : 3;
  const near = known
    .map((candidate) => ({
      candidate,
      slips: distance(word.toLowerCase(), candidate.toLowerCase()),
    }))
    .filter(({ slips }) => slips <= slipsMax);
  const least = Math.min(...near.map(({ slips }) => slips));
  return near
    .filter(({ slips }) => slips === least)
    .slice(0, namedMax)
    .map(({ candidate }) => candidate);
}

export function didYouMean(word: string, known: readonly string[]): string {
  const near = similar(word, known);
  return near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const same = a[row - 1] === b[column - 1];
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      current[column] = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
        swapped ? (beforeLast[column - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? 0;
}
