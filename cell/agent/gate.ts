/**
 * The gate's memory of requests in flight, per placement key, and of keys that are closed.
 *
 * Always true: a request is counted from before the application sees a byte until its exchange is
 * over; after `close(key)` none enters, and its promise tells when the last one left. A fence is
 * only set after that (corrections A12), or "no failed request" would be impossible. Exchanges that
 * last (event streams, tunnels) would never leave; they are counted, and not waited for.
 */

export type DrainEnd = "drained" | "reopened";

export type Ticket = {
  /** Exactly once is enough; more often changes nothing. */
  readonly leave: () => void;
  /** Its answer has begun and has no end of its own: nobody who closes the gate waits for it. */
  readonly last: () => void;
};

type Entry = {
  inFlight: number;
  /** Of these, those that last. */
  lasting: number;
  /** By whom it is closed: for each store of the cell a move says so by itself. */
  readonly closers: Set<string>;
  readonly waiting: Set<(end: DrainEnd) => void>;
};

export class Gate {
  readonly #keys = new Map<string, Entry>();
  #inFlight = 0;

  get inFlight(): number {
    return this.#inFlight;
  }
  inFlightOf(key: string): number {
    return this.#keys.get(key)?.inFlight ?? 0;
  }
  /** In flight, and waited for by whoever closes the gate. */
  drainingOf(key: string): number {
    return drainingIn(this.#keys.get(key));
  }
  isClosed(key: string): boolean {
    return (this.#keys.get(key)?.closers.size ?? 0) > 0;
  }

  enter(key: string): Ticket {
    const entry = this.#entry(key);
    entry.inFlight += 1;
    this.#inFlight += 1;
    let inside = true;
    let lasts = false;
    return {
      last: () => {
        if (!inside || lasts) return;
        lasts = true;
        entry.lasting += 1;
        this.#drained(key, entry);
      },
      leave: () => {
        if (!inside) return;
        inside = false;
        if (lasts) entry.lasting -= 1;
        entry.inFlight -= 1;
        this.#inFlight -= 1;
        this.#drained(key, entry);
      },
    };
  }

  /** No request of this key enters any more; resolves when none that ends is in flight, or on `open`. */
  close(key: string, by: string): Promise<DrainEnd> {
    const entry = this.#entry(key);
    entry.closers.add(by);
    if (drainingIn(entry) === 0) return Promise.resolve("drained");
    return new Promise((resolve) => {
      entry.waiting.add(resolve);
    });
  }

  /** Opened when nobody has it closed any more. */
  open(key: string, by: string): void {
    const entry = this.#keys.get(key);
    entry?.closers.delete(by);
    if (entry !== undefined && entry.closers.size === 0) this.#settle(key, entry, "reopened");
  }

  #entry(key: string): Entry {
    const known = this.#keys.get(key);
    if (known !== undefined) return known;
    const entry: Entry = { inFlight: 0, lasting: 0, closers: new Set(), waiting: new Set() };
    this.#keys.set(key, entry);
    return entry;
  }

  #drained(key: string, entry: Entry): void {
    if (drainingIn(entry) === 0) this.#settle(key, entry, "drained");
  }

  #settle(key: string, entry: Entry, end: DrainEnd): void {
    for (const resolve of entry.waiting) resolve(end);
    entry.waiting.clear();
    // Only keys that say something are remembered, or a million tenants would stay here.
    if (entry.inFlight === 0 && entry.closers.size === 0) this.#keys.delete(key);
  }
}

const drainingIn = (entry: Entry | undefined): number =>
  entry === undefined ? 0 : entry.inFlight - entry.lasting;
