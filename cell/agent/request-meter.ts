/**
 * Requests per tenant since the last look, as a rate. At most `tenantsMax` tenants are counted in one
 * window; requests of the others are not, so that a flood of names cannot fill the memory.
 */
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";

export type TenantRate = {
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
  readonly rps: number;
};

export const tenantsMax = 50_000;
/** A rate over less than this says nothing. */
const windowMsMin = 1000;

export class RequestMeter {
  readonly #tenantsMax: number;
  #counts = new Map<string, { keyspace: KeyspaceName; tenant: TenantId; count: number }>();
  #sinceMonoMs: number;

  constructor(nowMonoMs: number, limit = tenantsMax) {
    this.#sinceMonoMs = nowMonoMs;
    this.#tenantsMax = limit;
  }

  count(keyspace: KeyspaceName, tenant: TenantId): void {
    const name = `${keyspace}/${tenant}`;
    const known = this.#counts.get(name);
    if (known !== undefined) known.count += 1;
    else if (this.#counts.size < this.#tenantsMax) {
      this.#counts.set(name, { keyspace, tenant, count: 1 });
    }
  }

  /** Ends the window and begins the next. */
  take(nowMonoMs: number): readonly TenantRate[] {
    const seconds = Math.max(nowMonoMs - this.#sinceMonoMs, windowMsMin) / 1000;
    const rates = [...this.#counts.values()].map(({ keyspace, tenant, count }) => ({
      keyspace,
      tenant,
      rps: Math.round((count / seconds) * 1000) / 1000,
    }));
    this.#counts = new Map();
    this.#sinceMonoMs = nowMonoMs;
    return rates;
  }
}
