/**
 * May this cell take this tenant? Each filter answers yes or a reason with numbers in it; placement,
 * `explain` and refusals use these same functions, so what is explained is what was decided.
 */
import type { CellView, Tier } from "./fleet.ts";
import { checkAdoption } from "./safety.ts";
import { freeBeside, type Reserve, type Resource, resources } from "./standby/reserve.ts";

/** What is to be placed. `bytes` and `rps` are the larger of declared and measured. */
export type Candidate = {
  readonly tenant: string;
  readonly tier: Tier;
  readonly region: string | null;
  readonly bytes: number;
  readonly rps: number;
  /** The cell asked for by name, if any. */
  readonly cell: string | null;
};

export const filterReasons = [
  "ok",
  "named-other",
  "annex",
  "state",
  "adoption",
  "health",
  "region",
  "tier",
  "dedicated",
  "capacity-tenants",
  "capacity-bytes",
  "capacity-rps",
  "reserve",
  "tenant-share",
] as const;
export type FilterReason = (typeof filterReasons)[number];

export type Decider = {
  readonly name: string;
  readonly decision: "yes" | "no" | "throttle";
  readonly reason: FilterReason;
  readonly text: string;
};

type Filter = (cell: CellView, wanted: Candidate) => Decider;

const yes = (name: string, text: string): Decider => ({
  name,
  decision: "yes",
  reason: "ok",
  text,
});
const no = (name: string, reason: FilterReason, text: string): Decider => ({
  name,
  decision: "no",
  reason,
  text,
});

const named: Filter = (cell, wanted) =>
  wanted.cell === null || wanted.cell === cell.id
    ? yes("named", wanted.cell === null ? "no cell was named" : "named by the request")
    : no("named", "named-other", `the request names ${wanted.cell}`);

const whole: Filter = (cell) =>
  cell.annex === null
    ? yes("whole", "a cell of its own")
    : no("whole", "annex", `a standby of ${cell.annex.origin}: it takes keys in a failover only`);

const state: Filter = (cell) =>
  cell.state === "active"
    ? yes("state", "open for placement")
    : no("state", "state", `the cell is ${cell.state}; only active cells take new tenants`);

const adoption: Filter = (cell) => {
  const refusal = checkAdoption(cell);
  return refusal === undefined
    ? yes("adoption", cell.adopting === null ? "no cell is being adopted" : "being adopted itself")
    : no("adoption", "adoption", refusal.text);
};

const health: Filter = (cell) =>
  cell.health === "healthy"
    ? yes("health", "healthy")
    : no("health", "health", `the cell is ${cell.health}: ${cell.healthReason}`);

const region: Filter = (cell, wanted) =>
  wanted.region === null || wanted.region === cell.region
    ? yes("region", wanted.region === null ? "any region will do" : `in ${cell.region}`)
    : no("region", "region", `in ${cell.region}, but ${wanted.region} is required`);

const tier: Filter = (cell, wanted) =>
  cell.tiers.length === 0 || cell.tiers.includes(wanted.tier)
    ? yes("tier", cell.tiers.length === 0 ? "takes all tiers" : `takes ${wanted.tier}`)
    : no("tier", "tier", `takes only ${cell.tiers.join(", ")}, and the tenant is ${wanted.tier}`);

const dedicated: Filter = (cell, wanted) =>
  !cell.dedicated || wanted.cell === cell.id
    ? yes("dedicated", cell.dedicated ? "dedicated, and named by the request" : "not dedicated")
    : no("dedicated", "dedicated", "dedicated: takes only tenants created with its name");

const tenants: Filter = (cell) =>
  cell.usage.tenants + 1 <= cell.capacity.tenants
    ? yes("tenants", `${cell.usage.tenants} of ${cell.capacity.tenants} tenants`)
    : no(
        "tenants",
        "capacity-tenants",
        `full: ${cell.usage.tenants} of ${cell.capacity.tenants} tenants`,
      );

