/**
 * The failover reserve: what a cell keeps free, so that the share of any one partner's tenants that would
 * be adopted here fits beside its own (N-1). One partner fails at a time; two at once are beyond it.
 *
 * Shares are those of buckets, over which tenants spread evenly: an estimate, as good as there are many
 * tenants. Who places holds the fleet's lock, so concurrent creations see each other's load here too.
 */
import type { CellView, Usage } from "../fleet.ts";
import { coverageOf, shareOf } from "./buckets.ts";
import { isLiving, type StandbyView } from "./standby-view.ts";

export const resources = ["tenants", "bytes", "rps"] as const;
export type Resource = (typeof resources)[number];
const nothing: Usage = { tenants: 0, bytes: 0, rps: 0 };

/** How a cell is bound to others; null where nobody is anybody's partner. */
export type Bonds = {
  /** Load of annexes in this cell: keys that it has adopted already. */
  readonly hosted: Usage;
  /** Whose keys would come here, and how much of them, 0 to 1. */
  readonly keeps: ReadonlyArray<{ readonly origin: string; readonly share: number }>;
  /** Where this cell's own would go. */
  readonly partners: ReadonlyArray<{ readonly host: string; readonly share: number }>;
};

/** With numbers, as things stand. */
export type Reserve = Bonds & {
  /** The largest that one failover would bring, resource by resource, and whose. */
  readonly held: Readonly<Record<Resource, Held>>;
  /** What each partner has free for this cell's share. */
  readonly rooms: ReadonlyArray<{
    readonly host: string;
    readonly share: number;
    readonly room: Usage;
  }>;
};
export type Held = { readonly amount: number; readonly origin: string };

type Bound = { readonly id: string; readonly usage: Usage; readonly annex: CellView["annex"] };

/** Bonds of every cell, by what standbys keep or are being made to keep. */
export function bondsOf(
  cells: readonly Bound[],
  standbys: ReadonlyArray<Pick<StandbyView, "origin" | "host" | "buckets" | "state">>,
): ReadonlyMap<string, Bonds> {
  const living = standbys.filter(isLiving);
  const annexes = cells.filter(({ annex, usage }) => annex !== null && usage.tenants > 0);
  if (living.length === 0 && annexes.length === 0) return new Map();
  const pairs = new Map<string, (typeof living)[number][]>();
  for (const one of living) {
    const pair = `${one.origin} ${one.host}`;
    pairs.set(pair, [...(pairs.get(pair) ?? []), one]);
  }
  const shares = [...pairs.values()].flatMap((own) => {
    const [first] = own;
    if (first === undefined) return [];
    // Of two that overlap while one takes the other's place, each bucket comes once.
    const share = coverageOf(own.map(({ buckets }) => buckets)).size * shareOf({ lo: 0, hi: 0 });
    return [{ origin: first.origin, host: first.host, share }];
  });
  return new Map(
    cells
      .filter(({ annex }) => annex === null)
      .map(({ id }) => [
        id,
        {
          hosted: sumOf(
            annexes.filter(({ annex }) => annex?.host === id).map(({ usage }) => usage),
          ),
          keeps: shares.filter(({ host }) => host === id),
          partners: shares.filter(({ origin }) => origin === id),
        },
      ]),
  );
}

const sumOf = (loads: readonly Usage[]): Usage =>
  loads.reduce(
    (sum, one) => ({
      tenants: sum.tenants + one.tenants,
      bytes: sum.bytes + one.bytes,
      rps: sum.rps + one.rps,
    }),
    nothing,
  );

/** What is known of a cell while something is planned: its load may have grown since it was read. */
export type LoadOf = (
  cell: string,
) => { readonly usage: Usage; readonly capacity: Usage; readonly hosted: Usage } | undefined;

export const reserveOf = (bonds: Bonds, loadOf: LoadOf): Reserve => ({
  ...bonds,
  held: {
    tenants: heldOf(bonds, "tenants", loadOf),
    bytes: heldOf(bonds, "bytes", loadOf),
    rps: heldOf(bonds, "rps", loadOf),
  },
  rooms: bonds.partners.map(({ host, share }) => ({ host, share, room: roomIn(loadOf(host)) })),
});

function heldOf({ keeps }: Bonds, resource: Resource, loadOf: LoadOf): Held {
  let held: Held = { amount: 0, origin: "" };
  for (const { origin, share } of keeps) {
    const amount = share * (loadOf(origin)?.usage[resource] ?? 0);
    if (amount > held.amount) held = { amount, origin };
  }
  return held;
}

/** A partner that is not known holds nobody up. */
function roomIn(host: ReturnType<LoadOf>): Usage {
  if (host === undefined) return { tenants: 1 / 0, bytes: 1 / 0, rps: 1 / 0 };
  const { usage, capacity, hosted } = host;
  return {
    tenants: capacity.tenants - usage.tenants - hosted.tenants,
    bytes: capacity.bytes - usage.bytes - hosted.bytes,
    rps: capacity.rps - usage.rps - hosted.rps,
  };
}

/** Every cell with the reserve that it has to keep. */
export function withReserves(
  cells: readonly CellView[],
  standbys: ReadonlyArray<Pick<StandbyView, "origin" | "host" | "buckets" | "state">>,
): CellView[] {
  const bonds = bondsOf(cells, standbys);
  if (bonds.size === 0) return [...cells];
  const byId = new Map(cells.map((cell) => [cell.id, cell]));
  const loadOf: LoadOf = (id) => {
    const cell = byId.get(id);
    return cell && { ...cell, hosted: bonds.get(id)?.hosted ?? nothing };
  };
  return cells.map((cell) => {
    const own = bonds.get(cell.id);
    return own === undefined ? cell : { ...cell, reserve: reserveOf(own, loadOf) };
  });
}

/** More of one resource fits: into the cell beside what it keeps free, and into its partners beside theirs. */
export function freeBeside(
  cell: Pick<CellView, "usage" | "capacity">,
  reserve: Reserve,
  resource: Resource,
): number {
  const { hosted, held, rooms } = reserve;
  const used = cell.usage[resource];
  const here = cell.capacity[resource] - used - hosted[resource] - held[resource].amount;
  const there = rooms.map(({ share, room }) => room[resource] / share - used);
  return Math.min(here, ...there);
}
