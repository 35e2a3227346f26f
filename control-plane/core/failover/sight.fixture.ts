/** Cells as witnesses see them, in plain values, for tests of decisions. */

import { aCell } from "../fleet.fixture.ts";
import type { Verdict } from "./detect.ts";
import type { GateFacts, PartnerFacts } from "./gates.ts";
import type { CellSight } from "./witness.ts";

type Change = {
  readonly [K in keyof CellSight]?: CellSight[K] extends readonly unknown[] | string | number
    ? CellSight[K]
    : Partial<CellSight[K]>;
};

/** Alive, and seen so by all. */
export const aSight = (change: Change = {}): CellSight => ({
  cell: change.cell ?? "cell-01",
  watchedMs: change.watchedMs ?? 60_000,
  probes: { misses: 0, missingForMs: null, failure: "", ...change.probes },
  agent: {
    ...{ silentMs: 300, appReachable: true, databaseLostForMs: null, leaseLeftMs: 3500 },
    ...change.agent,
  },
  routers: change.routers ?? [{ router: "router-1", ageMs: 500, requests: 100, failures: 0 }],
  partners: change.partners ?? [
    { host: "cell-02", ageMs: 300, sees: "alive" },
    { host: "cell-03", ageMs: 300, sees: "alive" },
  ],
});

/** Dead, and seen so by all. */
export const aDeath = (change: Change = {}): CellSight =>
  aSight({
    probes: { misses: 4, missingForMs: 1600, failure: "ECONNREFUSED" },
    agent: { silentMs: 2100 },
    routers: [{ router: "router-1", ageMs: 400, requests: 20, failures: 20 }],
    partners: [
      { host: "cell-02", ageMs: 200, sees: "silent" },
      { host: "cell-03", ageMs: 200, sees: "silent" },
    ],
    ...change,
  });

export const aPartner = (host: string, change: Partial<PartnerFacts> = {}): PartnerFacts => ({
  ...{ annex: `sb-cell-01-${host}`, host, state: "ready", keys: 10 },
  buckets: { lo: 0, hi: 127 },
  ...{ lagBytes: 100, lagSeconds: 0.5, unfit: undefined },
  room: { tenants: 20, bytes: 2000 },
  capacity: { tenants: 100, bytes: 1_000_000 },
  ...change,
});

export const confirmedGone = (cell: string): Verdict => ({
  ...{ cell, state: "gone", text: "gone by 3 of 3 witnesses", forMs: 900 },
  episode: { forMs: 2400, goneForMs: 1500 },
  witnesses: [
    { class: "control-plane", says: "gone", text: "4 probes missed" },
    { class: "routers", says: "gone", text: "20 of 20 requests failed" },
    { class: "partners", says: "gone", text: "cell-02 hears nothing of it" },
  ],
});

export const wellSeen = (cell: string): Verdict => ({
  ...{ cell, state: "healthy", text: "its gate answers", forMs: 60_000 },
  episode: null,
  witnesses: [
    { class: "control-plane", says: "alive", text: "its gate answers" },
    { class: "routers", says: "unknown", text: "no requests" },
    { class: "partners", says: "alive", text: "cell-02 hears from it" },
  ],
});

const fleet = ["cell-01", "cell-02", "cell-03", "cell-04"];

/** cell-01 of four is dead, and everything is ready for that. */
export const gateFacts = (change: Partial<GateFacts> = {}): GateFacts => ({
  ...{ mode: "unplanned", automatic: true },
  cell: aCell("cell-01", { health: "down", usage: { tenants: 20, bytes: 2000, rps: 0 } }),
  cells: fleet.map((id) => aCell(id)),
  fleetMode: { name: "normal", reason: "" },
  verdicts: [confirmedGone("cell-01"), ...fleet.slice(1).map(wellSeen)],
  partners: [aPartner("cell-02"), aPartner("cell-03")],
  keys: { all: 20, unavailable: 0 },
  ...{ open: [], lastAutomaticMs: null, intended: new Map(), busy: undefined },
  leaseLeftMs: 2000,
  provedDead: false,
  refusals: [],
  ...change,
});
