/**
 * May a replica answer this read? Pure arithmetic over two series of readings.
 *
 * A replica that has replayed up to R has everything that was written before any moment at which the
 * primary was read to stand at R or below. So its answer is at most as old as the newest such moment:
 * no clock of another machine is asked, and a primary or a replica that falls silent ages by itself.
 */
export const replicaVerdicts = ["fits", "behind-session", "lag", "silent"] as const;
export type ReplicaVerdict = (typeof replicaVerdicts)[number];

/** A replica that was not heard of for so long is not used, whatever lag is allowed. */
export const silentMs = 2000;
const samplesMax = 256;

type Sample = { readonly lsn: bigint; readonly atMonoMs: number };

export class PrimaryLog {
  #samples: Sample[] = [];

  /** `askedMonoMs` is from before the reading was sent. */
  add(lsn: bigint, askedMonoMs: number): void {
    const last = this.#samples.at(-1);
    // A log that went back is another one: nothing known of the first holds for it.
    if (last !== undefined && lsn < last.lsn) this.#samples = [];
    // While nothing is written the newest moment alone counts.
    if (last?.lsn === lsn) this.#samples.pop();
    this.#samples.push({ lsn, atMonoMs: askedMonoMs });
    if (this.#samples.length > samplesMax) this.#samples.shift();
  }

  /** Everything written before it is in what was replayed up to `lsn`. */
  completeUntil(lsn: bigint): number {
    return (
      this.#samples.findLast((sample) => sample.lsn <= lsn)?.atMonoMs ?? Number.NEGATIVE_INFINITY
    );
  }
}

export function judgeReplica(known: {
  readonly primary: PrimaryLog;
  /** Undefined: never heard of, or not a replica of this cell's database. */
  readonly replayed: { readonly lsn: bigint; readonly heardMonoMs: number } | undefined;
  readonly sessionLsn: bigint;
  readonly nowMonoMs: number;
  readonly lagMsMax: number;
}): ReplicaVerdict {
  const { primary, replayed, sessionLsn, nowMonoMs, lagMsMax } = known;
  if (replayed === undefined || nowMonoMs - replayed.heardMonoMs > silentMs) return "silent";
  if (replayed.lsn < sessionLsn) return "behind-session";
  return nowMonoMs - primary.completeUntil(replayed.lsn) > lagMsMax ? "lag" : "fits";
}
