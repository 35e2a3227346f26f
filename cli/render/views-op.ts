/** How operations, plans and what comes back from a change look to people. */
import type { z } from "zod";
import type { acceptedSchema, dryRunSchema, Op } from "../../contract/control-api.ts";
import type { View } from "./output.ts";
import { age } from "./units.ts";

export const opView: View<Op> = {
  id: (op) => op.id,
  columns: [
    { head: "OP", cell: (op) => op.id },
    { head: "KIND", cell: (op) => op.kind },
    { head: "OBJECT", cell: (op) => op.object },
    { head: "STATE", cell: (op) => op.state, state: true },
    { head: "STEP", cell: (op) => op.step },
    { head: "AGE", cell: (op, nowMs) => age(op.createdAt, nowMs) },
    { head: "REVISION", cell: (op) => String(op.revision ?? ""), right: true, wide: true },
    { head: "ACTOR", cell: (op) => op.actor, wide: true },
    { head: "REASON", cell: (op) => op.reason, wide: true },
    { head: "HEADLINE", cell: (op) => op.headline },
  ],
  details: (op, nowMs) => [
    ["op", op.id],
    ["kind", op.kind],
    ["object", op.object],
    ["state", op.state],
    ["step", op.step],
    ["headline", op.headline],
    ["attempt", String(op.attempt)],
    ["revision", op.revision === null ? "" : String(op.revision)],
    ["actor", op.actor],
    ["reason", op.reason],
    ["created", `${op.createdAt} (${age(op.createdAt, nowMs)} ago)`],
    ["updated", `${op.updatedAt} (${age(op.updatedAt, nowMs)} ago)`],
    ["steps", op.steps.map(({ at, step, text }) => `${at}  ${step}  ${text}`)],
    ...(op.error === null ? [] : [["error", `${op.error.code}: ${op.error.message}`] as const]),
    ...(Object.keys(op.result).length === 0
      ? []
      : [["result", JSON.stringify(op.result)] as const]),
  ],
};

type Accepted = z.infer<typeof acceptedSchema>;
/** A change that was recorded, or is done: its operation in one row. */
export const acceptedView: View<Accepted> = {
  id: ({ op }) => op.id,
  columns: opView.columns.map((column) => ({
    ...column,
    cell: (row: Accepted, nowMs: number) => column.cell(row.op, nowMs),
  })),
};

export const planView: View<z.infer<typeof dryRunSchema>> = {
  id: ({ plan }) => plan.kind,
  columns: [{ head: "PLAN", cell: ({ plan }) => plan.kind }],
  details: ({ plan }) => [
    ["plan", plan.kind],
    ["steps", plan.steps.map((step, index) => `${index + 1}. ${step.text}`)],
    ...(plan.skipped.length === 0
      ? []
      : [
          [
            "skipped",
            plan.skipped.map(({ object, reason, text }) => `${object}: ${text} (${reason})`),
          ] as const,
        ]),
    ["changed", "nothing: this was a dry run"],
  ],
};
