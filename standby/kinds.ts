/**
 * The provider of standbys that everybody uses: each pair is kept in the way that was chosen when it was
 * made, whatever new ones are kept by.
 */
import type { StandbyProviderName } from "../contract/standby-api.ts";
import { createLogicalStandby } from "./logical.ts";
import { createPhysicalStandby, type PhysicalOptions } from "./physical.ts";
import type { StandbyPair, StandbyProvider } from "./ports.ts";

export function createStandby(options: PhysicalOptions): StandbyProvider {
  const kinds: Readonly<Record<StandbyProviderName, StandbyProvider>> = {
    logical: createLogicalStandby(options),
    physical: createPhysicalStandby(options),
  };
  const of = ({ kind }: StandbyPair) => kinds[kind];
  return {
    ensure: (pair, signal) => of(pair).ensure(pair, signal),
    status: (pair) => of(pair).status(pair),
    refresh: (pair) => of(pair).refresh(pair),
    sever: (pair) => of(pair).sever(pair),
    activate: (pair) => of(pair).activate(pair),
    open: async (pair, order) => (await of(pair).open?.(pair, order)) ?? false,
    own: async (pair, changes) => (await of(pair).own?.(pair, changes)) ?? [],
    salvage: (pair, ...about) => of(pair).salvage(pair, ...about),
    drop: (pair, origin) => of(pair).drop(pair, origin),
    close: async () => {
      await Promise.all(Object.values(kinds).map((kind) => kind.close()));
    },
  };
}
