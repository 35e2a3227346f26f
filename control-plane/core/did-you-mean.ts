/** The ids nearest to one that does not exist, for error messages. */
const suggestionsMax = 3;

export function didYouMean(wrong: string, known: readonly string[]): readonly string[] {
  const limit = Math.max(1, Math.floor(wrong.length / 3));
  return known
    .map((id) => ({ id, distance: editDistance(wrong.toLowerCase(), id.toLowerCase()) }))
    .filter(({ distance }) => distance <= limit)
    .toSorted((a, b) => a.distance - b.distance || (a.id < b.id ? -1 : 1))
    .slice(0, suggestionsMax)
    .map(({ id }) => id);
}

/** Levenshtein, one row at a time. */
export function editDistance(a: string, b: string): number {
  const others = [...b];
  let row = Array.from({ length: others.length + 1 }, (_, index) => index);
  for (const [at, character] of [...a].entries()) {
    const next = [at + 1];
    for (const [index, other] of others.entries()) {
      const change = (row[index] ?? 0) + (character === other ? 0 : 1);
      next.push(Math.min(change, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
