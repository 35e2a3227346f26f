/**
 * The endpoints of this router: one pool of connections for each that the table names, made at first use,
 * closed when no table names it any more and its last request is over; and what is known of each, by the
 * requests that went there (breaker.ts) and by probes (health-state.ts).
 *
 * Each endpoint has seats of its own, so a slow or dead cell fills its own queue and nobody else's.
 */
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createEndpoint, type Endpoint, type EndpointLimits } from "../../runtime/http/endpoint.ts";
import type { EndpointTlsSource } from "../../runtime/http/endpoint-tls.ts";
import type { Random } from "../../runtime/random.ts";
import { type Candidate, choose, type Standing } from "./balance.ts";
import {
  type Attempted,
  type Breaker,
  type BreakerLimits,
  type BreakerState,
  beginTrial,
  breakerLimits,
  createBreaker,
  type EjectionReason,
  isDead,
  isTrialDue,
  noteAttempt,
} from "./breaker.ts";
import { type Health, healthLimits, observeHealth, unknownHealth } from "./health-state.ts";

type Known = {
  readonly url: string;
  readonly endpoint: Endpoint;
  readonly breaker: Breaker;
  health: Health;
  suspectUntilMs: number;
};

/** An endpoint that an attempt goes to; what became of it is told with `note`, exactly once. */
export type Picked = {
  readonly endpoint: Endpoint;
  readonly known: Known;
  readonly turn: number;
};

/** So long an endpoint that refused a connection is passed over while others are there. */
const suspectMs = 1000;
const sweepMs = 1000;

export type EndpointView = {
  readonly url: string;
  readonly inFlight: number;
  readonly pending: number;
  readonly standing: Standing;
  readonly breaker: BreakerState;
};

