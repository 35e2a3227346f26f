/**
 * Which database speaks for a cell, and may it be granted a lease (corrections A14): clones and
 * point-in-time restores carry the cell's name and token too. One incarnation holds the lease at a
 * time; one that knows an older grant than was seen before has travelled in time.
 *
 * One strange call proves nothing, since a call can be delayed behind a newer one: the verdict is
 * `suspect`, no lease is granted, and only when the same agent says it again is the cell quarantined.
 */
export type KnownIncarnation = {
  /** Empty: no lease was ever granted. */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** ISO 8601, as PostgreSQL said it. */
  readonly boot: string;
  readonly bootInstance: string;
  readonly grantSeen: number;
};

export type PresentedIncarnation = {
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly boot: string;
  readonly grant: number;
  readonly instance: string;
};

export const incarnationReasons = ["TIME_TRAVEL", "OTHER_DATABASE", "TWO_INCARNATIONS"] as const;
export type IncarnationReason = (typeof incarnationReasons)[number];

export type IncarnationVerdict =
  | { readonly kind: "ok" }
  /** The one before may still be alive: ask again in a moment. */
  | { readonly kind: "wait"; readonly text: string }
  | { readonly kind: "suspect"; readonly reason: IncarnationReason; readonly text: string };

export function judgeIncarnation(
  known: KnownIncarnation,
  presented: PresentedIncarnation,
  /** The agent that spoke for the previous incarnation has a call open at this moment. */
  isPreviousCalling: boolean,
): IncarnationVerdict {
  if (known.systemIdentifier === "") return { kind: "ok" };
  if (presented.systemIdentifier !== known.systemIdentifier) {
    return suspect(
      "OTHER_DATABASE",
      `system identifier ${presented.systemIdentifier} instead of ${known.systemIdentifier}: another server answers for this cell`,
    );
  }
  if (presented.timeline < known.timeline) {
    return suspect(
      "TIME_TRAVEL",
      `timeline ${presented.timeline} is older than ${known.timeline}: the database was restored or cloned`,
    );
  }
  if (presented.grant < known.grantSeen) {
    return suspect(
      "TIME_TRAVEL",
      `lease grant ${presented.grant} is older than ${known.grantSeen}, which this cell has presented before: the database was restored or cloned`,
    );
  }
  if (known.boot === "" || presented.boot === known.boot) return { kind: "ok" };
  if (Date.parse(presented.boot) < Date.parse(known.boot)) {
    return suspect(
      "TWO_INCARNATIONS",
      `a server started at ${presented.boot} answers, but one started later (${known.boot}) holds the lease`,
    );
  }
  // The same agent reports the restart of its own database, or the one before it has gone.
  if (presented.instance === known.bootInstance || !isPreviousCalling) return { kind: "ok" };
  return {
    kind: "wait",
    text: `agent ${known.bootInstance} still speaks for the server started at ${known.boot}`,
  };
}

const suspect = (reason: IncarnationReason, text: string): IncarnationVerdict => ({
  kind: "suspect",
  reason,
  text,
});
