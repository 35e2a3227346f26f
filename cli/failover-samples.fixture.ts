/** For tests of `cellctl failover`: valid objects as the control API answers. Used by tests alone. */
import {
  type Failover,
  type FailoverPlan,
  failoverPlanSchema,
  failoverSchema,
  rpoReportSchema,
} from "../contract/failover-api.ts";
import { createdAt, sampleOp } from "./samples.fixture.ts";

export const failoverId = "op_0m6abcdefghij";

export const sampleFailoverPlan = (
  more: Partial<Record<keyof FailoverPlan, unknown>> = {},
): FailoverPlan =>
  failoverPlanSchema.parse({
    ...{ cell: "cell-01", mode: "unplanned", waitMs: 3200 },
    witnesses: [
      { class: "control-plane", says: "gone", text: "4 probes missed" },
      { class: "routers", says: "unknown", text: "no router has had requests for it lately" },
      { class: "partners", says: "gone", text: "cell-02, cell-03 hear nothing of it" },
    ],
    gates: [
      { name: "witnesses", verdict: "pass", text: "2 of 3 say gone", overridable: false },
      { name: "lag", verdict: "pass", text: "cell-02 was 400 bytes behind", overridable: false },
    ],
    partners: [
      {
        ...{ annex: "sb-cell-01-cell-02", host: "cell-02", state: "ready", keys: 7 },
        ...{ lagBytes: 400, lagSeconds: 0.3 },
      },
      {
        ...{ annex: "sb-cell-01-cell-03", host: "cell-03", state: "ready", keys: 9 },
        ...{ lagBytes: null, lagSeconds: 0.4 },
      },
    ],
    unavailable: { keys: 0, reason: "" },
    steps: [{ step: "revoking", text: "no lease for cell-01 any more" }],
    ...more,
  });

export const closedGate = {
  ...{ name: "lag", verdict: "block", overridable: true },
  text: "cell-02 was 9000000 bytes behind",
} as const;

export const sampleFailover = (
  step: Failover["step"],
  more: Partial<Record<keyof Failover, unknown>> & { readonly version?: number } = {},
): Failover => {
  const { version = 1, ...rest } = more;
  return failoverSchema.parse({
    ...{ id: failoverId, cell: "cell-01", mode: "unplanned", by: "auto", step },
    headline: `it is ${step}`,
    op: sampleOp({
      ...{ id: failoverId, kind: "cell.failover", object: "cell-01", step, version },
      steps: [{ step: "confirmed", at: createdAt, text: "16 keys to adopt" }],
    }),
    plan: sampleFailoverPlan(),
    phases: { revoking: 3100, adopting: 240 },
    progress: { keys: 16, adopted: 12, routed: 12, unavailable: 0, quarantined: 0, reprotected: 0 },
    report: null,
    ...rest,
  });
};

export const sampleReport = rpoReportSchema.parse({
  ...{ failover: failoverId, cell: "cell-01", detectedAt: createdAt, fencedAt: createdAt },
  ...{ method: "exact", methodReason: "2 of 2 routers handed in all they acknowledged" },
  partners: [],
  totals: {
    ...{ keys: 16, adopted: 16, unavailable: 0, quarantined: 0 },
    ...{ acked: 900, lost: 1, unknown: 0, found: 2 },
  },
  tenants: [
    {
      ...{ tenant: "acme", key: "default/tenant/acme", boundSeconds: 0.4, unknown: [] },
      lost: [
        {
          ...{ key: "default/tenant/acme", tenant: "acme", epoch: 3, method: "POST" },
          ...{ path: "/orders", status: 201, requestId: "req-17", atMs: Date.parse(createdAt) },
          because: "its position is behind the partner's",
        },
      ],
    },
  ],
  ...{ unavailable: [], quarantined: [] },
});
