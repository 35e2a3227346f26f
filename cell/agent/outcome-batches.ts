/**
 * How requests of tenants ended at this gate, for error budgets by tier, which the control plane knows. Told in
 * numbered batches: the same one until it is answered, so that each counts once, however calls are lost.
 *
 * At most `tenantsMax` tenants and services are counted until they are told; requests of others are not, so
 * that a flood of names cannot fill the memory.
 */
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";
import { type OutcomeBatch, outcomesMax } from "../../contract/served-counts.ts";
import type { Entered } from "./entry.ts";

/** A minute is what is counted in: more often says no more. */
const everyMs = 10_000;
const tenantsMax = 50_000;

type Outcome = {
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
  readonly service: string;
  requests: number;
  failures: number;
};

export class OutcomeBatches {
  readonly #monotonicMs: () => number;
  readonly #waiting = new Map<string, Outcome>();
  #open: OutcomeBatch | undefined;
  #number = 0;
  #madeMs = Number.NEGATIVE_INFINITY;

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  note(
    { keyspace, tenant, service }: Pick<Outcome, "keyspace" | "tenant" | "service">,
    failed: boolean,
  ): void {
    const name = `${service} ${keyspace}/${tenant}`;
    let one = this.#waiting.get(name);
    if (one === undefined) {
      if (this.#waiting.size >= tenantsMax) return;
      one = { keyspace, tenant, service, requests: 0, failures: 0 };
      this.#waiting.set(name, one);
    }
    one.requests += 1;
    if (failed) one.failures += 1;
  }

  /** Undefined: nothing is to be told now. */
  due(): OutcomeBatch | undefined {
    if (this.#open !== undefined) return this.#open;
    const nowMs = this.#monotonicMs();
    if (this.#waiting.size === 0 || nowMs - this.#madeMs < everyMs) return undefined;
    this.#madeMs = nowMs;
    const first = [...this.#waiting].slice(0, outcomesMax);
    for (const [name] of first) this.#waiting.delete(name);
    this.#number += 1;
    this.#open = { number: this.#number, tenants: first.map(([, one]) => one) };
    return this.#open;
  }

  /** A call that carried this batch was answered. */
  reported(batch: OutcomeBatch | undefined): void {
    if (batch !== undefined && batch.number === this.#open?.number) this.#open = undefined;
  }
}

/** Only of a tenant: routes that speak of none are the application's own matter. */
export function noteServed(
  outcomes: OutcomeBatches,
  { asked, service }: Pick<Entered, "asked" | "service">,
  status: number,
): void {
  if (asked.kind !== "keyed") return;
  const { tenant, keyspace } = asked.request;
  if (tenant !== undefined && keyspace !== undefined) {
    outcomes.note({ tenant, keyspace, service }, status >= 500);
  }
}
