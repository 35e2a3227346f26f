/** One look at a rebalance that was applied: which of its moves are over, which may begin now. */
import { z } from "zod";
import { moveOptionsSchema } from "../../../contract/move-api.ts";
import { rebalanceMoveSchema } from "../../../contract/rebalance-api.ts";
import { newOpId } from "../../../runtime/random.ts";
import { areOf, counted } from "../../core/counted.ts";
import { add, noLoad } from "../../core/rebalance/load.ts";
import { type Batch, progressOf } from "../../core/rebalance/progress.ts";
import { standingsOf } from "../../store/balancing/read.ts";
import { changeBalancing } from "../../store/balancing/write.ts";
import { beginDeparture } from "../../store/emptying.ts";
import type { BalancingTurn } from "./balancer.ts";

const inputSchema = z.object({
  moves: z.array(rebalanceMoveSchema),
  parallelMax: z.number().int(),
  /** As it was found when it was recorded. */
  mends: z.boolean().optional(),
});
/** Moves of the plan that are over, from its beginning on: not looked at again. */
const resultSchema = z.object({ over: z.number().int().catch(0) }).catch({ over: 0 });

/** Looked at in one turn. */
const windowMax = 500;
const skippedShownMax = 50;
const actor = { name: "control-plane", role: "system" } as const;
/** Long enough to take a move back by hand, short enough for the next. */
const soakMs = 10_000;

export async function turnRebalance(turn: BalancingTurn): Promise<void> {
  const { database, op, who } = turn;
  const { moves, parallelMax, mends = false } = inputSchema.parse(op.input);
  const { over } = resultSchema.parse(op.result);
  const window = moves.slice(over, over + windowMax);
  const standings = await standingsOf(
    database.read,
    window.map(({ key }) => key),
    op.id,
  );
  const found = progressOf(window, standings, parallelMax);
  const isWindowOver = found.underWay === 0 && found.waiting === 0;
  if (isWindowOver && over + window.length >= moves.length) return finish(turn, moves.length);
  if (isWindowOver) {
    const headline = `${over + window.length} of ${counted(moves.length, "move")} ${areOf(moves.length)} over`;
    await changeBalancing(database, who, op, { headline, result: { over: over + window.length } });
    return;
  }
  const against = await turn.against({ kind: "rebalance.apply", mends });
  if (against !== undefined) {
    if (!op.headline.includes(against)) {
      await changeBalancing(database, who, op, { headline: `waits: ${against}` });
    }
    return;
  }
  for (const batch of found.begin) await begin(turn, batch);
  const headline = `${over + found.arrived + found.skipped.length} of ${counted(moves.length, "move")} ${areOf(moves.length)} over, ${counted(found.underWay, "key")} under way`;
  if (headline === op.headline) return;
  const skipped = found.skipped.slice(0, skippedShownMax);
  await changeBalancing(database, who, op, { headline, result: { skipped } });
}

/** Deciders are asked again in its transaction; what they refuse is tried again at the next look. */
async function begin({ database, clock, random, op, who }: BalancingTurn, batch: Batch) {
  const { from, to, keyspace, moves } = batch;
  const room = moves.reduce((sum, { load }) => add(sum, load), noLoad);
  const departure = { target: to, keyspace, keys: moves.map(({ key }) => key), room };
  await beginDeparture(database, {
    ...{ id: newOpId(random, clock.nowMs()), term: who.term, nowMs: who.nowMs, from, departure },
    options: moveOptionsSchema.parse({ switch: "auto", soakMs }),
    ...{ actor, reason: `${op.id}: rebalance` },
  });
}

async function finish({ database, op, who }: BalancingTurn, count: number): Promise<void> {
  const text =
    count === 1 ? "the one move of the plan is over" : `all ${count} moves of the plan are over`;
  await changeBalancing(database, who, op, {
    ...{ headline: text, end: "done", result: { over: count } },
    event: { kind: "rebalance.done", text },
  });
}
