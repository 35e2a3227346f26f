/**
 * What is reported of tenants: rows, bytes and requests, of those only whose numbers changed enough
 * to matter since they were last reported. Pure but for its memory of the last report.
 */
import type { TenantStat } from "../../contract/cell-protocol.ts";
import { parseKeyspaceName, parseTenantId } from "../../contract/ids.ts";
import type { TenantSize } from "../store/stats.ts";
import type { TenantRate } from "./request-meter.ts";

export const statsPerCallMax = 10_000;
/** Bytes are a share of what tables occupy, so they move a little with everybody's writes. */
const bytesShare = 0.05;
const rateShare = 0.1;

export class TenantStats {
  #measured: readonly TenantStat[] = [];
  readonly #reported = new Map<string, TenantStat>();

  measure(sizes: readonly TenantSize[], rates: readonly TenantRate[]): void {
    const all = new Map<string, TenantStat>();
    for (const size of sizes) {
      const keyspace = parseKeyspaceName(size.keyspace);
      // Rows of an application may bear keys that no router would ever send.
      if (keyspace === undefined || parseTenantId(size.tenant) === undefined) continue;
      const { tenant, rows, bytes } = size;
      all.set(nameOf(size), { keyspace, tenant, rows, bytes: Math.round(bytes), rps: 0 });
    }
    for (const { keyspace, tenant, rps } of rates) {
      const known = all.get(nameOf({ keyspace, tenant }));
      all.set(nameOf({ keyspace, tenant }), {
        ...(known ?? { keyspace, tenant, rows: 0, bytes: 0 }),
        rps,
      });
    }
    // Who was reported and is gone now has nothing left.
    for (const [name, { keyspace, tenant }] of this.#reported) {
      if (!all.has(name)) all.set(name, { keyspace, tenant, rows: 0, bytes: 0, rps: 0 });
    }
    this.#measured = [...all.values()];
  }

  /** At most one call's worth; the same again until `reported` says that it arrived. */
  due(): TenantStat[] {
    const due: TenantStat[] = [];
    for (const stat of this.#measured) {
      if (due.length >= statsPerCallMax) break;
      if (differs(this.#reported.get(nameOf(stat)), stat)) due.push(stat);
    }
    return due;
  }

  reported(stats: readonly TenantStat[]): void {
    for (const stat of stats) {
      if (stat.rows === 0 && stat.bytes === 0 && stat.rps === 0)
        this.#reported.delete(nameOf(stat));
      else this.#reported.set(nameOf(stat), stat);
    }
  }
}

const nameOf = (stat: { readonly keyspace: string; readonly tenant: string }): string =>
  `${stat.keyspace}/${stat.tenant}`;

function differs(before: TenantStat | undefined, now: TenantStat): boolean {
  const last = before ?? { rows: 0, bytes: 0, rps: 0 };
  return (
    last.rows !== now.rows ||
    differsBy(last.bytes, now.bytes, bytesShare) ||
    differsBy(last.rps, now.rps, rateShare)
  );
}

const differsBy = (a: number, b: number, share: number): boolean =>
  Math.abs(a - b) > share * Math.max(a, b);
