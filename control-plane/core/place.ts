/**
 * Choose a cell for a tenant: filters first, then the lowest dominant utilisation after placement, ties
 * by rendezvous hash of the tenant. Deterministic: the same fleet and tenant give the same cell, on
 * every control plane. The load of a snapshot must include what was reserved before (influence).
 */

import { type Candidate, type Decider, decideAll, firstNo } from "./filters.ts";
import type { CellView } from "./fleet.ts";
import { checkAdoption } from "./safety.ts";

export type Scored = {
  readonly cell: string;
  readonly decision: "yes" | "no";
  /** Dominant utilisation with the tenant in it, 0 to 1 and above; lower is better. */
  readonly score: number;
  readonly deciders: readonly Decider[];
};

export type PlaceResult =
  | {
      readonly kind: "place";
      readonly cell: string;
      readonly text: string;
      readonly candidates: readonly Scored[];
    }
  | { readonly kind: "blocked"; readonly text: string; readonly candidates: readonly Scored[] };

/** Candidates come best first: those that may take the tenant, by score, then the others by name. */
export function placeTenant(cells: readonly CellView[], wanted: Candidate): PlaceResult {
  const candidates = cells
    .filter(({ state, annex }) => state !== "retired" && annex === null)
    .map((cell) => scoreCell(cell, wanted))
    .sort((a, b) => compareScored(a, b, wanted.tenant));
  const best = candidates[0];
  if (best?.decision !== "yes") {
    return { kind: "blocked", text: blockedText(candidates), candidates };
  }
  const others = candidates.filter(({ decision }) => decision === "yes").length - 1;
  const text = `${best.cell}: ${percent(best.score)} of its tightest resource is used with the tenant in it${others > 0 ? `, the least of ${others + 1} cells that may take it` : ""}.`;
  return { kind: "place", cell: best.cell, text, candidates };
}

function scoreCell(cell: CellView, wanted: Candidate): Scored {
  const deciders = decideAll(cell, wanted);
  return {
    cell: cell.id,
    decision: firstNo(deciders) === undefined ? "yes" : "no",
    score: dominantUtilisation(cell, wanted),
    deciders,
  };
}

/** A capacity of zero is full from the first byte on. */
export function dominantUtilisation(cell: CellView, wanted: Candidate): number {
  const { capacity, usage } = cell;
  const parts = [
    [usage.tenants + 1, capacity.tenants],
    [usage.bytes + wanted.bytes, capacity.bytes],
    [usage.rps + wanted.rps, capacity.rps],
  ] as const;
  const shares = parts.map(([used, all]) => (used === 0 ? 0 : used / Math.max(all, 1e-9)));
  return Math.max(...shares);
}

function compareScored(a: Scored, b: Scored, tenant: string): number {
  if (a.decision !== b.decision) return a.decision === "yes" ? -1 : 1;
  if (a.decision === "no") return a.cell < b.cell ? -1 : 1;
  if (a.score !== b.score) return a.score - b.score;
  const byHash = rendezvous(b.cell, tenant) - rendezvous(a.cell, tenant);
  return byHash === 0 ? (a.cell < b.cell ? -1 : 1) : byHash;
}

/** FNV-1a, finished by murmur's mixer: spreads ties; protects nothing. */
export function rendezvous(cell: string, tenant: string): number {
  let hash = 0x811c9dc5;
  for (const character of `${cell}\n${tenant}`) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function blockedText(candidates: readonly Scored[]): string {
  if (candidates.length === 0) return "There is no cell yet.";
  const reasons = candidates.map(
    ({ cell, deciders }) => `${cell}: ${firstNo(deciders)?.text ?? "no reason"}`,
  );
  const shown = reasons.slice(0, reasonsShownMax);
  const more = reasons.length - shown.length;
  return `No cell may take the tenant. ${shown.join("; ")}${more > 0 ? `; and ${more} more` : ""}.`;
}

const reasonsShownMax = 5;
const percent = (share: number): string => `${Math.round(share * 1000) / 10}%`;

/**
 * Spreads a keyspace's containers over the cells that may take them, in proportion to how many tenants
 * each is made for. Containers carry no load yet, so only state, health and dedication count.
 */
export function spreadContainers(
  cells: readonly CellView[],
  keys: readonly string[],
): ReadonlyMap<string, string> | undefined {
  const open = cells
    .filter((cell) => cell.annex === null && cell.state === "active")
    .filter((cell) => cell.health === "healthy" && !cell.dedicated)
    .filter((cell) => checkAdoption(cell) === undefined)
    .map((cell) => ({ id: cell.id, weight: Math.max(1, cell.capacity.tenants), taken: 0 }));
  if (open.length === 0) return undefined;
  const spread = new Map<string, string>();
  for (const key of keys) {
    let best = open[0];
    for (const one of open) {
      if (best === undefined || lighter(one, best, key)) best = one;
    }
    if (best === undefined) return undefined;
    best.taken += 1;
    spread.set(key, best.id);
  }
  return spread;
}

type Bin = { readonly id: string; readonly weight: number; readonly taken: number };

function lighter(one: Bin, best: Bin, key: string): boolean {
  const difference = (one.taken + 1) / one.weight - (best.taken + 1) / best.weight;
  return difference === 0 ? rendezvous(one.id, key) > rendezvous(best.id, key) : difference < 0;
}
