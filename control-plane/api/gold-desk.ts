/**
 * Which keys of a cell are gold, for its agents: said when it has changed, and now and then all the same, so
 * that an agent which lost an answer does not wait for nobody for ever.
 */
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { readGoldKeys } from "../store/gold.ts";
import type { ApiContext } from "./context.ts";

export type GoldDesk = {
  readonly wordFor: (
    said: Pick<AgentSyncRequest, "cell" | "instance">,
  ) => Promise<Pick<AgentSyncResponse, "gold">>;
};

/** How old what is said may be: every agent of a cell asks about once a second. */
const freshMs = 1000;
const againMs = 15_000;
const rememberedMax = 10_000;

type Read = { readonly atMs: number; readonly keys: Promise<readonly PlacementKey[]> };

export function createGoldDesk({ database, clock, settings }: ApiContext): GoldDesk {
  const reads = new Map<string, Read>();
  const told = new Map<string, { readonly atMs: number; readonly keys: string }>();
  const onPartnerLoss = settings.goldOnPartnerLoss ?? "refuse";

  function keysOf(cell: string): Promise<readonly PlacementKey[]> {
    const nowMs = clock.monotonicMs();
    const known = reads.get(cell);
    if (known !== undefined && nowMs - known.atMs < freshMs) return known.keys;
    if (reads.size >= rememberedMax) reads.clear();
    const keys = readGoldKeys(database.read, cell);
    // Whoever waits for it hears of it; the next call asks anew.
    keys.catch(() => reads.delete(cell));
    reads.set(cell, { atMs: nowMs, keys });
    return keys;
  }

  return {
    wordFor: async ({ cell, instance }) => {
      const keys = await keysOf(cell);
      const name = `${cell}\n${instance}`;
      const last = told.get(name);
      const text = keys.join("\n");
      const nowMs = clock.monotonicMs();
      if (last?.keys === text && nowMs - last.atMs < againMs) return {};
      if (told.size >= rememberedMax) told.clear();
      told.set(name, { atMs: nowMs, keys: text });
      return { gold: { keys: [...keys], onPartnerLoss } };
    },
  };
}
