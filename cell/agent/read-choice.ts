/**
 * Which instances may answer a request, and does its answer carry a position? Reads of routes of class
 * `read` go to a replica that is fresh enough and has what this session wrote; everything else, and
 * every read without proof, goes to the primary.
 */
import type { IncomingMessage } from "node:http";
import type { CellId } from "../../contract/ids.ts";
import type { Counter } from "../../runtime/metrics.ts";
import type { Entered } from "./entry.ts";
import { readPosition } from "./position.ts";
import { type ReplicaVerdict, replicaVerdicts } from "./replica-lag.ts";
import type { ReplicaWatch } from "./replica-watch.ts";
import { type Instance, onPrimary, type Upstreams } from "./upstreams.ts";

export type ReadPlan = {
  /** Tried in this order; each is asked again for every attempt. */
  readonly preferences: readonly ((instance: Instance) => boolean)[];
  /** The answer tells the session how far it has come. */
  readonly givesPosition: boolean;
};

export type ReadChoiceOptions = {
  readonly cell: CellId;
  readonly upstreams: Upstreams;
  /** Undefined: no service has replicas. */
  readonly watch: Pick<ReplicaWatch, "judge"> | undefined;
  readonly reads: Counter;
};

const primaryReasons = ["no-proof", "behind-session", "lag", "silent"] as const;
/** Every choice there is, for the metric. */
export const readChoices = [
  { to: "replica", reason: "fits" },
  ...primaryReasons.map((reason) => ({ to: "primary", reason })),
];

const toPrimary: ReadPlan = { preferences: [onPrimary], givesPosition: false };
const safeMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);

export function planRead(
  options: ReadChoiceOptions,
  entry: Entered,
  req: IncomingMessage,
): ReadPlan {
  const { watch, upstreams, cell, reads } = options;
  const method = req.method ?? "GET";
  if (watch === undefined || !upstreams.hasReplicas(entry.service)) return toPrimary;
  if (!safeMethods.has(method)) return { ...toPrimary, givesPosition: true };
  if (entry.routeClass !== "read" || (method !== "GET" && method !== "HEAD")) return toPrimary;
  const position = readPosition(req.rawHeaders, cell);
  if (position.kind === "unproved") {
    reads.inc({ to: "primary", reason: "no-proof" });
    // The next read of this session brings back a position of this cell.
    return { ...toPrimary, givesPosition: true };
  }
  const sessionLsn = position.kind === "at" ? position.lsn : 0n;
  const fits = ({ replica }: Instance) =>
    replica !== undefined && watch.judge(replica, sessionLsn) === "fits";
  const verdicts = upstreams
    .all()
    .flatMap(({ service, replica }) =>
      service === entry.service && replica !== undefined ? [watch.judge(replica, sessionLsn)] : [],
    );
  const best = bestOf(verdicts);
  reads.inc({ to: best === "fits" ? "replica" : "primary", reason: best });
  return best === "fits" ? { preferences: [fits, onPrimary], givesPosition: false } : toPrimary;
}

/** The one that came closest to being used. */
const bestOf = (verdicts: readonly ReplicaVerdict[]): ReplicaVerdict =>
  replicaVerdicts.find((verdict) => verdicts.includes(verdict)) ?? "silent";
