/** What requests wait for, and who is let go by each table: the line of a router, and the ends of takeovers. */
import type { PlacementKey } from "../../contract/placement-key.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import { isHeld } from "./decide.ts";
import { Handovers } from "./handovers.ts";
import { Hold, type HoldLimits } from "./hold.ts";

/** Of one key, in one go. */
const releaseBatchMax = 64;

export type Waiting = {
  readonly hold: Hold;
  readonly handovers: Handovers;
  /** After each change of the table. */
  readonly follow: (table: TableState) => void;
};

export function openWaiting({
  config,
  clock,
  metrics,
  table: current,
}: {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly metrics: RouterMetrics;
  readonly table: () => TableState | undefined;
}): Waiting {
  const hold = new Hold({
    ...{ clock, limits: holdLimits(config) },
    onVerdict: (result) => metrics.holds.inc({ result }),
  });
  const handovers = new Handovers({
    ...{ clock, limitMs: config.handoverMs },
    onOver: () => release(current()),
  });
  const release = (table: TableState | undefined) =>
    hold.release((key) => isFree(table, handovers, key));
  return {
    ...{ hold, handovers },
    follow: (table) => {
      handovers.follow(table);
      release(table);
    },
  };
}

/** What waits for a cell that is being taken over is told so at once, unless it is nearly done. */
function isFree(table: TableState | undefined, handovers: Handovers, key: PlacementKey): boolean {
  const route = table?.get(key);
  if (table === undefined || route === undefined || !isHeld(table, route)) return true;
  return handovers.isOver(route.cell);
}

const holdLimits = (config: RouterConfig): HoldLimits => ({
  holdMs: config.holdMs,
  perKeyMax: config.heldPerKeyMax,
  totalMax: config.heldMax,
  perKeyBytesMax: config.heldBytesPerKeyMax,
  totalBytesMax: config.heldBytesMax,
  batchMax: releaseBatchMax,
});
