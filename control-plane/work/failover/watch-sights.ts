/**
 * What there is to see of every cell at this moment: agents and leases as recorded, reports of routers and
 * partners, and the probes of this process. All times become ages here, each by the clock that made it.
 */
import { judgedCells } from "../../core/failover/detect.ts";
import type { CellSight } from "../../core/failover/witness.ts";
import type { CellView } from "../../core/fleet.ts";
import { countsAsManual } from "../../core/lease-mode.ts";
import { type Database, databaseNowMs } from "../../store/database.ts";
import { readPartnerSights, readRouterSights } from "../../store/failover/witnesses.ts";
import { readCells } from "../../store/fleet-store.ts";
import type { Prober } from "./probe.ts";

/** Agents that were not heard for longer are no gates to probe, if another was. */
const gateGoneMs = 60_000;

export function createSightings(database: Database, prober: Prober) {
  /** Since when the agent of a cell that called last has said that its database is gone; by the control plane's database's clock. */
  const lostSince = new Map<string, number>();

  function databaseLostForMs(cell: CellView, nowMs: number): number | null {
    const newest = newestAgent(cell);
    if (newest === undefined || newest.databaseReachable) {
      lostSince.delete(cell.id);
      return null;
    }
    const sinceMs = lostSince.get(cell.id) ?? nowMs;
    lostSince.set(cell.id, sinceMs);
    return nowMs - sinceMs;
  }

  return {
    look: async (watchedMs: number) => {
      const { read } = database;
      const [nowMs, all, routers, partners] = await Promise.all([
        databaseNowMs(read),
        readCells(read),
        readRouterSights(read),
        readPartnerSights(read),
      ]);
      const cells = judgedCells(all);
      const sights = cells.map((cell): CellSight => {
        const newest = newestAgent(cell);
        return {
          ...{ cell: cell.id, watchedMs, probes: prober.track(cell.id) },
          agent: {
            silentMs: newest === undefined ? null : Math.max(0, nowMs - newest.seenAtMs),
            appReachable: newest?.appReachable ?? false,
            databaseLostForMs: databaseLostForMs(cell, nowMs),
            leaseLeftMs: knowsNoEnd(cell) ? null : cell.leaseUntilMs - nowMs,
          },
          routers: routers.get(cell.id) ?? [],
          partners: partners.get(cell.id) ?? [],
        };
      });
      return { cells, sights };
    },
    probe: (cells: readonly CellView[], atOnce: ReadonlySet<string>) =>
      prober.look(
        cells.map((cell) => ({ cell: cell.id, gates: gatesOf(cell) })),
        atOnce,
      ),
    forget: () => lostSince.clear(),
  };
}

/** Of no lease, and of leases that the cell gives itself. */
const knowsNoEnd = ({ leaseUntilMs, leaseMode }: CellView): boolean =>
  leaseUntilMs === 0 || countsAsManual(leaseMode);

const newestAgent = ({ agents }: CellView): CellView["agents"][number] | undefined =>
  agents.toSorted((a, b) => b.seenAtMs - a.seenAtMs)[0];

function gatesOf(cell: CellView): readonly string[] {
  const newestMs = newestAgent(cell)?.seenAtMs ?? 0;
  const heard = cell.agents.filter(({ seenAtMs }) => newestMs - seenAtMs < gateGoneMs);
  return [...new Set(heard.map(({ endpoint }) => endpoint))];
}
