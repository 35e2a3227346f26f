/**
 * A cell is taken over by its standby: revoke, wait the lease out or prove the death, sever the stream,
 * report what is lost by position, and only then give the tenant away.
 */
import type { Cell, Stream } from "./cell.ts";
import { type Fleet, publish, tenant } from "./fleet.ts";
import { type Actor, pause } from "./world.ts";

type Takeover = {
  readonly cell: Cell;
  readonly standby: Stream;
  /** What the control plane has granted the cell; of the past, once `on` is false. */
  readonly grants: { until: number; on: boolean };
  /** The database starts again, the control plane has seen it, and every router can be reached. */
  readonly dies: boolean;
};

export function* takeOver(fleet: Fleet, { cell, standby, grants, dies }: Takeover): Actor {
  const { world, recorder } = fleet;
  const { epoch } = fleet.route;
  const heir = standby.to;
  grants.on = false;
  if (dies) cell.boot += 1;
  yield* publish(fleet, { cell, epoch, state: "revoked" }, dies);
  const early = world.has("early-report") ? new Map(fleet.acknowledged) : undefined;
  if (!dies) yield () => world.now() > grants.until;
  if (!world.has("no-r4")) standby.on = false;
  const has = standby.position;
  const counted = world.has("report-by-sent") ? cell.log.length : has;
  for (const [value, acknowledged] of early ?? fleet.acknowledged) {
    if (acknowledged.cell === cell && acknowledged.position > counted) {
      recorder.note({ kind: "reported-lost", tenant, value });
    }
  }
  recorder.note({
    kind: "owner",
    tenant,
    cell: heir.name,
    epoch: epoch + 1,
    revision: fleet.route.revision + 1,
  });
  heir.owned.set(tenant, { state: "active", epoch: epoch + 1, attempt: 0 });
  yield* publish(fleet, { cell: heir, epoch: epoch + 1, state: "active" }, false);
  yield* pause(world, 200);
  // The router that nobody could reach hears of it at last.
  yield* publish(fleet, { cell: heir, epoch: epoch + 1, state: "active" }, true);
  yield* pause(world, 100);
  const behind = cell.commits.filter(({ position }) => position > has);
  const read = world.has("salvage-consumes") ? Math.ceil(behind.length / 2) : 0;
  for (const { value } of behind.slice(read)) {
    recorder.note({ kind: "salvaged", tenant, cell: cell.name, value });
  }
}
