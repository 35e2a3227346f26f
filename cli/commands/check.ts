/** `cellctl check`: one line per check, √ or ×, and how to mend what is not well. */
import { runChecks } from "../checks.ts";
import { CliError, usage } from "../failures.ts";
import { type Register, text } from "../grammar.ts";
import type { View } from "../render/output.ts";
import type { Check } from "../shapes.ts";

const marks = { ok: "√", warn: "!", failed: "×", skipped: "-" } as const;

export const checkView: View<Check> = {
  id: ({ id }) => id,
  columns: [
    { head: "", cell: ({ state }) => marks[state], state: true },
    { head: "CHECK", cell: ({ id }) => id },
    { head: "FOUND", cell: ({ text, fix }) => (fix === null ? text : `${text} → ${fix}`) },
  ],
};

export const register: Register = (noun, bind) => {
  noun
    .option("--database-url <reference>", "is this database fit to be a cell's: env:, file:, exec:")
    .option("--role <role>", "what the URL's role is for: owner (default), agent, mover or app")
    .option("--app-role <role>", "the role that the application logs in as");
  bind(noun, async (session, _args, options) => {
    const reference = text(options, "databaseUrl");
    if (reference !== undefined) {
      const { checkDatabase } = await import("./check-database.ts");
      return checkDatabase(session, reference, options);
    }
    const stray = ["role", "appRole"].find((name) => text(options, name) !== undefined);
    if (stray !== undefined) throw usage("--role and --app-role go with --database-url");
    const items = await runChecks(session);
    await session.out.list(onePage(items), checkView);
    const failed = items.filter(({ state }) => state === "failed");
    if (failed.length === 0) return 0;
    throw new CliError("CHECK_FAILED", `failed: ${failed.map(({ id }) => id).join(", ")}`, {
      nextSteps: failed.flatMap(({ fix }) => (fix === null ? [] : [fix])),
    });
  });
};

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}
