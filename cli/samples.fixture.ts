/** For tests: one valid object of each kind, as the control API answers. Used by tests alone. */
import type { Cell, Op, Tenant } from "../contract/control-api.ts";
import { cellSchema, opSchema, tenantSchema } from "../contract/control-api.ts";
import { eventSchema, type FleetEvent } from "../contract/event-api.ts";
import { type Move, type MovePlan, movePlanSchema, moveSchema } from "../contract/move-api.ts";

export const createdAt = "2026-11-20T12:00:00.000Z";
/** Two days after `createdAt`. */
export const sampleNowMs = Date.parse("2026-11-22T12:00:00.000Z");

export const sampleCell = (id: string, more: Partial<Record<keyof Cell, unknown>> = {}): Cell =>
  cellSchema.parse({
    id,
    state: "active",
    goal: "active",
    health: "healthy",
    healthReason: "its agent reported 120 ms ago",
    region: "local",
    failureDomain: id,
    tiers: [],
    dedicated: false,
    provider: "local",
    capacity: { tenants: 500 },
    usage: { tenants: 412, bytes: 123_456_789, rps: 1900 },
    services: { default: { endpoints: ["http://127.0.0.1:9301"] } },
    stores: { main: { database: "file:secret", keyColumn: "tenant_id" } },
    release: "0.1.0",
    schemaVersion: "1",
    stage: "enforce",
    lease: { grant: 7, outstandingMs: 1_190_000 },
    agents: [{ instance: "a1", endpoint: "http://127.0.0.1:9301", primary: true, seenMs: 120 }],
    createdAt,
    ...more,
  });

export const sampleTenant = (
  id: string,
  more: Partial<Record<keyof Tenant, unknown>> = {},
): Tenant =>
  tenantSchema.parse({
    id,
    keyspace: "default",
    tier: "standard",
    region: null,
    size: { bytes: 0, rps: 0 },
    measured: { rows: 12, bytes: 4096, rps: 0.5 },
    labels: {},
    placement: {
      key: `default/tenant/${id}`,
      cell: "cell-01",
      epoch: 1,
      state: "active",
      revision: 42,
    },
    createdAt,
    ...more,
  });

export const sampleOp = (more: Partial<Record<keyof Op, unknown>> = {}): Op =>
  opSchema.parse({
    id: "op_0m4abcdefghij",
    kind: "cell.cordon",
    object: "cell-01",
    state: "running",
    step: "publish",
    headline: "waiting for 1 of 2 routers",
    attempt: 1,
    version: 3,
    revision: 43,
    steps: [{ step: "record", at: createdAt, text: "recorded" }],
    error: null,
    result: {},
    actor: "cli",
    reason: "",
    createdAt,
    updatedAt: createdAt,
    ...more,
  });

export const samplePlan = {
  kind: "cell.cordon",
  steps: [{ action: "cordon", object: "cell-01", text: "cell-01 takes no new tenants" }],
  skipped: [],
};

export const sampleEvent = (
  id: number,
  more: Partial<Record<keyof FleetEvent, unknown>> = {},
): FleetEvent =>
  eventSchema.parse({
    id,
    at: createdAt,
    kind: "cell.down",
    object: "cell-01",
    text: "cell-01 is down",
    ...more,
  });

export const sampleMovePlan = (more: Partial<Record<keyof MovePlan, unknown>> = {}): MovePlan =>
  movePlanSchema.parse({
    keyspace: "default",
    keys: ["default/tenant/acme"],
    source: "cell-01",
    target: "cell-02",
    stores: ["main"],
    tables: [{ store: "main", table: "public.orders", rows: 20_000, bytes: 50_000_000 }],
    checks: [
      {
        ...{ id: "placement", cell: "cell-02", store: "", verdict: "ok" },
        ...{ text: "takes them: room, region, tier", fix: "" },
      },
    ],
    estimate: { rows: 20_000, bytes: 50_000_000, copyMs: 900, pauseMs: 20 },
    steps: [{ step: "copying", text: "copy the rows as of one moment" }],
    ...more,
  });

export const sampleMove = (more: Partial<Record<keyof Move, unknown>> = {}): Move =>
  moveSchema.parse({
    id: "op_0m5abcdefghij",
    step: "copying",
    state: "running",
    headline: "copies the rows",
    attempt: 1,
    version: 4,
    paused: false,
    asked: null,
    keyspace: "default",
    keys: ["default/tenant/acme"],
    source: "cell-01",
    target: "cell-02",
    options: {},
    reverses: null,
    progress: {
      rowsTotal: 20_000,
      rowsCopied: 12_400,
      bytesTotal: 50_000_000,
      bytesCopied: 31_000_000,
      lagBytes: null,
      bytesPerSecond: 12_000_000,
      etaMs: 1600,
    },
    pause: null,
    tries: 0,
    verifications: [],
    soakUntil: null,
    plan: sampleMovePlan(),
    steps: [{ step: "planned", at: createdAt, text: "waits for its turn" }],
    error: null,
    reason: "",
    createdAt,
    updatedAt: createdAt,
    ...more,
  });

export const samplePause = {
  ...{ hold: 3, close: 8, fence: 4, drain: 2, commit: 5, activate: 3, release: 13 },
  total: 38,
};

export const sampleVerification = (equal: boolean) => ({
  phase: "before-switch" as const,
  at: createdAt,
  equal,
  tables: [
    {
      ...{ store: "main", table: "public.orders", sourceRows: 20_000 },
      ...{ targetRows: equal ? 20_000 : 19_999, sourceSum: "1", targetSum: equal ? "1" : "2" },
    },
  ],
});

export const sampleToken = (id: string, name: string) => ({
  id,
  name,
  role: "viewer",
  subject: null,
  createdAt,
  expiresAt: null,
});
