/**
 * The gate's memory of requests in flight, per placement key, and of keys that are closed.
 *
 * Always true: a request is counted from before the application sees a byte until its exchange is
 * over; after `close(key)` none enters, and its promise tells when the last one left. A fence is
 * only set after that (corrections A12), or "no failed request" would be impossible.
 */

export type DrainEnd = "drained" | "reopened";

export type Ticket = {
  /** Exactly once is enough; more often changes nothing. */
  readonly leave: () => void;
  /** It would not end by itself: `cut` ends it when its key closes; at once, if it is closed. */
  readonly endBy: (cut: () => void) => void;
};

type Entry = {
  inFlight: number;
  closed: boolean;
  readonly waiting: Set<(end: DrainEnd) => void>;
  readonly tunnels: Set<() => void>;
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
  isClosed(key: string): boolean {
    return this.#keys.get(key)?.closed ?? false;
  }

  /** `cut` ends the exchange from outside: an upgraded connection would never end by itself. */
  enter(key: string, cut?: () => void): Ticket {
    const entry = this.#entry(key);
    entry.inFlight += 1;
    this.#inFlight += 1;
    const cuts: Array<() => void> = [];
    let inside = true;
    const endBy = (one: () => void): void => {
      if (inside && entry.closed) one();
      if (!inside || entry.closed) return;
      cuts.push(one);
      entry.tunnels.add(one);
    };
    if (cut !== undefined) endBy(cut);
    return {
      endBy,
      leave: () => {
        if (!inside) return;
        inside = false;
        for (const one of cuts) entry.tunnels.delete(one);
        entry.inFlight -= 1;
        this.#inFlight -= 1;
        if (entry.inFlight === 0) this.#settle(key, entry, "drained");
      },
    };
  }

  /** No request of this key enters any more; resolves when none is in flight, or on `open`. */
  close(key: string): Promise<DrainEnd> {
    const entry = this.#entry(key);
    entry.closed = true;
    this.cutTunnels(key);
    if (entry.inFlight === 0) return Promise.resolve("drained");
    return new Promise((resolve) => {
      entry.waiting.add(resolve);
    });
  }

  open(key: string): void {
    const entry = this.#keys.get(key);
    if (entry === undefined) return;
    entry.closed = false;
    this.#settle(key, entry, "reopened");
  }

  /** Upgraded connections of the key end; their peers connect anew and are looked up anew. */
  cutTunnels(key: string): void {
    for (const cut of [...(this.#keys.get(key)?.tunnels ?? [])]) cut();
  }
  tunnelKeys(): string[] {
    return [...this.#keys].filter(([, entry]) => entry.tunnels.size > 0).map(([key]) => key);
  }

  #entry(key: string): Entry {
    const known = this.#keys.get(key);
    if (known !== undefined) return known;
    const entry: Entry = { inFlight: 0, closed: false, waiting: new Set(), tunnels: new Set() };
    this.#keys.set(key, entry);
    return entry;
  }

  #settle(key: string, entry: Entry, end: DrainEnd): void {
    for (const resolve of entry.waiting) resolve(end);
    entry.waiting.clear();
    // Only keys that say something are remembered, or a million tenants would stay here.
    if (entry.inFlight === 0 && !entry.closed) this.#keys.delete(key);
  }
}
