/** Where a request goes: the decision by the table in memory, repeated while its placement is held. */
import { CellError } from "../../contract/errors.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { Timer } from "../../runtime/clock.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import {
  decide,
  type Held,
  isHalted,
  type Placed,
  type RouteDecision,
  type RoutingView,
  refuseHalted,
  shownCell,
  type Wanted,
} from "./decide.ts";
import type { Handovers } from "./handovers.ts";
import type { Hold, HoldFull, HoldVerdict, Ticket } from "./hold.ts";
import type { News } from "./news.ts";

export type Placing = {
  readonly view: () => RoutingView | undefined;
  readonly hold: Hold;
  readonly handovers: Handovers;
  readonly news: Pick<News, "isAfter">;
  readonly metrics: RouterMetrics;
  readonly monotonicMs: () => number;
  /** Tells, a little later, that the table seems to be old. */
  readonly doubtLater: () => Timer;
  /** So long a refused request waits for a table that explains the refusal. */
  readonly staleMs: number;
};

/** Aborted when nobody waits any more. Asked for only where something waits, because a signal has its price. */
export type Leaving = { readonly signal: AbortSignal };

export type Placeable = {
  readonly wanted: Wanted;
  readonly record: RequestRecord;
  readonly gone: Leaving;
  /** Where no cell can, the router answers by its route's fallback. */
  readonly hasFallback: boolean;
  /** The memory that it may take while it waits. */
  readonly weigh: () => number;
};

/** Throws, or rejects with, what the table refuses, PLACEMENT_HELD, or `ClientGone`. A promise only where it waits. */
export function place(placing: Placing, request: Placeable): Placed | Promise<Placed> {
  const decision = decideNow(placing, request);
  if (decision.kind === "hold") return held(placing, request, decision);
  const { route } = decision;
  return route !== undefined && placing.hold.stateOf(route.key) === "draining"
    ? behindOthers(placing, request, route)
    : decision;
}

async function held(placing: Placing, request: Placeable, first: Held): Promise<Placed> {
  for (let { route, handover } = first; ; ) {
    const until = handover ? "handover" : "switch";
    const verdict = await waited(request, placing, () =>
      placing.hold.wait(route.key, ticketOf(placing, request), request.gone.signal, until),
    );
    if (verdict !== "released") {
      throw new CellError("PLACEMENT_HELD", heldMessages[verdict], {
        nextSteps: ["Send the request again after the time in Retry-After."],
      });
    }
    const decision = decideNow(placing, request);
    if (decision.kind !== "hold") return decision;
    ({ route, handover } = decision);
  }
}

/** Those who came before are on their way: not in front of them, and not refused for their sake. */
async function behindOthers(
  placing: Placing,
  request: Placeable,
  { key }: FoundRoute,
): Promise<Placed> {
  await waited(request, placing, () =>
    placing.hold.follow(key, ticketOf(placing, request), request.gone.signal),
  );
  const decision = decideNow(placing, request);
  return decision.kind === "hold" ? held(placing, request, decision) : decision;
}

function decideNow(placing: Placing, request: Placeable): Placed | Held {
  const { wanted, record } = request;
  const view = placing.view();
  const decision = unlessTooLong(placing, request, view, decide(view, wanted));
  record.revision = view?.table.revision;
  record.route = decision.route;
  record.cell = decision.kind === "proxy" ? decision.shown : shownOwner(view, decision.route);
  placing.metrics.resolves.inc({ via: decision.route?.via ?? "none" });
  if (decision.kind === "refuse") throw new CellError(decision.code, decision.message);
  return decision;
}

/** A takeover that lasts too long is waited for no more, and not at all by whom the router can answer itself. */
function unlessTooLong(
  { handovers }: Placing,
  { hasFallback }: Placeable,
  view: RoutingView | undefined,
  decision: RouteDecision,
): RouteDecision {
  if (decision.kind !== "hold" || !decision.handover || view === undefined) return decision;
  const { route } = decision;
  return hasFallback || handovers.isOver(route.cell) ? refuseHalted(view.table, route) : decision;
}

const shownOwner = (view: RoutingView | undefined, route: FoundRoute | undefined) =>
  view && route && shownCell(view.table, route.cell);

/** What a gate refused, and the revision by which it was sent there. */
export type RefusedRoute = { readonly route: FoundRoute; readonly revision: number };

/**
 * The gate refused a request that the table allowed: the table is old. Waits a little for news of this
 * placement, and through a hold if that is the news; otherwise PLACEMENT_UNAVAILABLE.
 */
export async function placeAnew(
  placing: Placing,
  request: Placeable,
  refused: RefusedRoute,
): Promise<Placed> {
  const { route } = refused;
  const isOver = () => isNews(placing, request.wanted, refused);
  if (!isOver()) {
    const deadlineMs = placing.monotonicMs() + placing.staleMs;
    const { signal } = request.gone;
    const doubting = placing.doubtLater();
    const verdict = await waited(request, placing, () =>
      placing.hold.listen(route.key, ticketOf(placing, request), deadlineMs, signal, isOver),
    ).finally(() => doubting.cancel());
    if (verdict !== "released") {
      throw new CellError(
        "PLACEMENT_UNAVAILABLE",
        `Cell ${route.cell} does not own the placement at epoch ${route.epoch}, and no newer table has come.`,
        { nextSteps: ["Send the request again."] },
      );
    }
  }
  return place(placing, request);
}

/** Does the table say something else, or has it said the same again? */
function isNews(
  { view, news }: Placing,
  wanted: Wanted,
  { route: { key, cell, epoch }, revision }: RefusedRoute,
): boolean {
  if (news.isAfter(key, revision)) return true;
  const current = view();
  // No newer word comes of the placement until another cell has taken it over.
  if (current !== undefined && isHalted(current.table, cell)) return true;
  const decision = decide(current, wanted);
  const now = decision.route;
  return now?.key !== key || now.cell !== cell || now.epoch !== epoch;
}

/** There is nobody left to answer. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

/** One request keeps its place in line, and its end, through all waits. */
function ticketOf({ hold }: Placing, { record, weigh }: Placeable): Ticket {
  record.ticket ??= hold.ticket(weigh());
  return record.ticket;
}

async function waited(
  { record }: Placeable,
  { monotonicMs, metrics }: Placing,
  wait: () => Promise<HoldVerdict>,
): Promise<Exclude<HoldVerdict, "client-gone">> {
  const startedMs = monotonicMs();
  const verdict = await wait();
  const tookMs = monotonicMs() - startedMs;
  record.holdMs += tookMs;
  metrics.held.observe(tookMs / 1000);
  if (verdict === "client-gone") throw new ClientGone();
  return verdict;
}

const roomless = "The placement is switching its owner, and too many requests wait";
const heldMessages: Readonly<Record<HoldFull | "timeout", string>> = {
  timeout: "The placement is switching its owner; the wait for it took too long.",
  "key-full": `${roomless} for it already.`,
  "key-bytes-full": `${roomless} for it already, by their size.`,
  "router-full": `${roomless} in this router.`,
  "router-bytes-full": `${roomless} in this router, by their size.`,
};
