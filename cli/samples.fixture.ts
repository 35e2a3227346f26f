/** For tests: one valid object of each kind, as the control API answers. Used by tests alone. */
import type { Cell, FleetEvent, Op, Tenant } from "../contract/control-api.ts";
import { cellSchema, eventSchema, opSchema, tenantSchema } from "../contract/control-api.ts";

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

export const sampleToken = (id: string, name: string) => ({
  id,
  name,
  role: "viewer",
  subject: null,
  createdAt,
  expiresAt: null,
});
