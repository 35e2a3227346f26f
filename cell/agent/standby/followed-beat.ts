/**
 * A heartbeat of the origin that a physical standby has applied, against what else is known of the origin, and
 * what it presents (corrections A19). Pure.
 */
import type { OriginSeen, PromiseRequest } from "../../../contract/standby-api.ts";
import { parseLsn } from "../position.ts";

export type FollowedBeat = {
  /** How far the origin's log had come, in bytes. */
  readonly beat: number;
  /** The highest grant that it had seen. */
  readonly grant: number;
};

/** Who asks knows less than has arrived here: its database was set back. */
export function isBehind(
  { grant, lsn }: Pick<PromiseRequest, "grant" | "lsn">,
  latest: FollowedBeat | undefined,
): boolean {
  if (latest === undefined) return false;
  return grant < latest.grant || (parseLsn(lsn) ?? 0n) < BigInt(latest.beat);
}

export function latestOf(seen: OriginSeen, { beat, grant }: FollowedBeat): OriginSeen {
  const arrived = BigInt(beat);
  const isLater = arrived > (parseLsn(seen.lsn) ?? 0n);
  return {
    ...seen,
    grant: Math.max(seen.grant, grant),
    lsn: isLater ? lsnText(arrived) : seen.lsn,
  };
}

const lsnText = (bytes: bigint): string =>
  `${(bytes >> 32n).toString(16)}/${(bytes & 0xffff_ffffn).toString(16)}`.toUpperCase();
