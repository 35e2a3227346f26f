/**
 * Servers of physical standbys, as the provider of cells makes and settles them. Who runs cells knows where
 * their files lie; what becomes of the streams is decided in standby/.
 */
import type { StandbyServers } from "../../../standby/physical.ts";
import type { Provider } from "../provider.ts";

export const standbyServers = (provider: Pick<Provider, "act">): StandbyServers => ({
  copy: async ({ annex }, signal) => {
    await provider.act(annex, "copy", { op: opOf(annex) }, signal);
  },
  settle: async ({ annex }) => {
    // Cut short it is asked for again: nobody waits for it but who does that.
    await provider.act(annex, "settle", { op: opOf(annex) }, new AbortController().signal);
  },
});

const opOf = (annex: string): string => `standby ${annex}`.slice(0, 64);
