/**
 * What the executor of drains and rebalances writes: notes on the way, and the end with the state that the cell
 * has from then on. Each under the leader's term and a compare-and-set on the operation's version.
 */
import { and, eq } from "drizzle-orm";
import type { CellState, OpState } from "../../../contract/control-api.ts";
import type { Failure } from "../../core/ops/machine.ts";
import { Abandoned } from "../abandoned.ts";
import type { Database, Tx } from "../database.ts";
import { recordEvents } from "../events.ts";
import { holdsTerm } from "../leader.ts";
import { changeOp, type OpRow } from "../ops.ts";
import { cell } from "../schema.ts";

type Who = { readonly term: number; readonly nowMs: number };

export type BalancingChange = {
  readonly headline: string;
  readonly result?: Readonly<Record<string, unknown>>;
  /** With it the operation ends. */
  readonly end?: Extract<OpState, "done" | "failed" | "cancelled">;
  readonly failure?: Failure;
  /** Of a cell that is being drained. */
  readonly cellBecomes?: CellState;
  readonly event?: { readonly kind: string; readonly text: string };
};

/** False: somebody else acted on it; look again. */
export async function changeBalancing(
  database: Database,
  who: Who,
  seen: Pick<OpRow, "id" | "version" | "step" | "object">,
  change: BalancingChange,
): Promise<boolean> {
  try {
    await database.transaction((tx) => write(tx, who, seen, change));
    return true;
  } catch (error) {
    if (error instanceof Abandoned) return false;
    throw error;
  }
}

async function write(
  tx: Tx,
  who: Who,
  seen: Pick<OpRow, "id" | "version" | "step" | "object">,
  change: BalancingChange,
): Promise<void> {
  if (!(await holdsTerm(tx, who.term))) throw new Abandoned("deposed");
  const { headline, result, end, failure, cellBecomes, event } = change;
  const isWritten = await changeOp(
    tx,
    seen,
    {
      headline,
      ...(result === undefined ? {} : { result }),
      ...(end === undefined ? {} : { step: end, state: end }),
      ...(failure === undefined ? {} : { failure }),
    },
    who.nowMs,
  );
  if (!isWritten) throw new Abandoned("raced");
  if (cellBecomes !== undefined) await leaveDraining(tx, seen.object, cellBecomes);
  if (event !== undefined) await recordEvents(tx, [{ ...event, object: seen.object }]);
}

/** Whoever took the cell over meanwhile (a failover) has the last word. */
export const leaveDraining = (tx: Tx, id: string, state: CellState): Promise<unknown> =>
  tx
    .update(cell)
    .set({ state, goal: state })
    .where(and(eq(cell.id, id), eq(cell.state, "draining")));
