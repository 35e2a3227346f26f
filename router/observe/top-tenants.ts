/**
 * `cellfleet_router_tenant_requests_total`: the busiest tenants have a series each, all others share
 * `_other`, so that a million tenants are 51 series.
 *
 * A tenant's series counts from when it came among the busiest; one that falls behind loses its series, and
 * its requests count for `_other` from then on. So rates are right, for every series and for their sum.
 */
import type { Counter, CounterChild } from "../../runtime/metrics.ts";
import { SpaceSaving } from "./space-saving.ts";

export const otherTenants = "_other";
export const tenantSeriesMax = 50;
/** More are watched than shown: a newcomer must be able to grow before it is shown. */
const watchedMax = 500;
/** One request in so many has a say in the ranks: enough for those, and cheap. All are counted. */
const watchEveryDefault = 7;
/** So much busier than the least of those that are shown must a newcomer be: series should not flap. */
const betterBy = 1.25;
/** How often ranks are judged, and after how many times counts are halved. */
export const rankMs = 5000;
const turnsPerAge = 12;

export class TopTenants {
  readonly #counter: Counter;
  readonly #watched = new SpaceSaving(watchedMax);
  readonly #shown = new Map<string, CounterChild>();
  readonly #other: CounterChild;
  readonly #watchEvery: number;
  #unwatched = 0;
  #turns = 0;

  constructor(counter: Counter, watchEvery: number = watchEveryDefault) {
    this.#counter = counter;
    this.#watchEvery = watchEvery;
    this.#other = counter.with({ tenant: otherTenants });
  }

  note(tenant: string): void {
    this.#unwatched += 1;
    if (this.#unwatched >= this.#watchEvery) {
      this.#unwatched = 0;
      this.#watched.note(tenant);
    }
    const child = this.#shown.get(tenant);
    if (child !== undefined) child.inc();
    else if (this.#shown.size < tenantSeriesMax) this.#show(tenant).inc();
    else this.#other.inc();
  }

  /** Gives the series to those that are the busiest now. */
  rank(): void {
    this.#turns += 1;
    if (this.#turns % turnsPerAge === 0) this.#watched.age();
    const busiest = this.#watched.top(tenantSeriesMax);
    const rising = busiest.filter((tenant) => !this.#shown.has(tenant));
    const stay = new Set(busiest);
    const falling = [...this.#shown.keys()].filter((tenant) => !stay.has(tenant));
    falling.sort((a, b) => this.#watched.countOf(a) - this.#watched.countOf(b));
    for (const tenant of rising) {
      const weakest = falling[0];
      if (this.#shown.size >= tenantSeriesMax) {
        if (weakest === undefined || !this.#isBetter(tenant, weakest)) return;
        falling.shift();
        this.#hide(weakest);
      }
      this.#show(tenant);
    }
  }

  #isBetter(tenant: string, than: string): boolean {
    return this.#watched.countOf(tenant) > this.#watched.countOf(than) * betterBy;
  }

  #show(tenant: string): CounterChild {
    const child = this.#counter.with({ tenant });
    this.#shown.set(tenant, child);
    return child;
  }

  #hide(tenant: string): void {
    this.#shown.delete(tenant);
    this.#counter.remove({ tenant });
  }
}