export class Endpoints {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limits: EndpointLimits;
  readonly #tls: EndpointTlsSource | undefined;
  readonly #breakerLimits: BreakerLimits;
  readonly #onEjection: (url: string, reason: EjectionReason) => void;
  readonly #known = new Map<string, Known>();
  readonly #leaving = new Set<Endpoint>();
  readonly #watchers: Array<() => Promise<void>> = [];
  #lists: TableState["lists"] | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly limits: EndpointLimits;
    readonly tls?: EndpointTlsSource;
    readonly breakerLimits?: BreakerLimits;
    /** Told of every opening of a breaker. */
    readonly onEjection?: (url: string, reason: EjectionReason) => void;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#limits = options.limits;
    this.#tls = options.tls;
    this.#breakerLimits = options.breakerLimits ?? breakerLimits;
    this.#onEjection = options.onEjection ?? (() => {});
  }

  /** One of `urls`, if possible not `avoid`. Undefined: nothing listens at any of them, as far as is known. */
  pick(urls: readonly string[], avoid: string | undefined): Picked | undefined {
    const nowMs = this.#clock.monotonicMs();
    const quick = this.#pickQuickly(urls, avoid, nowMs);
    if (quick !== undefined) return picked(quick);
    const candidates = urls.map((url) => this.#candidate(this.#know(url), nowMs));
    const chosen = choose(candidates, this.#random, avoid);
    if (chosen === undefined) return undefined;
    const { known } = chosen.candidate;
    if (chosen.trial) beginTrial(known.breaker, nowMs);
    return picked(known);
  }

  /** What nearly every request needs: two draws that are well, without making a list of all. */
  #pickQuickly(
    urls: readonly string[],
    avoid: string | undefined,
    nowMs: number,
  ): Known | undefined {
    const one = this.#draw(urls);
    const two = urls.length > 1 ? this.#draw(urls) : one;
    if (one === undefined || two === undefined) return undefined;
    const isFine = (known: Known) => known.url !== avoid && standingOf(known, nowMs) === "usable";
    if (!isFine(one) || !isFine(two)) return undefined;
    return loadOf(two) < loadOf(one) ? two : one;
  }

  #draw(urls: readonly string[]): Known | undefined {
    const at = urls.length > 1 ? Math.floor(this.#random.unit() * urls.length) : 0;
    const url = urls[at];
    return url === undefined ? undefined : this.#know(url);
  }

  #candidate(known: Known, nowMs: number): Candidate & { readonly known: Known } {
    const { url, breaker } = known;
    return {
      known,
      url,
      inFlight: loadOf(known),
      standing: standingOf(known, nowMs),
      trialDue: isTrialDue(breaker, nowMs, false, this.#breakerLimits),
      lastResort: isTrialDue(breaker, nowMs, true, this.#breakerLimits),
    };
  }

  /** What became of an attempt. */
  note({ known, turn }: Picked, { evidence, who }: Omit<Attempted, "turn">): void {
    const nowMs = this.#clock.monotonicMs();
    if (evidence.kind === "answered") known.suspectUntilMs = 0;
    else if (evidence.kind === "failed" && evidence.reason === "connect") {
      known.suspectUntilMs = nowMs + suspectMs;
    }
    const attempted = { evidence, turn, who };
    const reason = noteAttempt(known.breaker, attempted, nowMs, this.#breakerLimits);
    if (reason !== undefined) this.#onEjection(known.url, reason);
  }

  at(url: string): Endpoint {
    return this.#know(url).endpoint;
  }

  /** What a probe saw. */
  observe(url: string, isGood: boolean): void {
    const known = this.#know(url);
    known.health = observeHealth(known.health, isGood, healthLimits);
  }

  /** Nobody probes it any more, so what was seen last says nothing. */
  forget(url: string): void {
    const known = this.#known.get(url);
    if (known !== undefined) known.health = unknownHealth;
  }

  /** Is there one that is not known to be down? */
  readonly isUsable = (urls: readonly string[]): boolean => {
    const nowMs = this.#clock.monotonicMs();
    return urls.some((url) => {
      const known = this.#known.get(url);
      return known === undefined || standingOf(known, nowMs) === "usable";
    });
  };

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

  /** Each endpoint that was ever used: its requests in flight and waiting, and what is known of it. */
  load(): readonly EndpointView[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#known.values()].map((known) => ({
      url: known.url,
      inFlight: known.endpoint.slots.inFlight,
      pending: known.endpoint.slots.pending,
      standing: standingOf(known, nowMs),
      breaker: known.breaker.state,
    }));
  }

  /** Whoever watches the endpoints stops before they close. */
  beforeClose(stop: () => Promise<void>): void {
    this.#watchers.push(stop);
  }

  async close(): Promise<void> {
    for (const stop of this.#watchers.splice(0)) await stop();
    const all = [...this.#leaving, ...[...this.#known.values()].map(({ endpoint }) => endpoint)];
    this.#leaving.clear();
    this.#known.clear();
    await Promise.all(all.map((endpoint) => endpoint.close()));
  }

  #know(url: string): Known {
    const known = this.#known.get(url);
    if (known !== undefined) return known;
    const fresh: Known = {
      url,
      endpoint: createEndpoint({
        ...{ url, clock: this.#clock, limits: this.#limits },
        ...(this.#tls === undefined ? {} : { tls: this.#tls }),
      }),
      breaker: createBreaker(),
      health: unknownHealth,
      suspectUntilMs: 0,
    };
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

const picked = (known: Known): Picked => ({
  endpoint: known.endpoint,
  known,
  turn: known.breaker.turn,
});

const loadOf = ({ endpoint }: Known): number => endpoint.slots.inFlight + endpoint.slots.pending;

function standingOf({ breaker, health, suspectUntilMs }: Known, nowMs: number): Standing {
  if (isDead(breaker)) return "dead";
  if (breaker.state !== "closed" || health.state === "down") return "out";
  return suspectUntilMs > nowMs ? "suspect" : "usable";
}
