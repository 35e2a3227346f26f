/** One look at a drain: what the cell still owns, what may leave now, and whether it is over. */
import { z } from "zod";
import { drainCellSchema } from "../../../contract/drain-api.ts";
import { areOf, counted } from "../../core/counted.ts";
import { emptyingLimits } from "../../core/emptying.ts";
import { changeBalancing } from "../../store/balancing/write.ts";
import { cellIds, readCell } from "../../store/fleet-store.ts";
import { emptyCell, stopEmptying } from "../emptying/emptying.ts";
import type { BalancingTurn } from "./balancer.ts";

const { percent, to, parallelMax } = drainCellSchema.shape;
const inputSchema = z.object({
  ...{ percent, to, parallelMax },
  /** The state that it was in. */
  from: z.enum(["active", "cordoned", "draining"]).catch("cordoned"),
});

export async function turnDrain(turn: BalancingTurn): Promise<void> {
  const { database, op, who } = turn;
  const cell = await readCell(database.read, op.object);
  if (cell?.state !== "draining") return endAs(turn, `${op.object} is ${cell?.state ?? "gone"}`);
  if (op.deadlineAt !== null && op.deadlineAt.getTime() <= who.nowMs) return giveUp(turn);
  const against = await turn.against({ kind: "cell.drain", cell: op.object });
  if (against !== undefined) return note(turn, `waits: ${against}`);
  const input = inputSchema.parse(op.input);
  const found = await emptyCell(turn, {
    ...{ from: op.object, op: op.id, term: who.term, percent: input.percent },
    reason: `${op.id}: drain of ${op.object}`,
    ...(input.to === undefined ? {} : { exclude: await allBut(turn, input.to) }),
    limits: { ...emptyingLimits, inFlight: input.parallelMax },
  });
  if (found.left === 0 && found.underWay === 0) return finish(turn, input);
  const moving = found.underWay === 0 ? "" : `, ${counted(found.underWay, "move")} under way`;
  const obstacle = found.obstacle === "" ? "" : `; ${found.obstacle}`;
  return note(turn, `${counted(found.left, "key")} left${moving}${obstacle}`, { left: found.left });
}

/** A failover took it, or somebody retired it: whoever did that has the last word. */
async function endAs({ database, op, who }: BalancingTurn, what: string): Promise<void> {
  const headline = `${what}: the drain ends here`;
  const failure = {
    code: "STATE_CONFLICT",
    message: headline,
    nextSteps: steps(op.object),
  } as const;
  await changeBalancing(database, who, op, { headline, end: "failed", failure });
}

/** A cell that gave a share away is what it was; one that is empty takes nobody in until a person says so. */
async function finish(
  { database, op, who }: BalancingTurn,
  asked: z.output<typeof inputSchema>,
): Promise<void> {
  const { percent: share, from } = asked;
  const becomes = share === 100 || from === "draining" ? "cordoned" : from;
  const text =
    share === 100
      ? `${op.object} is empty and cordoned`
      : `${share} % of the keys of ${op.object} have left; it is ${becomes}`;
  await changeBalancing(database, who, op, {
    ...{ headline: text, end: "done", cellBecomes: becomes, result: { left: 0 } },
    event: { kind: "cell.drained", text },
  });
}

const allBut = async ({ database }: BalancingTurn, cell: string): Promise<string[]> =>
  (await cellIds(database.read)).filter((id) => id !== cell);

async function giveUp(turn: BalancingTurn): Promise<void> {
  const { database, op, who } = turn;
  const ended = await stopEmptying(turn, op.object, op.id);
  const message = `${op.object} was not empty in time: ${op.headline}. ${counted(ended, "move")} ${areOf(ended)} called off; what has left stays where it is.`;
  await changeBalancing(database, who, op, {
    ...{ headline: message, end: "failed", cellBecomes: "cordoned" },
    failure: { code: "OP_FAILED", message, nextSteps: steps(op.object) },
  });
}

const steps = (cell: string): readonly string[] => [
  `cellctl cell get ${cell}`,
  `cellctl cell drain ${cell}`,
];

/** What is waited for is told when it changes. */
async function note(
  { database, op, who }: BalancingTurn,
  headline: string,
  result: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  if (headline !== op.headline) await changeBalancing(database, who, op, { headline, result });
}
