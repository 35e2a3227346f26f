/**
 * What a long operation is doing, on standard error: a line that redraws itself on a terminal, one
 * line per change elsewhere, nothing with `--quiet`.
 */
import type { Sink } from "../io.ts";
import type { Paint } from "./paint.ts";
import { printable } from "./printable.ts";
import { fitTo } from "./width.ts";

export type Progress = {
  /** Says where things stand. The same text twice is said once. */
  readonly now: (text: string) => Promise<void>;
  /** A line that stays. */
  readonly done: (mark: "ok" | "failed" | "note", text: string) => Promise<void>;
  /** Takes the live line away, so that something else may be printed. */
  readonly clear: () => Promise<void>;
};

/** What an operation quotes may have several lines, as a child's output has. */
const oneLine = (text: string): string => printable(text.trim().replace(/\s*[\r\n]+\s*/g, " | "));

const eraseLine = "\r\u001b[K";
/** Where the terminal does not tell, or says 0. */
const columnsDefault = 80;
const marks = { ok: "✔", failed: "✘", note: "•" } as const;
const tones = { ok: "good", failed: "bad", note: "dim" } as const;

export function createProgress(options: {
  readonly stderr: Sink;
  readonly paint: Paint;
  readonly quiet: boolean;
}): Progress {
  const { stderr, paint, quiet } = options;
  let last = "";
  let live = false;

  async function clear(): Promise<void> {
    if (!live) return;
    live = false;
    await stderr.write(eraseLine);
  }

  return {
    clear,
    now: async (text) => {
      const line = oneLine(text);
      if (quiet || line === last) return;
      last = line;
      if (!stderr.isTerminal) return stderr.write(`${line}\n`);
      const width = Math.max(20, (stderr.columns() || columnsDefault) - 3);
      live = true;
      return stderr.write(`${eraseLine}${paint("dim", "▸")} ${fitTo(line, width)}`);
    },
    done: async (mark, text) => {
      await clear();
      last = "";
      if (!quiet) await stderr.write(`${paint(tones[mark], marks[mark])} ${oneLine(text)}\n`);
    },
  };
}
