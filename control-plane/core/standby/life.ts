/**
 * The life of one standby: what may follow what, and what follows now. The meaning of each state stands
 * in contract/standby-api.ts.
 *
 * What must always be true: `ready` is entered only when the origin has stored a list that names the
 * standby, `dropping` only when it has stored one that does not, or is no origin any more (corrections
 * A2). What a failover has taken (`adopting`, `adopted`) is only dropped when it owns nothing.
 */
import type { StandbyState } from "../../../contract/standby-api.ts";
import type { StandbyView } from "./standby-view.ts";

export const standbyTransitions: Readonly<Record<StandbyState, readonly StandbyState[]>> = {
  planned: ["building", "leaving", "dropping"],
  // To adopted at once: a failover that this control plane does not remember gave it keys.
  building: ["syncing", "announcing", "broken", "leaving", "adopted"],
  syncing: ["building", "announcing", "broken", "leaving", "adopted"],
  announcing: ["ready", "broken", "leaving", "adopting", "adopted"],
  ready: ["announcing", "broken", "leaving", "adopting", "adopted"],
  broken: ["building", "syncing", "announcing", "leaving", "adopting", "adopted"],
  leaving: ["dropping", "adopted"],
  dropping: ["gone", "adopted"],
  // Back, when the failover was called off before anything was severed.
  adopting: ["adopted", "announcing", "broken", "leaving"],
  adopted: ["dropping"],
  gone: [],
};

export const mayFollow = (from: StandbyState, to: StandbyState): boolean =>
  standbyTransitions[from].includes(to);

/** What was seen of its stream just now (standby/ports.ts); `unseen`: nobody could look, and why. */
export type StreamSeen =
  | {
      readonly kind: "seen";
      readonly phase: "absent" | "copying" | "streaming" | "stopped" | "severed";
      readonly reason: string;
      readonly uncovered: readonly string[];
    }
  | { readonly kind: "unseen"; readonly reason: string };

export type StandbyFacts = {
  /** The cell that it is the standby of. `gone`: it left the fleet, or a failover took it from service. */
  readonly origin: "there" | "gone";
  /** The partner list that the origin has stored. */
  readonly acked: number;
  readonly stream: StreamSeen;
  /** Open moves from or to the annex. */
  readonly moves: number;
  /** A failover of the origin has not come to re-protection yet. */
  readonly failingOver: boolean;
};

export type LifeTurn =
  | { readonly kind: "stay"; readonly reason: string }
  | { readonly kind: "go"; readonly to: StandbyState; readonly reason: string };

const stay = (reason: string): LifeTurn => ({ kind: "stay", reason });
const go = (to: StandbyState, reason: string): LifeTurn => ({ kind: "go", to, reason });

export function nextOfStandby(one: StandbyView, facts: StandbyFacts): LifeTurn {
  // As recovery finds it after the control plane was set back. What it owns is there once: it must neither
  // be copied anew nor removed.
  if (one.keys > 0 && one.state !== "adopted" && mayFollow(one.state, "adopted")) {
    if (one.state !== "adopting") return go("adopted", "it owns keys");
  }
  switch (one.state) {
    case "building":
    case "syncing":
      return whileBuilt(one, facts.stream);
    case "announcing":
      return brokenBy(facts.stream) ?? whileAnnounced(one, facts);
    case "ready":
      return brokenBy(facts.stream) ?? whileReady(one, facts);
    case "broken":
      return whileBroken(one, facts.stream);
    case "leaving":
      return whileLeaving(one, facts);
    case "adopted":
      return whileAdopted(one, facts);
    default:
      return stay(one.reason);
  }
}

function whileBuilt(one: StandbyView, stream: StreamSeen): LifeTurn {
  if (stream.kind === "unseen") return stay(stream.reason);
  const inStep = inStepOf(stream);
  if (inStep !== undefined) return inStep;
  if (stream.phase === "copying") {
    return one.state === "syncing" ? stay("") : go("syncing", "its rows are being copied");
  }
  if (stream.phase === "streaming") return stay(uncoveredText(stream.uncovered));
  if (stream.phase === "absent") return stay(one.reason);
  return go("broken", stream.reason);
}

const inStepOf = (stream: StreamSeen): LifeTurn | undefined =>
  stream.kind === "seen" && stream.phase === "streaming" && stream.uncovered.length === 0
    ? go("announcing", "in step; its origin is told of it")
    : undefined;

const uncoveredText = (uncovered: readonly string[]): string =>
  uncovered.length === 0
    ? ""
    : `tables that are guarded at the origin and not in the stream: ${uncovered.slice(0, 5).join(", ")}`;

const unseenText = (stream: StreamSeen): string => (stream.kind === "unseen" ? stream.reason : "");

/** A look that failed says nothing about the stream: its two databases are other people's witnesses. */
function brokenBy(stream: StreamSeen): LifeTurn | undefined {
  if (stream.kind === "unseen") return undefined;
  if (stream.uncovered.length > 0) return go("broken", uncoveredText(stream.uncovered));
  if (stream.phase === "streaming") return undefined;
  const reason = stream.reason === "" ? `its stream is ${stream.phase}` : stream.reason;
  return go("broken", reason);
}

function whileAnnounced(one: StandbyView, { acked }: StandbyFacts): LifeTurn {
  const listedAt = one.listedAt ?? Number.POSITIVE_INFINITY;
  return acked >= listedAt
    ? go("ready", "")
    : stay(`waits until ${one.origin} has stored the partner list ${listedAt}; it has ${acked}`);
}

/** Another list was stored since: this control plane, or the origin's database, was set back. */
function whileReady(one: StandbyView, { acked, stream }: StandbyFacts): LifeTurn {
  const listedAt = one.listedAt ?? Number.POSITIVE_INFINITY;
  return acked < listedAt
    ? go("announcing", `${one.origin} has stored another partner list: ${acked}`)
    : stay(unseenText(stream));
}

function whileBroken(one: StandbyView, stream: StreamSeen): LifeTurn {
  // Rule R4: a stream that was cut is never joined again.
  if (stream.kind === "seen" && stream.phase === "severed") {
    return go("leaving", "its stream was cut, and nobody took its keys over");
  }
  if (stream.kind === "seen" && stream.phase === "copying") {
    return go("syncing", "its rows are being copied");
  }
  return inStepOf(stream) ?? stay(one.reason);
}

function whileLeaving(one: StandbyView, { origin, acked }: StandbyFacts): LifeTurn {
  if (origin === "gone") return go("dropping", `${one.origin} is no origin any more`);
  if (one.listedAt === null) return go("dropping", "no partner list ever named it");
  const unlistedAt = one.unlistedAt ?? Number.POSITIVE_INFINITY;
  return acked >= unlistedAt
    ? go("dropping", one.reason)
    : stay(`waits until ${one.origin} has stored the partner list ${unlistedAt}; it has ${acked}`);
}

function whileAdopted(one: StandbyView, { moves, failingOver }: StandbyFacts): LifeTurn {
  if (failingOver || one.keys > 0 || moves > 0) return stay(one.reason);
  return go("dropping", "its keys have moved into whole cells");
}
