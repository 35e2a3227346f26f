/**
 * The safety rules in front of an operation: asked under the fleet's lock when it is planned. Whoever carries
 * it out asks again (promise 9). What a person goes past is written to the audit log by name.
 */

import { CellError } from "../../contract/errors.ts";
import type { RuleVerdict } from "../../contract/safety-api.ts";
import { refusalOf } from "../core/rules/refusal.ts";
import { judgeOperation, type Operation, weigh } from "../core/rules/rules.ts";
import { recordAudit } from "../store/audit.ts";
import { readRulesView } from "../store/safety.ts";
import type { Work } from "./mutation.ts";

/** Throws SAFETY_RULE, LEVER_ENGAGED, BUDGET_BURNT; VALIDATION_FAILED without a reason for an override. */
export async function requireSafe(
  work: Work,
  operation: Operation,
  override: readonly string[] = [],
): Promise<readonly RuleVerdict[]> {
  const verdicts = judgeOperation(await readRulesView(work.tx), operation);
  const { blocking, overridden } = weigh(verdicts, override);
  const [first] = blocking;
  if (first !== undefined) throw refusalOf(first, operation, verdicts);
  if (overridden.length > 0) await recordOverride(work, operation, overridden);
  return verdicts;
}

async function recordOverride(
  work: Work,
  operation: Operation,
  overridden: readonly RuleVerdict[],
): Promise<void> {
  if (work.reason === "") {
    throw new CellError("VALIDATION_FAILED", "Going past a safety rule needs a reason.", {
      nextSteps: ["repeat the command with --reason TEXT"],
    });
  }
  if (work.dryRun) return;
  await recordAudit(
    work.tx,
    {
      actor: work.actor,
      action: "safety.override",
      object: operation.cell ?? "fleet",
      reason: work.reason,
      outcome: "accepted",
      after: {
        operation: operation.kind,
        rules: overridden.map(({ rule, text }) => ({ rule, text })),
      },
    },
    work.nowMs,
  );
}
