/**
 * Before something is destroyed, somebody says so: by typing its name on a terminal, by
 * `--confirm NAME`, or by `--yes`. Without any of these nothing happens.
 */
import { createInterface } from "node:readline/promises";
import { CliError } from "./failures.ts";
import type { Session } from "./session.ts";

export type Danger = {
  /** What must be typed. */
  readonly name: string;
  /** One sentence: what will be gone. */
  readonly effect: string;
};

export async function confirm(
  session: Session,
  danger: Danger,
  confirmed: string | undefined,
): Promise<void> {
  if (session.yes || confirmed === danger.name) return;
  if (confirmed !== undefined) {
    throw new CliError(
      "NOT_CONFIRMED",
      `--confirm says "${confirmed}", and the name is "${danger.name}"`,
    );
  }
  if (!session.mayAsk) {
    throw new CliError("NOT_CONFIRMED", `${danger.effect} Nobody is here to be asked.`, {
      nextSteps: [`repeat with --confirm ${danger.name}, or with --yes`],
    });
  }
  await session.note(danger.effect);
  const answer = await ask(session, `Type ${danger.name} to go on: `);
  if (answer.trim() !== danger.name) {
    throw new CliError("NOT_CONFIRMED", `"${answer.trim()}" is not "${danger.name}"`);
  }
}

async function ask(session: Session, question: string): Promise<string> {
  await session.io.stderr.write(question);
  const lines = createInterface({ input: session.io.stdin, signal: session.interrupted() });
  try {
    const { value } = await lines[Symbol.asyncIterator]().next();
    return typeof value === "string" ? value : "";
  } finally {
    lines.close();
  }
}
