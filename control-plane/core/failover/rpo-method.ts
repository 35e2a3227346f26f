/**
 * How sure an RPO report is: `exact` when every router that can have acknowledged a write handed in a list
 * that reaches back far enough, else `bound` with the reason, and in seconds how far back a loss may lie.
 *
 * The argument, by clocks of one machine each: the cell's position only grows. A write that was acknowledged
 * with a position which the partner has, proves that the log passed the partner's position no earlier than
 * that acknowledgement was made; nothing that was acknowledged before it is lost. So the youngest such
 * write is a bound, and a router's list that begins before it is long enough. Where no write proves it
 * the newest heartbeat does, whose age the annex tells by its own clock.
 */
import type { RpoReport } from "../../../contract/failover-api.ts";
import { parsePlacementKey } from "../../../contract/placement-key.ts";
import type { Ring, RpoFacts, RpoKey, RpoPartner } from "./rpo-facts.ts";
import { doubtOf, parseLsn } from "./rpo-position.ts";

export type RpoEvidence = {
  readonly method: RpoReport["method"];
  readonly reason: string;
  /** Of one tenant, with when the first write was passed on that the report names; null: nobody can say. */
  readonly boundOf: (key: RpoKey | undefined, firstMs: number | undefined) => number | null;
  /** With method `bound`: keys that no named write belongs to, for nobody knows what was not handed in. */
  readonly otherTenants: (rows: RpoReport["tenants"]) => RpoReport["tenants"];
};

/** Between the answer of a cell, its arrival at a router, and ours of the router's clock. */
export const clockMarginMs = 1000;
/** Heartbeats come every 500 ms. */
const heartbeatEveryMs = 500;
export function evidenceOf(facts: RpoFacts): RpoEvidence {
  const since = sinceByPartner(facts);
  const reason = whyBound(facts, since);
  const cutMs = facts.fencedAtMs ?? facts.detectedAtMs;
  const secondsSince = (ms: number) => Math.max(0, Math.round((cutMs - ms) / 10) / 100);
  const partnerBound = (key: RpoKey | undefined): number | null => {
    const ms = since.get(key?.cell ?? "") ?? undefined;
    return ms === undefined ? null : secondsSince(ms);
  };
  return {
    method: reason === undefined ? "exact" : "bound",
    reason: reason ?? `every router that served ${facts.cell} handed in what it acknowledged`,
    boundOf: (key, firstMs) => {
      if (reason !== undefined) return partnerBound(key);
      return firstMs === undefined ? 0 : secondsSince(firstMs);
    },
    otherTenants: (rows) => {
      if (reason === undefined) return [];
      const named = new Set<string>(rows.map(({ key }) => key));
      return [...facts.keys.values()]
        .filter(({ key, fate }) => fate !== "unavailable" && !named.has(key))
        .map((one) => ({
          ...{ tenant: tenantOf(one.key), key: one.key, boundSeconds: partnerBound(one) },
          ...{ lost: [], unknown: [] },
        }));
    },
  };
}

/** Of a container every tenant is meant. */
function tenantOf(key: string): string {
  const parts = parsePlacementKey(key);
  return parts?.kind === "tenant" ? parts.tenant : "";
}

/** By our clock: nothing that was acknowledged before is lost on this partner; undefined: nobody knows. */
export const sinceByPartner = (facts: RpoFacts): ReadonlyMap<string, number | undefined> =>
  new Map(facts.partners.map((one) => [one.annex as string, sinceOf(facts, one)]));

function sinceOf(facts: RpoFacts, partner: RpoPartner): number | undefined {
  const { stores } = partner;
  const isKnown = stores.every(({ remoteLsn }) => parseLsn(remoteLsn) !== undefined);
  if (stores.length === 0 || !isKnown) return undefined;
  const latest = youngestApplied(facts, partner);
  if (latest !== undefined) return latest - clockMarginMs;
  const { heartbeatAtMs } = partner;
  if (heartbeatAtMs === null) return undefined;
  return heartbeatAtMs - heartbeatEveryMs - clockMarginMs;
}

/** Of the writes that the partner certainly has. After it was cut off the cell may have begun another life. */
function youngestApplied(
  { rings, fencedAtMs }: RpoFacts,
  { stores }: Pick<RpoPartner, "stores">,
): number | undefined {
  const untilMs = fencedAtMs ?? Number.POSITIVE_INFINITY;
  const times = rings.flatMap(({ entries, offsetMs }) =>
    entries.flatMap((write) => {
      const atMs = write.atMs + offsetMs;
      return atMs <= untilMs && doubtOf(write, stores) === undefined ? [atMs] : [];
    }),
  );
  return times.length === 0 ? undefined : times.reduce((a, b) => Math.max(a, b));
}

function whyBound(
  facts: RpoFacts,
  since: ReadonlyMap<string, number | undefined>,
): string | undefined {
  const handedIn = new Set(
    facts.rings.filter(({ isWhole }) => isWhole).map(({ router }) => router),
  );
  const silent = facts.routers.filter((router) => !handedIn.has(router));
  if (silent.length > 0) {
    return `${silent.join(", ")} served the fleet lately and did not hand in what it acknowledged`;
  }
  const inUse = facts.partners.filter(({ annex }) =>
    [...facts.keys.values()].some(({ cell }) => cell === annex),
  );
  for (const { annex } of inUse) {
    const from = since.get(annex);
    if (from === undefined) return `nobody knows when ${annex} had applied everything last`;
    const late = facts.rings.find(
      ({ isWhole, completeSinceMs, offsetMs }) => isWhole && completeSinceMs + offsetMs > from,
    );
    if (late !== undefined) {
      return `what ${late.router} acknowledged is listed only since ${ourTime(late)}, and ${annex} may lack writes since ${timeText(from)}`;
    }
  }
  return undefined;
}

const ourTime = ({ completeSinceMs, offsetMs }: Ring): string =>
  timeText(completeSinceMs + offsetMs);
const timeText = (ms: number): string => new Date(ms).toISOString();
