/**
 * What an RPO report and a salvage say, as entries of a history: the checker then holds the report to naming
 * every acknowledged write that is missing, and counts what it named in vain.
 *
 * What must always be true: a write of the report that cannot be told in the history is an error, never
 * passed over; else a report in other words would look like one that names nothing.
 */
import type { AckedWrite } from "../contract/cell-protocol.ts";
import type { RpoReport } from "../contract/failover-api.ts";
import { parsePlacementKey } from "../contract/placement-key.ts";
import type { SalvagedRow } from "../contract/salvage-api.ts";
import type { Entry } from "./model.ts";

/**
 * `nameOf`: which write of the history it was; undefined: none of it (traffic of others), null: nobody can
 * tell, and it throws.
 */
export function entriesOfReport(
  report: RpoReport,
  nameOf: (write: AckedWrite) => string | undefined | null = ({ idempotencyKey }) =>
    idempotencyKey ?? null,
): Entry[] {
  const lost = report.tenants.flatMap(({ tenant, lost, unknown }) =>
    [...lost, ...unknown].flatMap((write): Entry[] => {
      const value = nameOf(write);
      if (value === null) {
        throw new Error(
          `${report.failover} names a write of ${tenant} that nobody can tell: ${write.requestId}`,
        );
      }
      return value === undefined ? [] : [{ kind: "reported-lost", tenant: write.tenant, value }];
    }),
  );
  const unserved = [...report.unavailable, ...report.quarantined].flatMap(({ key }): Entry[] => {
    const parts = parsePlacementKey(key);
    return parts?.kind === "tenant" ? [{ kind: "unavailable", tenant: parts.tenant }] : [];
  });
  return [...lost, ...unserved];
}

/** `nameOf`: which write a row is of; undefined: none, such as a row of another table. */
export const entriesOfSalvage = (
  cell: string,
  rows: readonly SalvagedRow[],
  nameOf: (row: SalvagedRow) => string | undefined,
): Entry[] =>
  rows.flatMap((row): Entry[] => {
    const value = nameOf(row);
    return value === undefined ? [] : [{ kind: "salvaged", tenant: row.tenant, cell, value }];
  });
