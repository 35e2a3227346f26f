/**
 * One reading for all who want one: whoever asks gets one that begins after the question, and a hundred
 * questions at once share it. At most one runs at a time.
 */
export class SharedReading<T> {
  readonly #read: () => Promise<T>;
  #reading: Promise<T> | undefined;
  #queued: Promise<T> | undefined;

  constructor(read: () => Promise<T>) {
    this.#read = read;
  }

  next(): Promise<T> {
    if (this.#reading === undefined) {
      const reading = this.#read().finally(() => {
        if (this.#reading === reading) this.#reading = undefined;
      });
      this.#reading = reading;
      return reading;
    }
    this.#queued ??= this.#reading
      .catch(() => {}) // Whoever asked for that one hears of it.
      .then(() => {
        this.#queued = undefined;
        return this.next();
      });
    return this.#queued;
  }
}
