/**
 * Which endpoint of a service takes a request. Power of two choices: of two drawn by chance the one with
 * fewer requests in flight. Close to the best choice at the cost of looking at two, and no herd runs to
 * the endpoint that was idle a moment ago.
 *
 * Those that are out (by breaker or probe) are passed over as long as at least half of those that can be
 * reached are left; with fewer, all of them are used: a guess must never close a cell, nor push all
 * of its load on what is left. Where nothing listens at all, nobody is sent but a trial.
 */
import type { Random } from "../../runtime/random.ts";

/**
 * `suspect`: it refused a connection a moment ago. `out`: passed over, perhaps wrongly. `dead`: nothing
 * listens there.
 */
export const standings = ["usable", "suspect", "out", "dead"] as const;
export type Standing = (typeof standings)[number];

export type Candidate = {
  readonly url: string;
  readonly inFlight: number;
  readonly standing: Standing;
  /** Its time out is over: the next request shows whether it is well. */
  readonly trialDue: boolean;
  /** The same, where there is nobody else to go to. */
  readonly lastResort: boolean;
};

export type Choice<C> = { readonly candidate: C; readonly trial: boolean };

/** `avoid`: the endpoint of the attempt before. Undefined: to try any is to fail. */
export function choose<C extends Candidate>(
  candidates: readonly C[],
  random: Random,
  avoid: string | undefined,
): Choice<C> | undefined {
  const others = candidates.filter(({ url }) => url !== avoid);
  const wanted = others.length > 0 ? others : candidates;
  const due = wanted.find(({ trialDue }) => trialDue);
  if (due !== undefined) return { candidate: due, trial: true };
  const pool = poolOf(wanted);
  const one = draw(pool, random);
  const two = draw(pool, random);
  if (one === undefined || two === undefined) {
    const last = wanted.find(({ lastResort }) => lastResort);
    return last && { candidate: last, trial: true };
  }
  return { candidate: two.inFlight < one.inFlight ? two : one, trial: false };
}

function poolOf<C extends Candidate>(wanted: readonly C[]): readonly C[] {
  const reachable = wanted.filter(({ standing }) => standing !== "dead");
  const kept = reachable.filter(({ standing }) => standing !== "out");
  const used = kept.length * 2 >= reachable.length ? kept : reachable;
  const trusted = used.filter(({ standing }) => standing !== "suspect");
  return trusted.length > 0 ? trusted : used;
}

const draw = <C>(pool: readonly C[], random: Random): C | undefined =>
  pool[Math.floor(random.unit() * pool.length)];
