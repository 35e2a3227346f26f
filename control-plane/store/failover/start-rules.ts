/**
 * What rules that others keep say of a failover: the one place where they come in beside its own gates. A
 * takeover of a dead cell is a repair, so most rules of the fleet do not hold it up; what they say here is
 * shown in the plan, and checked again when it begins.
 */
import { and, inArray, ne } from "drizzle-orm";
import type { FailoverGate } from "../../../contract/failover-api.ts";
import type { FailoverMode } from "../../core/failover/gates.ts";
import { judgeOperation } from "../../core/rules/rules.ts";
import type { Reader } from "../database.ts";
import { readRulesView } from "../safety.ts";
import { op } from "../schema.ts";

/** Operations that take a cell apart, or change what its database refuses. */
const crossing = ["cell.destroy", "cell.stage", "cell.adopt", "cell.create"];

export async function optionalRefusals(
  reader: Reader,
  about: {
    readonly cell: string;
    readonly mode: FailoverMode;
    readonly hosts: readonly string[];
  },
): Promise<readonly FailoverGate[]> {
  const { cell, mode, hosts } = about;
  const verdicts = judgeOperation(await readRulesView(reader), { kind: `failover.${mode}`, cell });
  const rules = verdicts.map(({ rule, verdict, text, overridable }) => ({
    ...{ name: rule, verdict, text, overridable },
  }));
  return mode === "planned" ? rules : [...rules, await neighbours(reader, cell, hosts)];
}

async function neighbours(
  reader: Reader,
  cell: string,
  hosts: readonly string[],
): Promise<FailoverGate> {
  const name = "neighbours";
  const [open] =
    hosts.length === 0
      ? []
      : await reader
          .select({ id: op.id, kind: op.kind, object: op.object })
          .from(op)
          .where(
            and(
              inArray(op.state, ["pending", "running"]),
              inArray(op.kind, crossing),
              inArray(op.object, [...hosts]),
              ne(op.object, cell),
            ),
          )
          .limit(1);
  return open === undefined
    ? {
        ...{ name, verdict: "pass", overridable: false },
        text: "nothing else changes the partners",
      }
    : {
        ...{ name, verdict: "block", overridable: true },
        text: `${open.kind} of the partner ${open.object} is under way (${open.id})`,
      };
}

/** An operation of the cell itself that a failover would cross; undefined: none. */
export async function crossingOp(reader: Reader, cell: string): Promise<string | undefined> {
  const [open] = await reader
    .select({ id: op.id, kind: op.kind, headline: op.headline })
    .from(op)
    .where(
      and(
        inArray(op.state, ["pending", "running"]),
        inArray(op.kind, crossing),
        inArray(op.object, [cell]),
      ),
    )
    .limit(1);
  return open && `${open.kind} of ${cell} is under way (${open.id}): ${open.headline}`;
}
