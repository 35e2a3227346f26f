/**
 * The real decisions of gate and router, asked with the model's small world: one tenant, cells `cell-0` to
 * `cell-2`, a lease counted in ticks.
 */
import {
  decideAdmission,
  decideConfirmation,
  type GateRequest,
  type GateView,
} from "../cell/agent/gate-decision.ts";
import type { OwnershipState } from "../contract/cell-protocol.ts";
import { headers } from "../contract/headers.ts";
import {
  type CellId,
  type Epoch,
  parseCellId,
  parseEpoch,
  parseKeyspaceName,
  parseTenantId,
} from "../contract/ids.ts";
import type { FoundRoute } from "../contract/keyspace-routes.ts";
import { tenantKey } from "../contract/placement-key.ts";
import { confirmAnswer } from "../router/answer/confirm.ts";
import { must } from "../runtime/assert.ts";

const tenant = must(parseTenantId("acme"), "a tenant");
const keyspace = must(parseKeyspaceName("default"), "a keyspace");
const key = tenantKey(keyspace, tenant);
const cellIds: readonly CellId[] = [0, 1, 2].map((n) => must(parseCellId(`cell-${n}`), "a cell"));
const idOf = (cell: number): CellId => must(cellIds[cell], "one of three cells");
const epochOf = (epoch: number): Epoch => must(parseEpoch(epoch), "an epoch");

export type AgentView = {
  /** What the agent remembers of the key; it may lag behind the database. */
  readonly known: { readonly state: OwnershipState; readonly epoch: number } | undefined;
  readonly closed: boolean;
  readonly leaseLeft: number;
};

const viewOf = (cell: number, { known, closed, leaseLeft }: AgentView): GateView => ({
  cell: idOf(cell),
  stage: "enforce",
  leaseRemainingMs: leaseLeft,
  fresh: true,
  placement: (wanted) => (wanted === key ? known : undefined),
  closed: () => closed,
});

const requestOf = (cell: number, epoch: number): GateRequest => ({
  tenant,
  keyspace,
  key,
  epoch: epochOf(epoch),
  cell: idOf(cell),
  nonce: "n",
});

export const admits = (cell: number, epoch: number, view: AgentView): boolean =>
  decideAdmission(requestOf(cell, epoch), viewOf(cell, view)).kind === "admitted";

/** The value of `x-cellfleet-confirm`, or undefined: the gate does not stand by the answer. */
export function confirmation(cell: number, epoch: number, view: AgentView): string | undefined {
  const again = decideConfirmation(requestOf(cell, epoch), viewOf(cell, view));
  return again.kind === "confirmed" ? again.header : undefined;
}

type ModelRoute = { readonly cell: number; readonly epoch: number };
const routeOf = ({ cell, epoch }: ModelRoute): FoundRoute => ({
  cell: idOf(cell),
  epoch: epochOf(epoch),
  state: "active",
  key,
  via: "tenant",
});

/** Rule R2 as the router asks it: `sent` under one route, `now` under perhaps another. */
export const delivers = (header: string | undefined, sent: ModelRoute, now: ModelRoute): boolean =>
  confirmAnswer(
    header === undefined ? [] : [headers.confirm, header],
    200,
    routeOf(sent),
    { route: routeOf(now), halted: false },
    // Its leases are counted in ticks, and when they end is the model's own matter.
    { sentMs: 0, nowMs: Number.NEGATIVE_INFINITY },
  ) === "confirmed";
