/** Where a request goes: the decision by the table in memory, repeated while its placement is held. */
import { CellError } from "../../contract/errors.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import {
  decide,
  type Placed,
  type RouteDecision,
  type RoutingView,
  type Wanted,
} from "./decide.ts";
import type { Hold, HoldVerdict } from "./hold.ts";

export type Placing = {
  readonly view: () => RoutingView | undefined;
  readonly hold: Hold;
  readonly metrics: RouterMetrics;
  readonly monotonicMs: () => number;
};

/** Aborted when nobody waits any more. Asked for only where something waits, because a signal has its price. */
export type Leaving = { readonly signal: AbortSignal };

/** Throws, or rejects with, what the table refuses, PLACEMENT_HELD, or `ClientGone`. A promise only where it waits. */
export function place(
  placing: Placing,
  wanted: Wanted,
  record: RequestRecord,
  gone: Leaving,
): Placed | Promise<Placed> {
  const decision = decideNow(placing, wanted, record);
  return decision.kind === "proxy" ? decision : held(placing, wanted, record, gone, decision);
}

async function held(
  placing: Placing,
  wanted: Wanted,
  record: RequestRecord,
  gone: Leaving,
  first: Held,
): Promise<Placed> {
  const deadlineMs = placing.hold.deadline();
  let decision: Placed | Held = first;
  while (decision.kind === "hold") {
    await wait(placing, decision.route.key, deadlineMs, record, gone.signal);
    decision = decideNow(placing, wanted, record);
  }
  return decision;
}

type Held = RouteDecision & { readonly kind: "hold" };

function decideNow(placing: Placing, wanted: Wanted, record: RequestRecord): Placed | Held {
  const view = placing.view();
  const decision = decide(view, wanted);
  record.revision = view?.table.revision;
  record.route = decision.route;
  record.cell = decision.kind === "proxy" ? decision.cell : decision.route?.cell;
  placing.metrics.resolves.inc({ via: decision.route?.via ?? "none" });
  if (decision.kind === "refuse") throw new CellError(decision.code, decision.message);
  return decision;
}

/**
 * The gate refused a request that the table allowed: the table is old. Waits a little for a newer one
 * that says something else of this placement; otherwise PLACEMENT_UNAVAILABLE.
 */
export async function placeAnew(
  placing: Placing,
  wanted: Wanted,
  before: FoundRoute,
  staleMs: number,
  record: RequestRecord,
  gone: Leaving,
): Promise<Placed> {
  const deadlineMs = placing.monotonicMs() + staleMs;
  for (;;) {
    const next = await place(placing, wanted, record, gone);
    const { route } = next;
    if (route === undefined) return next;
    if (route.cell !== before.cell || route.epoch !== before.epoch) return next;
    const startedMs = placing.monotonicMs();
    const verdict = await placing.hold.wait(route.key, deadlineMs, gone.signal);
    record.holdMs += placing.monotonicMs() - startedMs;
    if (verdict === "client-gone") throw new ClientGone();
    if (verdict !== "released") {
      throw new CellError(
        "PLACEMENT_UNAVAILABLE",
        `Cell ${route.cell} does not own the placement at epoch ${route.epoch}, and no newer table has come.`,
        { nextSteps: ["Send the request again."] },
      );
    }
  }
}

/** There is nobody left to answer. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

async function wait(
  placing: Placing,
  key: PlacementKey,
  deadlineMs: number,
  record: RequestRecord,
  signal: AbortSignal,
): Promise<void> {
  const startedMs = placing.monotonicMs();
  const verdict = await placing.hold.wait(key, deadlineMs, signal);
  record.holdMs += placing.monotonicMs() - startedMs;
  if (verdict === "released") return;
  if (verdict === "client-gone") throw new ClientGone();
  throw new CellError("PLACEMENT_HELD", heldMessages[verdict], {
    nextSteps: ["Send the request again after the time in Retry-After."],
  });
}

const heldMessages: Readonly<Record<Exclude<HoldVerdict, "released" | "client-gone">, string>> = {
  timeout: "The placement is switching its owner; the wait for it took too long.",
  "key-full": "The placement is switching its owner, and too many requests wait for it already.",
  "router-full": "The placement is switching its owner, and too many requests wait in this router.",
};
