/**
 * What of each cell's tenants could be taken over now, and in words why not all: `standby ls`, metrics
 * and plans of failovers say the same.
 */
import { bucketCount } from "../../../contract/placement-key.ts";
import type { CellView } from "../fleet.ts";
import { coverageOf } from "./buckets.ts";
import { isArranged, takeObstacle } from "./partners.ts";
import { isAdoptable, isLiving, type StandbyView } from "./standby-view.ts";

export type Protection = {
  readonly cell: string;
  /** Of what an annex took over: the cell that it is a part of. */
  readonly host?: string;
  /** Buckets that a standby may be adopted from for. */
  readonly buckets: number;
  /** Tenants without any, where tenants spread evenly over buckets. */
  readonly unprotected: number;
  /** Why not all are; empty when they are. */
  readonly text: string;
};

/** Cells that own or may own tenants; annexes that do have no standby of their own. */
export function protectionOf(
  cells: readonly CellView[],
  standbys: readonly StandbyView[],
  wanted: number,
): readonly Protection[] {
  return cells
    .filter(
      ({ state, annex, usage }) => state !== "retired" && (annex === null || usage.tenants > 0),
    )
    .map((cell) => protect(cell, cells, { standbys, wanted }));
}

function protect(
  cell: CellView,
  cells: readonly CellView[],
  { standbys, wanted }: { readonly standbys: readonly StandbyView[]; readonly wanted: number },
): Protection {
  const { id } = cell;
  if (cell.annex !== null) {
    const text = `its keys were taken over from ${cell.annex.origin} and have no standby until they are moved into whole cells`;
    const { host } = cell.annex;
    return { cell: id, host, buckets: 0, unprotected: cell.usage.tenants, text };
  }
  const own = standbys.filter(({ origin }) => origin === id);
  const covered = coverageOf(own.filter(isAdoptable).map(({ buckets }) => buckets)).size;
  const unprotected = Math.ceil((cell.usage.tenants * (bucketCount - covered)) / bucketCount);
  const text = covered === bucketCount ? "" : whyNot(cell, cells, own.filter(isLiving), wanted);
  return { cell: id, buckets: covered, unprotected, text };
}

const obstaclesShownMax = 4;

function whyNot(
  cell: CellView,
  cells: readonly CellView[],
  own: readonly StandbyView[],
  wanted: number,
): string {
  const building = own.filter((one) => !isAdoptable(one));
  if (building.length > 0) {
    return building
      .map(
        ({ host, state, reason }) =>
          `the one in ${host} is ${state}${reason === "" ? "" : `: ${reason}`}`,
      )
      .join("; ");
  }
  if (cell.state !== "active" && cell.state !== "cordoned" && cell.state !== "draining") {
    return `it is ${cell.state}`;
  }
  if (!isArranged(cell)) {
    return cell.stage.now === "enforce"
      ? `its processes are run by hand: cellctl standby add ${cell.id} --help`
      : `it is in stage ${cell.stage.now}, in which nothing can be taken over`;
  }
  if (wanted === 0) return "no standbys are wanted (--standby-partners 0)";
  const hosts = cells.filter(
    ({ id, annex, state }) => id !== cell.id && annex === null && state !== "retired",
  );
  if (hosts.length === 0) return "there is no other cell";
  const obstacles = hosts.flatMap((host) => {
    const obstacle = takeObstacle(cell, host);
    return obstacle === undefined ? [] : [`${host.id}: ${obstacle}`];
  });
  if (obstacles.length < hosts.length) return "a standby is about to be made";
  const more = obstacles.length - obstaclesShownMax;
  const shown = obstacles.slice(0, obstaclesShownMax).join("; ");
  return `no other cell may keep one. ${shown}${more > 0 ? `; and ${more} more` : ""}`;
}
