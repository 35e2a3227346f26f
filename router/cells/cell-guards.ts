/**
 * What bounds all requests of one cell together (bulkhead): its seats over all endpoints, the queue for
 * them, and its retry budget. A cell that hangs fills its own, and the router goes on for the others.
 * Services outside of the cells have guards of their own.
 */
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type SlotLimits, Slots } from "../../runtime/http/slots.ts";
import type { Placed } from "../place/decide.ts";
import { RetryBudget, retryBudgetLimits } from "./retry-budget.ts";

export type CellGuard = { readonly slots: Slots; readonly budget: RetryBudget };

type Target = Pick<Placed, "cell" | "service">;

export class CellGuards {
  readonly #clock: Clock;
  readonly #limits: SlotLimits;
  readonly #cells = new Map<string, CellGuard>();
  readonly #services = new Map<string, CellGuard>();

  constructor(clock: Clock, limits: SlotLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  of({ cell, service }: Target): CellGuard {
    const guards = cell === undefined ? this.#services : this.#cells;
    const name = cell ?? service;
    const known = guards.get(name);
    if (known !== undefined) return known;
    const budget = new RetryBudget(retryBudgetLimits, this.#clock.monotonicMs());
    const fresh = { slots: new Slots(this.#clock, this.#limits), budget };
    guards.set(name, fresh);
    return fresh;
  }

  /** Forgets what the table does not name any more and nobody uses. */
  follow({ lists }: TableState): void {
    const cells = new Set<string>(lists.cells.map(({ id }) => id));
    for (const [name, { slots }] of this.#cells) {
      if (!cells.has(name) && slots.inFlight === 0) this.#cells.delete(name);
    }
    for (const [name, { slots }] of this.#services) {
      const isNamed = Object.hasOwn(lists.globalServices ?? {}, name);
      if (!isNamed && slots.inFlight === 0) this.#services.delete(name);
    }
  }

  /** Requests under way and waiting, by cell. */
  load(): ReadonlyArray<{
    readonly cell: string;
    readonly inFlight: number;
    readonly pending: number;
  }> {
    return [...this.#cells].map(([cell, { slots }]) => ({
      cell,
      inFlight: slots.inFlight,
      pending: slots.pending,
    }));
  }
}
