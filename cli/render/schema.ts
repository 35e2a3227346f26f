/** How findings, plans and steps of `cellctl schema` look to people. */
import type { Plan, SchemaFinding, SchemaVerdict, StepEvent } from "../adoption.ts";
import type { View } from "./output.ts";
import { printable } from "./printable.ts";
import type { Progress } from "./progress.ts";
import { duration } from "./units.ts";

export const findingView: View<SchemaFinding> = {
  id: ({ id }) => id,
  columns: [
    { head: "OBJECT", cell: ({ object }) => object },
    { head: "CODE", cell: ({ code }) => code },
    { head: "FOUND", cell: ({ text }) => text },
  ],
};

export const planView: View<Pick<Plan, "steps">> = {
  id: () => "plan",
  columns: [{ head: "STEPS", cell: ({ steps }) => String(steps.length) }],
};

const plural = (count: number, one: string): string => `${count} ${one}${count === 1 ? "" : "s"}`;

/** Per object: what is found, and under it the statement that mends it. `all`: also what `install` does. */
export function findingsText(verdict: SchemaVerdict, all: boolean): string {
  const install = verdict.items.filter(({ mendedBy }) => mendedBy === "install");
  const shown = verdict.items.filter(({ mendedBy }) => all || mendedBy === "you");
  const objects = [...new Set(shown.map(({ object }) => object))];
  const groups = objects.map((object) => {
    const findings = shown.filter((finding) => finding.object === object);
    return [printable(object), ...findings.flatMap(findingLines)].join("\n");
  });
  const summary = install.length === 0 || all ? [] : [installSummary(install)];
  const clean =
    verdict.tenantTables === 0
      ? "No finding: the manifest has no table of tenants."
      : `No finding: ${plural(verdict.tenantTables, "table")} of tenants, each under the guard.`;
  const nothing = verdict.items.length === 0 ? [clean] : [];
  return `${[...groups, ...summary, ...nothing].join("\n\n")}\n`;
}

const findingLines = ({ code, severity, text, mend }: SchemaFinding): string[] => [
  `  ${code}${severity === "risk" ? " (risk)" : ""}: ${printable(text)}`,
  ...mend.split("\n").map((line) => `    ${printable(line)}`),
];

function installSummary(findings: readonly SchemaFinding[]): string {
  const codes = [...new Set(findings.map(({ code }) => code))].map(
    (code) => `${findings.filter((finding) => finding.code === code).length} ${code}`,
  );
  return [
    `cellctl schema install mends ${findings.length} more: ${codes.join(", ")}`,
    "  each of them: -o wide; the SQL: cellctl schema install --dry-run",
  ].join("\n");
}

export const adviceText = (advice: Plan["advice"]): string =>
  [
    "Yours to decide:",
    ...advice.flatMap(({ object, text, sql }) => [
      `  ${printable(object)}: ${printable(text)}`,
      ...sql.map((one) => `    ${printable(one)}`),
    ]),
  ].join("\n");

/** One line per step; for long ones how far, and when it will be done; who is in the way. */
export function tellSteps(progress: Progress): (event: StepEvent) => Promise<void> {
  let place = "";
  // A line that stays, once: whoever looks an hour later must see what it was.
  let waited = "";
  return async (event) => {
    switch (event.kind) {
      case "step.began":
        place = `${event.at}/${event.of}`;
        return progress.now(`${place} ${event.step.id}`);
      case "step.progress": {
        const share = event.total > 0 ? ` ${Math.round((100 * event.done) / event.total)}%` : "";
        const eta = event.etaMs === undefined ? "" : `, ${duration(event.etaMs)} to go`;
        return progress.now(`${place} ${event.step}: ${event.text}${share}${eta}`);
      }
      case "step.waiting": {
        const line = `${place} ${event.step}: ${event.text}`;
        if (line === waited) return;
        waited = line;
        return progress.done("note", line);
      }
      case "lock.blocked":
        return progress.done("note", blockedText(event));
      case "step.done":
        return progress.done("ok", `${place} ${event.step.id} (${duration(event.tookMs)})`);
      case "lock.tried":
        return;
    }
  };
}

function blockedText({
  step,
  tries,
  blockers,
}: Extract<StepEvent, { kind: "lock.blocked" }>): string {
  const who = blockers.map(
    ({ pid, user, application, state, transactionMs, query }) =>
      `pid ${pid} (${user}, ${application}, ${state}, transaction ${duration(transactionMs)} old): ${query}`,
  );
  return `${step} waits, try ${tries}; in the way: ${who.length === 0 ? "nobody now" : who.join("; ")}`;
}
