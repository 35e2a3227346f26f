/**
 * Power of two choices: of two endpoints drawn by chance the one with fewer requests in flight. Close
 * to the best choice at the cost of looking at two, and no herd runs to the endpoint that was idle a
 * moment ago. An endpoint that just refused connections is passed over while another is there.
 */
import type { Random } from "../../runtime/random.ts";

export type Candidate = {
  readonly url: string;
  readonly inFlight: number;
  /** It refused a connection so recently that trying it first is a waste. */
  readonly suspect: boolean;
};

/** `avoid`: the endpoint of the attempt before. Undefined only if there are no candidates. */
export function choose<C extends Candidate>(
  candidates: readonly C[],
  random: Random,
  avoid: string | undefined,
): C | undefined {
  const others = candidates.filter(({ url }) => url !== avoid);
  const wanted = others.length > 0 ? others : candidates;
  const sound = wanted.filter(({ suspect }) => !suspect);
  // When all are suspect, all are tried: a guess must never close a cell.
  const pool = sound.length > 0 ? sound : wanted;
  const one = pick(pool, random);
  const two = pick(pool, random);
  if (one === undefined || two === undefined) return one;
  return two.inFlight < one.inFlight ? two : one;
}

const pick = <C>(pool: readonly C[], random: Random): C | undefined =>
  pool[Math.floor(random.unit() * pool.length)];
