/** Fleets in plain values, for tests of decisions. */

import type { AgentView, CellView, FleetSnapshot, OpView, RouterView, StageView } from "./fleet.ts";
import { nothingClosed } from "./fleet.ts";
import { timedView } from "./lease-mode.ts";

export const aCell = (id: string, change: Partial<CellView> = {}): CellView => ({
  id,
  state: "active",
  goal: "active",
  health: "healthy",
  healthReason: "agent, application and database answer",
  region: "local",
  failureDomain: id,
  tiers: [],
  dedicated: false,
  provider: "local",
  capacity: { tenants: 100, bytes: 1_000_000, rps: 1000, maxTenantShare: 0.5 },
  usage: { tenants: 0, bytes: 0, rps: 0 },
  leaseUntilMs: 2_000_000,
  leaseMode: timedView,
  appliedRevision: 0,
  agents: [anAgent(`${id}-agent`)],
  stage: aStage(),
  adopting: null,
  annex: null,
  revoking: false,
  reserve: null,
  ...change,
});

export const aStage = (change: Partial<StageView> = {}): StageView => ({
  adopted: false,
  now: "enforce",
  sinceMs: 0,
  goal: "enforce",
  applied: "enforce",
  isCurrent: true,
  guardedTables: 0,
  unclassed: { count: 0, names: [] },
  wouldRefuse: {},
  refusedAtMs: 0,
  ...change,
});

export const anAgent = (instance: string, change: Partial<AgentView> = {}): AgentView => ({
  instance,
  endpoint: "http://127.0.0.1:9301",
  primary: true,
  appReachable: true,
  databaseReachable: true,
  seenAtMs: 1_000_000,
  ...change,
});

export const aRouter = (id: string, revision: number, seenAtMs = 1_000_000): RouterView => ({
  id,
  revision,
  seenAtMs,
  refusedAtMs: 0,
});

export const anOp = (kind: string, step: string, change: Partial<OpView> = {}): OpView => ({
  id: "op_0000000001",
  kind,
  object: "cell-01",
  state: "running",
  step,
  headline: "",
  attempt: 0,
  version: 1,
  revision: null,
  deadlineAtMs: null,
  updatedAtMs: 0,
  input: {},
  provider: null,
  ...change,
});

export const aFleet = (change: Partial<FleetSnapshot> = {}): FleetSnapshot => ({
  nowMs: 1_000_000,
  listeningSinceMs: 0,
  revision: 10,
  mode: "normal",
  auditEntries: 0,
  cells: [],
  routers: [],
  ops: [],
  pending: new Map(),
  holdings: new Map(),
  closed: nothingClosed,
  placements: new Map(),
  purges: new Map(),
  ...change,
});
