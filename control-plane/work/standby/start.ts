/** The room of standbys, assembled: what touches databases of origins and annexes, and the loop that keeps them. */
import type { Metrics } from "../../../runtime/metrics.ts";
import { createStandby } from "../../../standby/kinds.ts";
import type { StandbyWorld } from "../../store/standby/world.ts";
import { type Keeper, type KeeperOptions, startKeeping } from "./keeper.ts";
import { showStandbys } from "./metrics.ts";
import { standbyServers } from "./servers.ts";

export type StandbysOptions = Omit<KeeperOptions, "standby" | "onWorld"> & {
  readonly metrics: Metrics;
};

export function startStandbys(options: StandbysOptions): Keeper {
  const { clock, lead, partners, provider } = options;
  let seen: StandbyWorld | undefined;
  const standby = createStandby({ clock, servers: standbyServers(provider) });
  const keeper = startKeeping({
    ...{ ...options, standby },
    onWorld: (world) => {
      seen = world;
    },
  });
  const world = () => (lead.term() === undefined ? undefined : seen);
  showStandbys(options.metrics, { world, partners, nowMs: clock.nowMs });
  return {
    wake: keeper.wake,
    close: async () => {
      await keeper.close();
      await standby.close();
    },
  };
}
