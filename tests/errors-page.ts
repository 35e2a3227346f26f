/**
 * Writes docs/errors.md from the error table, so that the page cannot say anything else than the
 * code does. `contract.golden.test.ts` compares; `npm run golden` writes.
 */
import type { ErrorSource } from "../contract/error-entry.ts";
import { errorCodes, errorTable } from "../contract/errors.ts";
import { sqlStates } from "../contract/sql-states.ts";

const sources: Readonly<Record<ErrorSource, string>> = {
  client: "The caller's side: the request itself has to change.",
  router: "The router answered; no application saw the request, unless the retry column says so.",
  cell: "The cell, its agent or its application.",
  control: "The control plane or a rule of the fleet.",
  depends: "Whoever the message names: one side asked for what another could not do in time.",
};

export function errorsPage(): string {
  const sections = (Object.keys(sources) as ErrorSource[]).map(
    (source) => `## ${title(source)}\n\n${sources[source]}\n\n${tableOf(source)}`,
  );
  return `${[opening, ...sections, sqlSection()].join("\n\n")}\n`;
}

const opening = `# Error codes

<!-- Generated from contract/errors.ts by tests/errors-page.ts: change the table, then \`npm run golden\`. -->

Every refusal of Cellfleet carries one of these codes, in the body as
\`{"error":{"code","message","next_steps"}}\` and in the header \`x-cellfleet-error\`. The codes are stable:
branch on them, never on the message. \`cellctl explain CODE\` prints the same.

**Retry** says whether the same request may be sent again: \`never\`: it will fail the same way; \`safe\`:
nothing was done; \`idempotent-only\`: it may have been done, so repeat it only if it is idempotent or carries
the same \`Idempotency-Key\`. **Exit** is the exit code of \`cellctl\`.`;

function tableOf(source: ErrorSource): string {
  const rows = errorCodes
    .filter((code) => errorTable[code].source === source)
    .map((code) => {
      const { httpStatus, retry, exit, meaning } = errorTable[code];
      return `| \`${code}\` | ${httpStatus} | ${retry} | ${exit} | ${meaning} |`;
    });
  return ["| code | HTTP | retry | exit | meaning |", "|---|---|---|---|---|", ...rows].join("\n");
}

function sqlSection(): string {
  const rows = Object.entries(sqlStates).map(
    ([state, { name, action, meaning }]) => `| \`${state}\` | ${name} | ${action} | ${meaning} |`,
  );
  return [
    "## Raised by a cell's database",
    "",
    "SQLSTATE codes of the `cellfleet` schema. `requeue`: resolve the route anew and repeat the whole",
    "transaction. `fail`: a fault in the application; repeating does not help.",
    "",
    "| SQLSTATE | name | action | meaning |",
    "|---|---|---|---|",
    ...rows,
  ].join("\n");
}

const title = (source: ErrorSource): string =>
  ({
    ...{ client: "The caller", router: "The router", cell: "The cell" },
    ...{ control: "The control plane", depends: "It depends" },
  })[source];
