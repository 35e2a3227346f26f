/**
 * The order rule of cellfleet.apply_ownership (cell/sql/060-ownership.sql), once more: a command takes
 * effect if it is greater than what is there, by epoch, then operation and attempt, then how far the state
 * has come. `ownership-order.pg.test.ts` holds the two together.
 */
import type { OwnershipState } from "../contract/cell-protocol.ts";

export type OwnershipCommand = {
  readonly state: OwnershipState;
  readonly epoch: number;
  readonly op: string;
  readonly attempt: number;
};

const ranked: readonly OwnershipState[] = ["importing", "active", "fenced", "moved", "dropped"];
const stateRank = (state: OwnershipState): number => ranked.indexOf(state);

export function takesEffect(
  wanted: OwnershipCommand,
  there: OwnershipCommand | undefined,
): boolean {
  if (there === undefined) return true;
  if (wanted.epoch !== there.epoch) return wanted.epoch > there.epoch;
  if (wanted.op !== there.op) return wanted.op > there.op;
  if (wanted.attempt !== there.attempt) return wanted.attempt > there.attempt;
  return stateRank(wanted.state) > stateRank(there.state);
}
