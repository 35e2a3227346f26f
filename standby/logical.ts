/**
 * Standbys by logical replication: a database per origin beside each partner's own, rows split by bucket.
 */
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { StandbyProvider } from "./ports.ts";

export type LogicalOptions = {
  readonly clock: Clock;
  /** How long `ensure` waits for transactions of others, without which no slot can be made. Default 2 minutes. */
  readonly slotWaitMsMax?: number;
};

export function createLogicalStandby(_options: LogicalOptions): StandbyProvider {
  const notYet = async (): Promise<never> => {
    throw new CellError("OP_FAILED", "The logical provider of standbys is being built");
  };
  return {
    ensure: notYet,
    status: notYet,
    refresh: notYet,
    sever: notYet,
    activate: notYet,
    salvage: notYet,
    drop: notYet,
    close: async () => {},
  };
}
