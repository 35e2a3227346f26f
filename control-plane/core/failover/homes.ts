/**
 * Which annex has a whole copy of a key that may be used, or why none has.
 *
 * What must always be true: nothing is guessed. A key whose rows may not be whole in the annex of its
 * bucket is unavailable, with the reason and the way out.
 */
import { bucketOf, parsePlacementKey } from "../../../contract/placement-key.ts";
import type { KeyspaceView } from "../fleet.ts";
import type { AnnexFact } from "./phases.ts";

export type AnnexRange = { readonly annex: string; readonly lo: number; readonly hi: number };

/** A move that brought the key here and is not over yet. */
export type MovedIn = {
  readonly move: string;
  readonly source: string;
  /** By the control plane's clock, when routers were told of this owner. */
  readonly switchedAtMs: number;
};

export type HomeFacts = {
  readonly cell: string;
  readonly keyspaces: ReadonlyMap<string, KeyspaceView>;
  readonly ranges: readonly AnnexRange[];
  readonly facts: Readonly<Record<string, AnnexFact>>;
  readonly movedIn: ReadonlyMap<string, MovedIn>;
  /** When the streams were cut, by the control plane's clock. */
  readonly severedAtMs: number;
};

export type Home = { readonly annex: string | null; readonly reason: string };

/** Clocks of cells and control plane may differ by so much. */
export const clockSlackMs = 5000;

const nowhere = (reason: string): Home => ({ annex: null, reason });

export function homeOf(key: string, about: HomeFacts): Home {
  const { cell, ranges, facts } = about;
  const parts = parsePlacementKey(key);
  const keyspace = parts === undefined ? undefined : about.keyspaces.get(parts.keyspace);
  if (parts === undefined || keyspace === undefined) return nowhere(`its keyspace is not known`);
  const { strategy, slotCount } = keyspace;
  const bucket = bucketOf(parts, { strategy, slotCount: slotCount ?? undefined });
  const own = ranges.filter(({ lo, hi }) => lo <= bucket && bucket <= hi);
  if (own.length === 0) {
    return nowhere(
      `no partner of ${cell} has a standby of its bucket ${bucket}: the only copy is that of ${cell}, or of its backups`,
    );
  }
  const fit = own.find(({ annex }) => (facts[annex]?.status ?? "left-out") !== "left-out");
  if (fit === undefined) {
    const reasons = own.map(({ annex }) => `${annex}: ${facts[annex]?.reason ?? "not in step"}`);
    return nowhere(
      `${reasons.join("; ")}. Until that is back (then: cellctl failover start ${cell}) the only copy is that of ${cell}, or of its backups`,
    );
  }
  return isWhole(key, fit.annex, about) ?? { annex: fit.annex, reason: "" };
}

/** Undefined: the stream has certainly passed the moment at which the key was brought here. */
function isWhole(key: string, annex: string, about: HomeFacts): Home | undefined {
  const moved = about.movedIn.get(key);
  if (moved === undefined) return undefined;
  const age = about.facts[annex]?.severed?.heartbeatAgeMs ?? null;
  const heardAtMs = age === null ? Number.NEGATIVE_INFINITY : about.severedAtMs - age;
  if (heardAtMs > moved.switchedAtMs + clockSlackMs) return undefined;
  return nowhere(
    `the move ${moved.move} had just brought it from ${moved.source}, and nothing shows that ${annex} has all of it; ${moved.source} has its rows as they were before the switch: cellctl move show ${moved.move}`,
  );
}
