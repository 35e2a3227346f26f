/** What the leader shows of standbys, from what it saw last; a follower shows nothing. */
import { standbyStates } from "../../../contract/standby-api.ts";
import type { Labels, Metrics } from "../../../runtime/metrics.ts";
import { protectionOf } from "../../core/standby/protection.ts";
import { lagMsOf, type StandbyView } from "../../core/standby/standby-view.ts";
import type { StandbyWorld } from "../../store/standby/world.ts";

type Row = readonly [Labels, number];

export function showStandbys(
  metrics: Metrics,
  options: {
    /** Undefined while this process does not lead. */
    readonly world: () => StandbyWorld | undefined;
    readonly partners: number;
    /** By the clock of the control plane's database, as near as the last look. */
    readonly nowMs: () => number;
  },
): void {
  const each = (read: (one: StandbyView) => Row[]) => () =>
    (options.world()?.standbys ?? []).flatMap(read);
  metrics.gaugeFrom(
    "cellfleet_standby_state",
    "1 for the state each standby is in.",
    each((one) =>
      standbyStates
        .filter((state) => state !== "gone")
        .map((state): Row => [{ ...labelsOf(one), state }, state === one.state ? 1 : 0]),
    ),
  );
  metrics.gaugeFrom(
    "cellfleet_standby_lag_bytes",
    "Bytes of the origin's write-ahead log that each standby has not applied; absent while unknown.",
    each((one) => (one.lagBytes === null ? [] : [[labelsOf(one), one.lagBytes]])),
  );
  metrics.gaugeFrom(
    "cellfleet_standby_lag_seconds",
    "Age of the origin's newest heartbeat that each standby has applied; absent while unknown.",
    each((one) => {
      const lagMs = lagMsOf(one, options.nowMs());
      return lagMs === null ? [] : [[labelsOf(one), lagMs / 1000]];
    }),
  );
  metrics.gaugeFrom(
    "cellfleet_unprotected_tenants",
    "Tenants of each cell that no standby could take over now, by its uncovered buckets.",
    () => {
      const world = options.world();
      if (world === undefined) return [];
      return protectionOf(world.cells, world.standbys, options.partners).map(
        ({ cell, unprotected }): Row => [{ cell }, unprotected],
      );
    },
  );
}

const labelsOf = ({ annex, origin, host }: StandbyView): Labels => ({
  standby: annex,
  origin,
  host,
});
