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
import { type Candidate, choose, type Standing, standings } from "./balance.ts";
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
  noteReached,
} from "./breaker.ts";
import { Comebacks } from "./comebacks.ts";
import { type Health, healthLimits, observeHealth, unknownHealth } from "./health-state.ts";

/** What connections are made to: a URL, or one of the addresses behind its host's name. */
type Target = {
  readonly name: string;
  readonly url: string;
  readonly address: string | undefined;
};

type Known = {
  readonly url: string;
  readonly name: string;
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
  readonly #addressesOf: (url: string) => readonly string[];
  /** By name. */
  readonly #known = new Map<string, Known>();
  /** By the table's own lists of URLs, until an address changes. */
  #targets = new WeakMap<readonly string[], readonly Target[]>();
  readonly #leaving = new Set<Endpoint>();
  readonly #comebacks: Comebacks;
  readonly #watchers: Array<() => Promise<void>> = [];
  #lists: TableState["lists"] | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly limits: EndpointLimits;
    readonly tls?: EndpointTlsSource;
    readonly breakerLimits?: BreakerLimits;
    /** Each of these has connections and a breaker of its own; none: the URL has. */
    readonly addressesOf?: (url: string) => readonly string[];
    /** Told of every opening of a breaker. */
    readonly onEjection?: (url: string, reason: EjectionReason) => void;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#limits = options.limits;
    this.#tls = options.tls;
    this.#breakerLimits = options.breakerLimits ?? breakerLimits;
    this.#addressesOf = options.addressesOf ?? (() => []);
    this.#onEjection = options.onEjection ?? (() => {});
    this.#comebacks = new Comebacks(options.clock, options.random);
  }

  /** Endpoints that stand behind these URLs. */
  count(urls: readonly string[]): number {
    return this.#targetsOf(urls).length;
  }

  /** One of `urls`, if possible not `avoid`, the name of another. Undefined: nothing listens at any of them, as far as is known. */
  pick(urls: readonly string[], avoid: string | undefined): Picked | undefined {
    const nowMs = this.#clock.monotonicMs();
    const targets = this.#targetsOf(urls);
    const quick = this.#pickQuickly(targets, avoid, nowMs);
    if (quick !== undefined) return picked(quick);
    const candidates = targets.map((target) => this.#candidate(this.#know(target), nowMs));
    const chosen = choose(candidates, this.#random, avoid);
    if (chosen === undefined) return undefined;
    const { known } = chosen.candidate;
    if (chosen.trial) beginTrial(known.breaker, nowMs);
    return picked(known);
  }

  /** What nearly every request needs: two draws that are well, without making a list of all. */
  #pickQuickly(
    targets: readonly Target[],
    avoid: string | undefined,
    nowMs: number,
  ): Known | undefined {
    const one = this.#draw(targets);
    const two = targets.length > 1 ? this.#draw(targets) : one;
    if (one === undefined || two === undefined) return undefined;
    const isFine = (known: Known) =>
      known.name !== avoid && this.#standingOf(known, nowMs) === "usable";
    if (!isFine(one) || !isFine(two)) return undefined;
    return loadOf(two) < loadOf(one) ? two : one;
  }

  #draw(targets: readonly Target[]): Known | undefined {
    const at = targets.length > 1 ? Math.floor(this.#random.unit() * targets.length) : 0;
    const target = targets[at];
    return target === undefined ? undefined : this.#know(target);
  }

  #candidate(known: Known, nowMs: number): Candidate & { readonly known: Known } {
    const { name, breaker } = known;
    return {
      known,
      url: name,
      inFlight: loadOf(known),
      standing: this.#standingOf(known, nowMs),
      trialDue: isTrialDue(breaker, nowMs, false, this.#breakerLimits),
      lastResort: isTrialDue(breaker, nowMs, true, this.#breakerLimits),
    };
  }

  /** Its answer has begun: a trial that streams for hours has shown what it was for. */
  answering(one: Picked, who: string): void {
    if (one.known.breaker.state !== "closed")
      this.note(one, { evidence: { kind: "answered" }, who });
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
    const isRefused = evidence.kind === "failed" && evidence.reason === "connect";
    if (isRefused && this.#isMissing(known)) this.#awaitComeback(known);
  }

  #isMissing(known: Known): boolean {
    return this.#known.get(known.name) === known && isDead(known.breaker, this.#breakerLimits);
  }

  #awaitComeback(known: Known): void {
    this.#comebacks.watch({
      endpoint: known.endpoint,
      isMissing: () => this.#isMissing(known),
      onBack: () => noteReached(known.breaker, this.#clock.monotonicMs(), this.#breakerLimits),
    });
  }

  /** For a probe. */
  at(url: string): readonly Endpoint[] {
    return targetsAt(url, this.#addressesOf(url)).map((target) => this.#know(target).endpoint);
  }

  /** What a probe saw. */
  observe({ name }: Pick<Endpoint, "name">, isGood: boolean): void {
    const known = this.#known.get(name);
    if (known === undefined) return;
    known.health = observeHealth(known.health, isGood, healthLimits);
    if (isGood) noteReached(known.breaker, this.#clock.monotonicMs(), this.#breakerLimits);
  }

  /** Nobody probes it any more, so what was seen last says nothing. */
  forget(url: string): void {
    for (const known of this.#known.values()) {
      if (known.url === url) known.health = unknownHealth;
    }
  }

  /** Is there one that is not known to be down? */
  readonly isUsable = (urls: readonly string[]): boolean => {
    const nowMs = this.#clock.monotonicMs();
    return this.#targetsOf(urls).some(({ name }) => {
      const known = this.#known.get(name);
      return known === undefined || this.#standingOf(known, nowMs) === "usable";
    });
  };

  /** Closes, in their own time, the pools of endpoints that the table does not name. */
  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    this.#prune();
  }

  /** Addresses came or went. */
  refresh(): void {
    this.#targets = new WeakMap();
    this.#prune();
  }

  #prune(): void {
    const { globalServices = {}, cells = [] } = this.#lists ?? {};
    const named = new Set(
      [globalServices, ...cells.map(({ services }) => services)]
        .flatMap((services) => Object.values(services))
        .flatMap(({ endpoints }) => this.#targetsOf(endpoints))
        .map(({ name }) => name),
    );
    for (const [name, { endpoint }] of this.#known) {
      if (named.has(name)) continue;
      this.#known.delete(name);
      this.#leaving.add(endpoint);
    }
    this.#sweep();
  }

  #targetsOf(urls: readonly string[]): readonly Target[] {
    const known = this.#targets.get(urls);
    if (known !== undefined) return known;
    const targets = urls.flatMap((url) => targetsAt(url, this.#addressesOf(url)));
    this.#targets.set(urls, targets);
    return targets;
  }

  /** Each URL that was ever used: its requests in flight and waiting, and the best and worst of what is known. */
  load(): readonly EndpointView[] {
    const nowMs = this.#clock.monotonicMs();
    const views = new Map<string, EndpointView>();
    for (const known of this.#known.values()) {
      const { inFlight, pending } = known.endpoint.slots;
      const { url } = known;
      const view = {
        url,
        inFlight,
        pending,
        ...this.#seen(known, nowMs),
      };
      const before = views.get(url);
      views.set(url, before === undefined ? view : together(before, view));
    }
    return [...views.values()];
  }

  /** Whoever watches the endpoints stops before they close. */
  beforeClose(stop: () => Promise<void>): void {
    this.#watchers.push(stop);
  }

  async close(): Promise<void> {
    for (const stop of this.#watchers.splice(0)) await stop();
    await this.#comebacks.close();
    const all = [...this.#leaving, ...[...this.#known.values()].map(({ endpoint }) => endpoint)];
    this.#leaving.clear();
    this.#known.clear();
    await Promise.all(all.map((endpoint) => endpoint.close()));
  }

  /** Out until the next request: with its time over nobody passes it by any more. */
  #seen(known: Known, nowMs: number): Pick<EndpointView, "standing" | "breaker"> {
    const { breaker, health } = known;
    const standing = this.#standingOf(known, nowMs);
    const isDue =
      breaker.state === "open" && isTrialDue(breaker, nowMs, false, this.#breakerLimits);
    if (!isDue || standing === "dead" || health.state === "down")
      return { standing, breaker: breaker.state };
    return { standing: "suspect", breaker: "half-open" };
  }

  #standingOf({ breaker, health, suspectUntilMs }: Known, nowMs: number): Standing {
    if (isDead(breaker, this.#breakerLimits)) return "dead";
    if (breaker.state !== "closed" || health.state === "down") return "out";
    return suspectUntilMs > nowMs ? "suspect" : "usable";
  }

  #know(target: Target): Known {
    const known = this.#known.get(target.name);
    if (known !== undefined) return known;
    const { url, name, address } = target;
    const fresh: Known = {
      ...{ url, name },
      endpoint: createEndpoint({
        ...{ url, address, clock: this.#clock, limits: this.#limits },
        ...(this.#tls === undefined ? {} : { tls: this.#tls }),
      }),
      breaker: createBreaker(),
      health: unknownHealth,
      suspectUntilMs: 0,
    };
    this.#known.set(name, fresh);
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

const targetsAt = (url: string, addresses: readonly string[]): readonly Target[] =>
  addresses.length === 0
    ? [{ url, name: url, address: undefined }]
    : addresses.map((address) => ({ url, name: `${url} at ${address}`, address }));

/** One URL is up while one of its addresses is. */
const together = (one: EndpointView, two: EndpointView): EndpointView => ({
  url: one.url,
  inFlight: one.inFlight + two.inFlight,
  pending: one.pending + two.pending,
  standing:
    standings.indexOf(one.standing) <= standings.indexOf(two.standing)
      ? one.standing
      : two.standing,
  breaker: one.breaker === "closed" ? two.breaker : one.breaker,
});

const picked = (known: Known): Picked => ({
  endpoint: known.endpoint,
  known,
  turn: known.breaker.turn,
});

const loadOf = ({ endpoint }: Known): number => endpoint.slots.inFlight + endpoint.slots.pending;
