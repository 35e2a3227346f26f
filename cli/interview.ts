/**
 * Questions with proposals, one after the other on one reader of standard input. With `--yes` the
 * proposals are the answers; where nobody can be asked, a question without one is a fault of usage.
 */
import { createInterface, type Interface } from "node:readline";
import { CliError } from "./failures.ts";
import { printable } from "./render/printable.ts";
import type { Session } from "./session.ts";

export type Interview = {
  /** `proposal`: what an empty line means; undefined asks until there is an answer. */
  readonly ask: (question: string, proposal: string | undefined) => Promise<string>;
  readonly close: () => void;
};

export function createInterview(session: Session): Interview {
  let reader: Interface | undefined;
  let lines: AsyncIterator<string> | undefined;

  async function read(question: string, proposal: string | undefined): Promise<string> {
    const shown = proposal === undefined ? "" : ` [${printable(proposal)}]`;
    await session.io.stderr.write(`${question}${shown}: `);
    reader ??= createInterface({ input: session.io.stdin, signal: session.interrupted() });
    lines ??= reader[Symbol.asyncIterator]();
    const { value, done } = await lines.next();
    if (done === true) throw unanswered(question);
    return value.trim();
  }

  return {
    ask: async (question, proposal) => {
      if (session.yes || !session.mayAsk) {
        if (proposal !== undefined) return proposal;
        throw unanswered(question);
      }
      for (;;) {
        const answer = (await read(question, proposal)) || proposal;
        if (answer !== undefined && answer !== "") return answer;
      }
    },
    close: () => reader?.close(),
  };
}

const unanswered = (question: string): CliError =>
  new CliError("USAGE", `Nobody answered: ${question}. Nothing was written.`, {
    nextSteps: ["cellctl init --help   # every answer can be given as a flag"],
  });
