/** What the rules say against an operation, as the error that ends it. Pure. */
import { CellError } from "../../../contract/errors.ts";
import type { RuleVerdict } from "../../../contract/safety-api.ts";
import type { Operation } from "./rules.ts";

export function refusalOf(
  first: RuleVerdict,
  operation: Operation,
  verdicts: readonly RuleVerdict[],
): CellError {
  const { kind, cell } = operation;
  const what = cell === undefined ? kind : `${kind} of ${cell}`;
  // Whoever may not go past it should not have to try.
  const word = first.overridable ? "" : ", which nobody may go past";
  const past = first.overridable
    ? [`repeat the command with --override ${first.rule} --reason TEXT   (it is recorded)`]
    : [];
  return new CellError(
    first.code,
    `${what} is refused by the rule ${first.rule}${word}: ${first.text}.`,
    {
      nextSteps: [...waysOut(first), ...mending(first, operation), ...past],
      details: { rule: first.rule, verdicts },
    },
  );
}

/** Nothing is so uneven: what is left of such a plan ends broken rules, and empties cells that drain. */
const mending = ({ rule }: RuleVerdict, { kind, mends }: Operation): readonly string[] =>
  kind === "rebalance.apply" && mends !== true && (rule === "budget" || rule === "wait")
    ? [
        "cellctl rebalance plan --start-above 1 -O repairs.json   (repairs alone: they need not wait)",
      ]
    : [];

function waysOut({ code, rule }: RuleVerdict): readonly string[] {
  if (code === "BUDGET_BURNT") return ["cellctl slo ls"];
  if (rule === "switch") return ["cellctl lever switches"];
  if (rule === "healthy-cells" || rule === "open-cells") {
    return ["cellctl cell ls", "cellctl lever limits --help"];
  }
  return code === "LEVER_ENGAGED"
    ? ["cellctl lever status", "cellctl lever release --reason TEXT"]
    : ["cellctl lever status"];
}
