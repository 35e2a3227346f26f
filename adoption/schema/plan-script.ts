/** A plan as a script for psql: the very statements that are run, each with its reason. Pure. */
import { batchSql } from "./backfill.ts";
import { type LockLimits, lockedText, lockLimitsDefault } from "./lock-bounded.ts";
import type { Plan, Step } from "./step.ts";
import { sqlName } from "./table-name.ts";

/** A name from a catalog may hold a line break, which would end the comment. */
const comment = (text: string): string =>
  text
    .split("\n")
    .map((line) => `-- ${line.replaceAll(/[^\P{C}]/gu, "?")}`)
    .join("\n");

export function planScript(plan: Plan, pack: string, limits = lockLimitsDefault): string {
  const steps = plan.steps.map((step, index) =>
    [
      comment(`${index + 1}/${plan.steps.length} ${step.id}`),
      comment(`why:  ${step.why}`),
      comment(`lock: ${step.lock}`),
      comment(`undo: ${step.undo}`),
      stepText(step, limits, pack),
    ].join("\n"),
  );
  const advice = plan.advice.map(({ object, text, sql }) =>
    [comment(`${object}: ${text}`), ...sql.map((one) => comment(`  ${one}`))].join("\n"),
  );
  return `${[
    comment(
      "Each locked step is one transaction; one that meets lock_timeout is repeated after a pause.",
    ),
    ...steps,
    ...(advice.length === 0
      ? []
      : [comment("Yours to decide; nothing of this is run:"), ...advice]),
  ].join("\n\n")}\n`;
}

function stepText(step: Step, limits: LockLimits, pack: string): string {
  if (step.kind === "install-pack") return pack;
  if (step.way === "locked") return lockedText(step, limits);
  const { backfill } = step;
  if (backfill === undefined) return step.sql.join("\n");
  return `${comment("repeated page by page, $1 and $2 being the pages' first rows ('(0,0)', '(4,0)', …), until no row is left:")}\n${batchSql(backfill, sqlName(backfill))};`;
}
