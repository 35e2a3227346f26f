/**
 * Carries out drains and rebalances: the leader looks at each open one again and again and begins the moves
 * that may be begun; the executor of moves does the rest. Nothing is remembered between two looks, so this
 * process may be killed between any two lines and another one goes on.
 */

import { CellError } from "../../../contract/errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import type { Operation } from "../../core/rules/rules.ts";
import { drainKind, openBalancings } from "../../store/balancing/read.ts";
import { type Database, databaseNowMs } from "../../store/database.ts";
import type { OpRow } from "../../store/ops.ts";
import { overridesOf, requireStillSafe } from "../../store/safety.ts";
import type { Leadership } from "../lead.ts";
import { turnDrain } from "./drain.ts";
import { turnRebalance } from "./rebalance.ts";

export type BalancingOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly onError: (error: unknown) => void;
};

export type BalancingTurn = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly op: OpRow;
  readonly who: { readonly term: number; readonly nowMs: number };
  /** A rule that stands against it now, in words; undefined: it may go on. */
  readonly against: (operation: Operation) => Promise<string | undefined>;
};

const intervalMs = 500;
const backoffMaxMs = 5000;

export function startBalancing(options: BalancingOptions): Loop {
  const { database, clock, random, lead } = options;
  return startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs, onError: options.onError },
    turn: async () => {
      const term = lead.term();
      if (term === undefined) return "idle";
      const open = await openBalancings(database.read);
      // One that cannot go on must not keep the others from it.
      for (const op of open) await lookAt(options, op, term).catch(options.onError);
      return "idle";
    },
  });
}

async function lookAt(options: BalancingOptions, op: OpRow, term: number): Promise<void> {
  const { database, clock, random } = options;
  const who = { term, nowMs: await databaseNowMs(database.read) };
  const against = (operation: Operation) => standsAgainst(database, op, operation);
  const turn = { database, clock, random, op, who, against };
  await (op.kind === drainKind ? turnDrain(turn) : turnRebalance(turn));
}

/** What was allowed when it was recorded may not be any more (promise 9): then it waits, and says why. */
async function standsAgainst(
  database: Database,
  op: OpRow,
  operation: Operation,
): Promise<string | undefined> {
  const input = typeof op.input === "object" && op.input !== null ? { ...op.input } : {};
  try {
    await database.snapshot((tx) =>
      requireStillSafe(tx, { ...operation, id: op.id }, overridesOf(input)),
    );
    return undefined;
  } catch (error) {
    if (error instanceof CellError) return error.message;
    throw error;
  }
}
