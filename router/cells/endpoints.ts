/**
 * The connections of this router: one pool per endpoint that the table names, made at first use, and
 * closed when no table names it any more and its last request is over.
 *
 * Each endpoint has seats of its own, so a slow or dead cell fills its own queue and nobody else's.
 */
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createEndpoint, type Endpoint, type EndpointLimits } from "../../runtime/http/endpoint.ts";
import type { Random } from "../../runtime/random.ts";
import { choose } from "./balance.ts";

type Known = { readonly endpoint: Endpoint; suspectUntilMs: number };

/** So long an endpoint that refused a connection is passed over while others are there. */
const suspectMs = 1000;
const sweepMs = 1000;

export class Endpoints {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limits: EndpointLimits;
  readonly #known = new Map<string, Known>();
  readonly #leaving = new Set<Endpoint>();
  #lists: TableState["lists"] | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly limits: EndpointLimits;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#limits = options.limits;
  }

  /** One of `urls`, if possible not `avoid`. `urls` is not empty: the table's schema says so. */
  pick(urls: readonly string[], avoid: string | undefined): Endpoint {
    const nowMs = this.#clock.monotonicMs();
    const candidates = urls.map((url) => {
      const known = this.#know(url);
      const { inFlight, pending } = known.endpoint.slots;
      return { url, known, inFlight: inFlight + pending, suspect: known.suspectUntilMs > nowMs };
    });
    const chosen = choose(candidates, this.#random, avoid);
    if (chosen === undefined) throw new Error("a service without endpoints");
    return chosen.known.endpoint;
  }

  /** Is there one that is not known to be down? */
  readonly isUsable = (urls: readonly string[]): boolean => {
    const nowMs = this.#clock.monotonicMs();
    return urls.some((url) => (this.#known.get(url)?.suspectUntilMs ?? 0) <= nowMs);
  };

  suspect(url: string): void {
    const known = this.#known.get(url);
    if (known !== undefined) known.suspectUntilMs = this.#clock.monotonicMs() + suspectMs;
  }

  trust(url: string): void {
    const known = this.#known.get(url);
    if (known !== undefined) known.suspectUntilMs = 0;
  }

  /** Closes, in their own time, the pools of endpoints that the table does not name. */
  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const named = new Set(
      [lists.globalServices ?? {}, ...lists.cells.map(({ services }) => services)].flatMap(
        (services) => Object.values(services).flatMap(({ endpoints }) => endpoints),
      ),
    );
    for (const [url, { endpoint }] of this.#known) {
      if (named.has(url)) continue;
      this.#known.delete(url);
      this.#leaving.add(endpoint);
    }
    this.#sweep();
  }

  /** Requests in flight and waiting, per endpoint. */
  load(): ReadonlyArray<{
    readonly url: string;
    readonly inFlight: number;
    readonly pending: number;
  }> {
    return [...this.#known].map(([url, { endpoint }]) => ({
      url,
      inFlight: endpoint.slots.inFlight,
      pending: endpoint.slots.pending,
    }));
  }

  async close(): Promise<void> {
    const all = [...this.#leaving, ...[...this.#known.values()].map(({ endpoint }) => endpoint)];
    this.#leaving.clear();
    this.#known.clear();
    await Promise.all(all.map((endpoint) => endpoint.close()));
  }

  #know(url: string): Known {
    const known = this.#known.get(url);
    if (known !== undefined) return known;
    const endpoint = createEndpoint({ url, clock: this.#clock, limits: this.#limits });
    const fresh = { endpoint, suspectUntilMs: 0 };
    this.#known.set(url, fresh);
    return fresh;
  }

  #sweep(): void {
    for (const endpoint of this.#leaving) {
      if (endpoint.slots.inFlight + endpoint.slots.pending > 0) continue;
      this.#leaving.delete(endpoint);
      void endpoint.close();
    }
    if (this.#leaving.size > 0)
      this.#clock.after(sweepMs, () => this.#sweep(), { background: true });
  }
}
