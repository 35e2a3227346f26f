/**
 * What standby partners know of a cell's database, against what a database says that was started anew
 * (corrections A14, A19). While the control plane was away the cell gave itself leases: its partners have
 * seen them, and how far its log had come, and this control plane has not. So a database that asks for a
 * lease after a start that is not known here is weighed by their word first.
 *
 * What must always be true: a database that knows less than any partner has ever told gets no lease; a
 * partner that vouched for this very start while the control plane was away is not asked again; and a
 * partner that says nothing holds a cell up for a bounded time only. Pure.
 */
import type { IncarnationVerdict, PresentedIncarnation } from "./incarnation.ts";

export type PartnerWord = {
  readonly annex: string;
  /** It was told after this start of the database had asked for its first lease here. */
  readonly isFresh: boolean;
  /** Its host is not out of service for good. */
  readonly isAwaited: boolean;
  /** As it was promised to last; empty: nothing was ever promised. */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** ISO 8601; null: it was never asked for a promise. */
  readonly boot: string | null;
  readonly grant: number;
  /** Bytes of the log. */
  readonly lsn: bigint;
};

export type PresentedPosition = PresentedIncarnation & {
  /** Null: an agent of an earlier release does not say. */
  readonly lsn: bigint | null;
};

/** Where one partner has spoken, the others are waited for so long; where none has, longer. */
export const wordPatienceMs = { some: 2000, none: 10_000 } as const;

export function weighWords(
  presented: PresentedPosition,
  words: readonly PartnerWord[],
  waitedMs: number,
): IncarnationVerdict {
  for (const word of words) {
    const objection = objectionOf(presented, word);
    if (objection !== undefined) return objection;
  }
  const silent = words.filter((word) => !hasSpoken(presented, word));
  const awaited = silent.filter(({ isAwaited }) => isAwaited);
  const patienceMs = silent.length < words.length ? wordPatienceMs.some : wordPatienceMs.none;
  if (awaited.length === 0 || waitedMs >= patienceMs) return { kind: "ok" };
  const names = awaited.map(({ annex }) => annex).join(", ");
  return {
    kind: "wait",
    text: `its database was started at ${presented.boot}; waiting until ${names} says how far it had come before`,
  };
}

const hasVouched = ({ boot }: PresentedIncarnation, word: PartnerWord): boolean =>
  word.boot !== null && Date.parse(word.boot) === Date.parse(boot);

const hasSpoken = (presented: PresentedIncarnation, word: PartnerWord): boolean =>
  word.isFresh || hasVouched(presented, word);

function objectionOf(
  presented: PresentedPosition,
  word: PartnerWord,
): IncarnationVerdict | undefined {
  // It was compared when the partner promised, and what came since is its own.
  if (hasVouched(presented, word)) return undefined;
  const { annex, systemIdentifier, timeline, boot, grant, lsn } = word;
  if (systemIdentifier !== "" && systemIdentifier !== presented.systemIdentifier) {
    return suspect(
      "OTHER_DATABASE",
      `${annex} has followed system identifier ${systemIdentifier}, not ${presented.systemIdentifier}`,
    );
  }
  if (timeline > presented.timeline) {
    return older(annex, `timeline ${presented.timeline} is older than ${timeline}`);
  }
  if (grant > presented.grant) {
    return older(annex, `lease grant ${presented.grant} is older than ${grant}`);
  }
  if (presented.lsn !== null && lsn > presented.lsn) {
    return older(annex, `its log ends ${lsn - presented.lsn} bytes before what was sent from it`);
  }
  if (boot !== null && Date.parse(boot) > Date.parse(presented.boot)) {
    return suspect(
      "TWO_INCARNATIONS",
      `a server started at ${presented.boot} answers, but ${annex} has vouched for one started later (${boot})`,
    );
  }
  return undefined;
}

const older = (annex: string, text: string): IncarnationVerdict =>
  suspect("TIME_TRAVEL", `${text}, as ${annex} has seen: the database was restored or cloned`);

const suspect = (
  reason: (IncarnationVerdict & { kind: "suspect" })["reason"],
  text: string,
): IncarnationVerdict => ({ kind: "suspect", reason, text });
