/**
 * Routes are few and shared: each gets a number while any tenant has it, and a tenant's entry is a number.
 *
 * What must always be true: a number that some tenant is found with keeps its route. When the last one
 * went elsewhere the number is free, although it may still stand in a base image: a change covers every
 * entry there that has it, until the next image leaves it out.
 */
import type { Route } from "./keyspace-routes.ts";
import { routeNumberMax } from "./tenant-entry.ts";

/** By number; null: it is free. Number 0 is never used. */
export type SharedRoutes = ReadonlyArray<{ readonly route: Route; readonly count: number } | null>;

export class RouteNumbers {
  readonly #routes: Array<Route | undefined> = [undefined];
  readonly #counts: number[] = [0];
  readonly #free: number[] = [];
  readonly #numbers = new Map<string, number>();
  /** Of the last call: a group sets the same route ten thousand times. */
  #lastRoute: Route | undefined;
  #lastNumber = 0;

  static fromShared(shared: SharedRoutes): RouteNumbers {
    const numbers = new RouteNumbers();
    for (let number = 1; number < shared.length; number += 1) {
      const one = shared[number] ?? null;
      numbers.#routes[number] = one?.route;
      numbers.#counts[number] = one?.count ?? 0;
      if (one === null) numbers.#free.push(number);
      else numbers.#numbers.set(nameOf(one.route), number);
    }
    return numbers;
  }

  share(): SharedRoutes {
    return this.#routes.map((route, number) =>
      route === undefined ? null : { route, count: this.#counts[number] ?? 0 },
    );
  }

  at(number: number): Route | undefined {
    return this.#routes[number];
  }

  /** Routes that some tenant has. */
  all(): Route[] {
    return this.#routes.flatMap((route, number) =>
      route !== undefined && (this.#counts[number] ?? 0) > 0 ? [route] : [],
    );
  }

  take(route: Route): number {
    const number = route === this.#lastRoute ? this.#lastNumber : this.#numberOf(route);
    this.#lastRoute = route;
    this.#lastNumber = number;
    this.#counts[number] = (this.#counts[number] ?? 0) + 1;
    return number;
  }

  drop(number: number): void {
    const count = (this.#counts[number] ?? 0) - 1;
    this.#counts[number] = count;
    const route = this.#routes[number];
    if (count > 0 || route === undefined) return;
    this.#numbers.delete(nameOf(route));
    this.#routes[number] = undefined;
    this.#free.push(number);
    this.#lastRoute = undefined;
  }

  #numberOf(route: Route): number {
    const name = nameOf(route);
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const number = this.#free.pop() ?? this.#routes.length;
    if (number > routeNumberMax) throw new Error(`more than ${routeNumberMax} different routes`);
    this.#routes[number] = route;
    this.#counts[number] = 0;
    this.#numbers.set(name, number);
    return number;
  }
}

const nameOf = ({ cell, epoch, state }: Route): string => `${cell} ${epoch} ${state}`;
