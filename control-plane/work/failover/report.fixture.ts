/** A failed-over cell in the control plane's tables, for tests of what is made of it afterwards. */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import {
  cellIdSchema,
  epochSchema,
  keyspaceNameSchema,
  type OpId,
  opIdSchema,
  tenantIdSchema,
} from "../../../contract/ids.ts";
import { type PlacementKey, tenantKey } from "../../../contract/placement-key.ts";
import type { Database } from "../../store/database.ts";
import { failover, failoverKey, standby } from "../../store/schema-standby.ts";

export const deadCell = cellIdSchema.parse("cell-01");
export const hostCell = cellIdSchema.parse("cell-02");
export const annexCell = cellIdSchema.parse("sb-cell-01-cell-02");
export const failoverId: OpId = opIdSchema.parse("op_1failover001");

export const keyOf = (tenant: string): PlacementKey =>
  tenantKey(keyspaceNameSchema.parse("default"), tenantIdSchema.parse(tenant));

/** Severed at `remoteLsn`, its tenants adopted by one annex; nobody has reported anything. */
export async function recordFailover(
  database: Database,
  tenants: readonly string[],
  remoteLsn: string,
): Promise<void> {
  const now = new Date();
  await database.read.insert(failover).values({
    ...{ op: failoverId, cell: deadCell, region: "local", mode: "unplanned", startedBy: "test" },
    ...{ plan: {}, revokedAt: now, fencedAt: now },
  });
  await database.read.insert(standby).values({
    ...{ annex: annexCell, origin: deadCell, host: hostCell, provider: "logical" },
    ...{ bucketLo: 0, bucketHi: 255, state: "adopted", remoteLsn, severedAt: now },
    ...{ heartbeatAgeMs: 100, reportedAt: now, takeoverFailover: failoverId },
  });
  await database.read.insert(failoverKey).values(
    tenants.map((tenant) => ({
      ...{ failover: failoverId, key: keyOf(tenant), fate: "adopted" as const, wave: 1, epoch: 1 },
      target: annexCell,
    })),
  );
}

export const ackedWrite = (
  tenant: string,
  requestId: string,
  change: Partial<AckedWrite> = {},
): AckedWrite => ({
  ...{ key: keyOf(tenant), tenant, epoch: epochSchema.parse(1), method: "POST", path: "/orders" },
  ...{ status: 201, requestId, lsn: "0/1000", atMs: Date.now() - 1000 },
  ...change,
});
