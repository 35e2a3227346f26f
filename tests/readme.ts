/**
 * The README as something that can be run: its blocks marked ```sh tour, each with the output that is shown below
 * it, and the comparison of what is shown with what came back.
 */

export type TourStep = {
  /** Line of the README on which the block opens, for messages. */
  readonly line: number;
  readonly script: string;
  /** Lines shown below the block, in order; empty where nothing is shown. */
  readonly shown: readonly string[];
};

type Block = { readonly line: number; readonly info: string; readonly text: string };

export function tourSteps(markdown: string): TourStep[] {
  const blocks = fencedBlocks(markdown);
  return blocks.flatMap((block, index) => {
    if (block.info !== "sh tour") return [];
    const next = blocks[index + 1];
    const shown = next?.info === "text" ? next.text.split("\n").filter((line) => line !== "") : [];
    return [{ line: block.line, script: block.text, shown }];
  });
}

function fencedBlocks(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { line: number; info: string; lines: string[] } | undefined;
  markdown.split("\n").forEach((text, index) => {
    if (!text.startsWith("```")) open?.lines.push(text);
    else if (open === undefined) open = { line: index + 1, info: text.slice(3).trim(), lines: [] };
    else {
      blocks.push({ line: open.line, info: open.info, text: open.lines.join("\n") });
      open = undefined;
    }
  });
  return blocks;
}

/**
 * The first shown line that the output does not have, in order; undefined when all are there. `…` stands for
 * anything within a line; the output may have further lines between.
 */
export function missingLine(output: string, shown: readonly string[]): string | undefined {
  const lines = output.split(/\r?\n/);
  let from = 0;
  for (const expected of shown) {
    const pattern = new RegExp(`^${expected.split("…").map(escapeRegExp).join(".*")}$`);
    const at = lines.findIndex((line, index) => index >= from && pattern.test(line));
    if (at < 0) return expected;
    from = at + 1;
  }
  return undefined;
}

const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
