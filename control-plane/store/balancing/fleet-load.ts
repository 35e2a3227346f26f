/**
 * What a rebalance is planned from: every cell as a bin, every key as a unit, in one snapshot. Reads all
 * tenants: for plans, not for loops.
 */
import { sql } from "drizzle-orm";
import { type CellView, type Tier, wholeCells } from "../../core/fleet.ts";
import type { Bin, Load, Unit } from "../../core/rebalance/load.ts";
import type { Reader } from "../database.ts";
import { readCells } from "../fleet-store.ts";

/** Labels of a tenant that plans obey: stays where it is; is kept apart from others of the same group. */
export const pinLabel = "cellfleet.pin";
export const apartLabel = "cellfleet.apart";

/** After a move a key is left alone for a day. */
const cooldownMs = 24 * 3_600_000;

export type FleetLoad = { readonly bins: readonly Bin[]; readonly units: readonly Unit[] };

export async function readFleetLoad(
  reader: Reader,
  asked: { readonly removeCells: readonly string[]; readonly addCells: readonly string[] },
): Promise<FleetLoad> {
  const cells = wholeCells(await readCells(reader)).filter(({ state }) => state !== "retired");
  const units = await readUnits(reader);
  const loads = new Map<string, Load>();
  for (const { cell, load } of units) {
    const before = loads.get(cell) ?? { tenants: 0, bytes: 0, rps: 0 };
    loads.set(cell, {
      tenants: before.tenants + load.tenants,
      bytes: before.bytes + load.bytes,
      rps: before.rps + load.rps,
    });
  }
  const bins = cells.map((cell) =>
    toBin(cell, loads.get(cell.id), asked.removeCells.includes(cell.id)),
  );
  return { bins: [...bins, ...asked.addCells.map((id) => imagined(id, bins))], units };
}

function toBin(cell: CellView, load: Load | undefined, removed: boolean): Bin {
  const closedBecause = whyClosed(cell);
  return {
    ...{ cell: cell.id, region: cell.region, failureDomain: cell.failureDomain },
    ...{ tiers: cell.tiers, capacity: cell.capacity, reserve: keptFree(cell) },
    ...{ open: closedBecause === "", closedBecause, leaving: removed || cell.state === "draining" },
    load: load ?? { tenants: 0, bytes: 0, rps: 0 },
    maxTenantShare: cell.capacity.maxTenantShare,
  };
}

/** For what it would have to take over, and what its annexes have taken over already. */
function keptFree({ reserve }: CellView): Load {
  const kept = (name: "tenants" | "bytes" | "rps") =>
    reserve === null ? 0 : reserve.held[name].amount + reserve.hosted[name];
  return { tenants: kept("tenants"), bytes: kept("bytes"), rps: kept("rps") };
}

function whyClosed(cell: CellView): string {
  if (cell.state !== "active") return `${cell.id} is ${cell.state}`;
  if (cell.health !== "healthy") return `${cell.id} is ${cell.health}`;
  if (cell.dedicated) return `${cell.id} is dedicated`;
  return cell.stage.now === "enforce" && cell.adopting === null
    ? ""
    : `${cell.id} is in stage ${cell.stage.now}, or another cell is being adopted`;
}

/** As large as the largest that there is, and empty. */
function imagined(id: string, bins: readonly Bin[]): Bin {
  const largest = bins.reduce<Load>(
    (most, { capacity }) => ({
      tenants: Math.max(most.tenants, capacity.tenants),
      bytes: Math.max(most.bytes, capacity.bytes),
      rps: Math.max(most.rps, capacity.rps),
    }),
    { tenants: 1, bytes: 1, rps: 1 },
  );
  return {
    ...{ cell: id, region: bins[0]?.region ?? "local", failureDomain: id, tiers: [] },
    ...{ open: true, closedBecause: "", leaving: false, capacity: largest },
    ...{ reserve: { tenants: 0, bytes: 0, rps: 0 }, load: { tenants: 0, bytes: 0, rps: 0 } },
    maxTenantShare: bins[0]?.maxTenantShare ?? 1,
  };
}

type UnitRow = {
  readonly key: string;
  readonly cell: string;
  readonly epoch: number;
  readonly state: string;
  readonly tier: Tier | null;
  readonly region: string | null;
  readonly regions: number;
  readonly tenants: number;
  readonly bytes: number;
  readonly rps: number;
  readonly pinned: boolean;
  readonly apart: string | null;
  readonly moving: boolean;
  readonly cooldownUntilMs: number;
};

async function readUnits(reader: Reader): Promise<Unit[]> {
  const { rows } = await reader.execute<UnitRow>(sql`
    select p.key, p.cell, p.epoch::float8 as epoch, p.state,
           min(t.tier) as tier, min(t.region) as region,
           count(distinct coalesce(t.region, ''))::int as regions,
           count(t.id)::int as tenants,
           coalesce(sum(greatest(t.size_bytes, t.measured_bytes)), 0)::float8 as bytes,
           coalesce(sum(greatest(t.size_rps, t.measured_rps)), 0)::float8 as rps,
           coalesce(bool_or(t.labels ->> ${pinLabel} = 'true'), false) as pinned,
           min(t.labels ->> ${apartLabel}) as apart,
           bool_or(k.key is not null) as moving,
           coalesce(max(extract(epoch from m.at)) * 1000 + ${cooldownMs}, 0)::float8 as "cooldownUntilMs"
      from cellfleet_control.placement as p
      join cellfleet_control.cell as c on c.id = p.cell and c.annex_host is null
      left join cellfleet_control.tenant as t on t.placement_key = p.key
      left join cellfleet_control.move_key as k on k.key = p.key and k.open
      left join (
        select k.key, max(o.updated_at) as at
          from cellfleet_control.move_key as k
          join cellfleet_control.op as o on o.id = k.op and o.state = 'done'
         group by k.key) as m on m.key = p.key
     where not p.deleted and p.state <> 'deleting'
     group by p.key, p.cell, p.epoch, p.state`);
  return rows.map(toUnit);
}

const toUnit = (row: UnitRow): Unit => ({
  ...{ key: row.key, cell: row.cell, epoch: row.epoch, apart: row.apart },
  tier: row.tier ?? "standard",
  region: row.region,
  load: { tenants: row.tenants, bytes: row.bytes, rps: row.rps },
  fixedBecause: whyFixed(row),
  cooldownUntilMs: row.cooldownUntilMs,
});

function whyFixed({ state, pinned, moving, regions, tenants }: UnitRow): string | null {
  if (moving) return "it is being moved";
  if (state !== "active") return `it is ${state}`;
  if (pinned) return `it is pinned (label ${pinLabel})`;
  return regions > 1 && tenants > 1 ? "its tenants must be in different regions" : null;
}
