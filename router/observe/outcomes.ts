/**
 * How requests ended, by cell and service, since this process began: what the control plane judges error
 * budgets by. Counted where the metrics are, by the same rule as the alerts: an answer of 500 and above failed,
 * the router's own too, and so did a request that got no answer at all, because a cell that hangs looks just so.
 */
import type { CellId } from "../../contract/ids.ts";
import { type ServedCount, servedCountsMax } from "../../contract/served-counts.ts";
import type { RequestRecord } from "./record.ts";

const defaultService = "default";

type Sum = { requests: number; failures: number; tookRequests: number; tookFailures: number };

export class Outcomes {
  readonly #cells = new Map<CellId, Map<string, Sum>>();
  #size = 0;

  note({
    cell,
    service = defaultService,
    hasty,
    status,
  }: Pick<RequestRecord, "cell" | "service" | "hasty" | "status">): void {
    if (cell === undefined || hasty) return;
    this.#add(cell, service, 1, status >= 500 || status === 0 ? 1 : 0);
  }

  /** From a worker, what is new. */
  add(fresh: readonly ServedCount[]): void {
    for (const { cell, service, requests, failures } of fresh) {
      this.#add(cell, service, requests, failures);
    }
  }

  totals(): ServedCount[] {
    return this.#all().map(({ cell, service, sum: { requests, failures } }) => ({
      ...{ cell, service, requests, failures },
    }));
  }

  /** What is new since the last call. */
  take(): ServedCount[] {
    const fresh: ServedCount[] = [];
    for (const { cell, service, sum } of this.#all()) {
      const requests = sum.requests - sum.tookRequests;
      const failures = sum.failures - sum.tookFailures;
      if (requests > 0) fresh.push({ cell, service, requests, failures });
      Object.assign(sum, { tookRequests: sum.requests, tookFailures: sum.failures });
    }
    return fresh;
  }

  #all() {
    return [...this.#cells].flatMap(([cell, services]) =>
      [...services].map(([service, sum]) => ({ cell, service, sum })),
    );
  }

  #add(cell: CellId, service: string, requests: number, failures: number): void {
    let services = this.#cells.get(cell);
    let sum = services?.get(service);
    if (sum === undefined) {
      // Cells and services come from the table: in practice there are never so many.
      if (this.#size >= servedCountsMax) return;
      this.#size += 1;
      sum = { requests: 0, failures: 0, tookRequests: 0, tookFailures: 0 };
      services ??= new Map();
      this.#cells.set(cell, services.set(service, sum));
    }
    sum.requests += requests;
    sum.failures += failures;
  }
}