const bytes: Filter = (cell, wanted) =>
  cell.usage.bytes + wanted.bytes <= cell.capacity.bytes
    ? yes(
        "bytes",
        `${cell.usage.bytes + wanted.bytes} of ${cell.capacity.bytes} bytes with the tenant`,
      )
    : no(
        "bytes",
        "capacity-bytes",
        `${cell.usage.bytes} of ${cell.capacity.bytes} bytes are taken; ${wanted.bytes} more do not fit`,
      );

const rps: Filter = (cell, wanted) =>
  cell.usage.rps + wanted.rps <= cell.capacity.rps
    ? yes(
        "rps",
        `${cell.usage.rps + wanted.rps} of ${cell.capacity.rps} requests/s with the tenant`,
      )
    : no(
        "rps",
        "capacity-rps",
        `${cell.usage.rps} of ${cell.capacity.rps} requests/s are taken; ${wanted.rps} more do not fit`,
      );

/** What a failover of a partner would bring must fit too, here and, of this cell's own, at its partners. */
const reserve: Filter = (cell, wanted) => {
  const { reserve: kept } = cell;
  if (kept === null) return yes("reserve", "it is nobody's partner");
  const amounts = { tenants: 1, bytes: wanted.bytes, rps: wanted.rps };
  // What takes nothing fits anywhere, also where there is too little room already.
  const short = resources.find(
    (resource) => amounts[resource] > 0 && freeBeside(cell, kept, resource) < amounts[resource],
  );
  return short === undefined
    ? yes("reserve", reserveText(cell, kept, "tenants"))
    : no("reserve", "reserve", reserveText(cell, kept, short));
};

/** Numbers of one resource, of the tightest place: this cell, or the partner that has the least room. */
function reserveText(cell: CellView, kept: Reserve, resource: Resource): string {
  const { [resource]: held } = kept.held;
  const used = cell.usage[resource];
  const room = kept.rooms.find(
    (one) => one.room[resource] / one.share - used <= freeBeside(cell, kept, resource),
  );
  const what = `${Math.round(held.amount)} ${units[resource]}`;
  const own = `${Math.ceil(used + kept.hosted[resource])} of ${cell.capacity[resource]} are used`;
  if (room !== undefined) {
    return `its partner ${room.host} has room for ${Math.floor(room.room[resource])} more ${units[resource]} and would take over ${percent(room.share)} of its ${Math.ceil(used)}`;
  }
  return held.amount === 0
    ? `nothing has to be kept free; ${own}`
    : `${what} are kept free for a failover of ${held.origin}; ${own}`;
}

const units = { tenants: "tenants", bytes: "bytes", rps: "requests/s" } as const;

/** Keeps one tenant from becoming its cell: a blast radius of one needs no cells. */
const share: Filter = (cell, wanted) => {
  const most = Math.max(
    wanted.bytes / Math.max(1, cell.capacity.bytes),
    wanted.rps / Math.max(1, cell.capacity.rps),
  );
  const limit = cell.capacity.maxTenantShare;
  return most <= limit
    ? yes("share", `${percent(most)} of the cell, at most ${percent(limit)} allowed`)
    : no(
        "share",
        "tenant-share",
        `${percent(most)} of the cell; one tenant may be ${percent(limit)}`,
      );
};

const percent = (share: number): string => `${Math.round(share * 1000) / 10}%`;

const filters: readonly Filter[] = [
  named,
  whole,
  state,
  adoption,
  health,
  region,
  tier,
  dedicated,
  tenants,
  bytes,
  rps,
  reserve,
  share,
];
/** Capacity alone: a container's tenants have no choice of cell, but they take room all the same. */
const roomFilters: readonly Filter[] = [tenants, bytes, rps, reserve, share];

export const decideAll = (cell: CellView, wanted: Candidate): readonly Decider[] =>
  filters.map((filter) => filter(cell, wanted));

export const decideRoom = (cell: CellView, wanted: Candidate): readonly Decider[] =>
  roomFilters.map((filter) => filter(cell, wanted));

export const firstNo = (deciders: readonly Decider[]): Decider | undefined =>
  deciders.find(({ decision }) => decision === "no");
