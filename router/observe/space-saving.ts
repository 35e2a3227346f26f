/**
 * Pure: the most frequent of very many names in bounded memory (Metwally, Agrawal, El Abbadi: "Efficient
 * computation of frequent and top-k elements in data streams", 2005).
 *
 * At most `max` names are watched. A new one takes the place of one with the least count and begins where
 * that one ended, so a count is never too low, and too high by at most the least count. `age` halves all
 * counts, so that yesterday's giant makes room.
 */
export class SpaceSaving {
  readonly #max: number;
  readonly #counts = new Map<string, number>();
  /** Names that had the least count when it was last looked for; some have grown since. */
  #weakest: string[] = [];
  #least = 0;

  constructor(max: number) {
    this.#max = max;
  }

  note(name: string): void {
    const count = this.#counts.get(name);
    if (count !== undefined) {
      this.#counts.set(name, count + 1);
      return;
    }
    if (this.#counts.size < this.#max) {
      this.#counts.set(name, 1);
      return;
    }
    this.#evict();
    this.#counts.set(name, this.#least + 1);
  }

  /** The `count` most frequent, most frequent first. */
  top(count: number): string[] {
    const all = [...this.#counts].sort(([, a], [, b]) => b - a);
    return all.slice(0, count).map(([name]) => name);
  }

  countOf(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  age(): void {
    for (const [name, count] of this.#counts) {
      if (count < 2) this.#counts.delete(name);
      else this.#counts.set(name, Math.floor(count / 2));
    }
    this.#weakest = [];
  }

  #evict(): void {
    for (;;) {
      const name = this.#weakest.pop();
      if (name === undefined) this.#findWeakest();
      else if (this.#counts.get(name) === this.#least) {
        this.#counts.delete(name);
        return;
      }
    }
  }

  #findWeakest(): void {
    this.#least = Math.min(...this.#counts.values());
    this.#weakest = [...this.#counts].filter(([, n]) => n === this.#least).map(([name]) => name);
  }
}
