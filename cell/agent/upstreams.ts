/**
 * The application's instances behind this agent, by service: which one gets the next request.
 *
 * The one with the fewest requests in flight, in turn among equals. One that just refused a
 * connection, or whose last probe failed, is passed over while another is there; when all are in
 * trouble all are tried, because a guess must never close a service.
 */
import { defaultService } from "../../contract/service-route.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createEndpoint, type Endpoint } from "../../runtime/http/endpoint.ts";
import type { ServiceConfig } from "./service-flags.ts";

/** So long an instance that refused a connection is passed over while others are there. */
export const suspectMs = 1000;

export type Instance = {
  readonly service: string;
  readonly endpoint: Endpoint;
  /** The service's path of health. */
  readonly health: string;
  /** Reference of the replica's database that it reads from; undefined for one on the primary. */
  readonly replica: string | undefined;
};

type Known = Instance & { suspectUntilMs: number };

/** For applications that say nothing else. */
const defaultHealth = "/livez";

export class Upstreams {
  readonly #clock: Clock;
  readonly #services = new Map<string, readonly Known[]>();
  #turn = 0;
  /** Set by the probe: the last answer says that this instance does not live. */
  #isLost: (instance: Instance) => boolean = () => false;

  constructor(clock: Clock, services: readonly ServiceConfig[]) {
    this.#clock = clock;
    for (const { name, health = defaultHealth, upstreams, replicas } of services) {
      const know = (url: string, replica: string | undefined): Known => ({
        service: name,
        endpoint: createEndpoint({ url, clock }),
        health,
        replica,
        suspectUntilMs: Number.NEGATIVE_INFINITY,
      });
      this.#services.set(name, [
        ...upstreams.map((url) => know(url, undefined)),
        ...replicas.map(({ url, database }) => know(url, database)),
      ]);
    }
  }

  get services(): string[] {
    return [...this.#services.keys()];
  }
  all(): readonly Instance[] {
    return [...this.#services.values()].flat();
  }
  probedBy(isLost: (instance: Instance) => boolean): void {
    this.#isLost = isLost;
  }
  hasReplicas(service: string): boolean {
    return this.#services.get(service)?.some(({ replica }) => replica !== undefined) ?? false;
  }

  /** The service that a request means; undefined when none of that name stands here. */
  resolve(named: string | undefined): string | undefined {
    if (named !== undefined) return this.#services.has(named) ? named : undefined;
    if (this.#services.has(defaultService)) return defaultService;
    const [only, second] = this.#services.keys();
    return second === undefined ? only : undefined;
  }

  /**
   * One of the service's instances that `fits`, none of `tried`; undefined when none is left. Those
   * on a replica serve only who asks for them by `fits`.
   */
  pick(
    service: string,
    fits: (instance: Instance) => boolean,
    tried: ReadonlySet<Instance>,
  ): Instance | undefined {
    const nowMs = this.#clock.monotonicMs();
    const wanted = (this.#services.get(service) ?? []).filter(
      (one) => fits(one) && !tried.has(one),
    );
    const sound = wanted.filter((one) => one.suspectUntilMs <= nowMs && !this.#isLost(one));
    const pool = sound.length > 0 ? sound : wanted;
    this.#turn += 1;
    let best: Known | undefined;
    for (let nth = 0; nth < pool.length; nth += 1) {
      const one = pool[(nth + this.#turn) % pool.length];
      if (one !== undefined && (best === undefined || load(one) < load(best))) best = one;
    }
    return best;
  }

  /** It refused a connection. */
  suspect(instance: Instance): void {
    for (const known of this.#services.get(instance.service) ?? []) {
      if (known === instance) known.suspectUntilMs = this.#clock.monotonicMs() + suspectMs;
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.all().map(({ endpoint }) => endpoint.close()));
  }
}

export const onPrimary = (instance: Instance): boolean => instance.replica === undefined;

const load = ({ endpoint }: Instance): number => endpoint.slots.inFlight + endpoint.slots.pending;
