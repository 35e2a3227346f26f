/**
 * The safety rules before a switch: what was allowed when a move was recorded may not be any more (promise 9).
 * A move that takes another one back, or brings keys out of an annex or a failed-over cell, is a repair: no lever stops it.
 */
import { isAnnexId } from "../../../contract/annex.ts";
import { judgeOperation, weigh } from "../../core/rules/rules.ts";
import { isFailedOver } from "../../store/failover/stranded.ts";
import { findOp } from "../../store/ops.ts";
import { overridesOf, readRulesView } from "../../store/safety.ts";
import type { StepContext } from "./world.ts";

/** What stands against the switch now, in words; undefined: nothing. */
export async function standsAgainst({ world, view }: StepContext): Promise<string | undefined> {
  if (view.reverses !== null || isAnnexId(view.source)) return undefined;
  if (await isFailedOver(world.database.read, view.source)) return undefined;
  const rules = await world.database.snapshot(readRulesView);
  const operation = { kind: "move.start", id: view.id } as const;
  const input = (await findOp(world.database.read, view.id))?.input;
  const [first] = weigh(judgeOperation(rules, operation), overridesOf(asRecord(input))).blocking;
  return first?.text;
}

const asRecord = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? { ...value } : {};
