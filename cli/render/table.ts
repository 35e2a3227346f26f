/**
 * Columns of text, as kubectl prints them: no borders, two spaces between, nothing after the last
 * cell, so that `awk` can read what a person can read.
 */
import { type Paint, type Tone, toneOf } from "./paint.ts";
import { printable } from "./printable.ts";
import { displayWidth, padTo } from "./width.ts";

export type Column<T> = {
  readonly head: string;
  readonly cell: (row: T, nowMs: number) => string;
  /** Only with `-o wide`. */
  readonly wide?: true;
  /** The value is a state word and is coloured as good or bad news. */
  readonly state?: true;
  /** Digits stand under digits. */
  readonly right?: true;
};

export type TableOptions = {
  readonly wide: boolean;
  readonly headers: boolean;
  readonly nowMs: number;
  readonly paint: Paint;
};

const gap = "  ";
const empty = "-";

/** Lays pages of rows under each other: a later page is never narrower than the pages before it. */
export function createTable<T>(
  columns: readonly Column<T>[],
  options: TableOptions,
): { readonly page: (rows: readonly T[]) => string } {
  const shown = columns.filter((column) => options.wide || column.wide !== true);
  const widths = shown.map(() => 0);
  let headed = !options.headers;

  return {
    page: (rows) => {
      const body = rows.map((row) => shown.map((column) => value(column, row, options.nowMs)));
      const heads = headed ? [] : [shown.map(({ head }) => head)];
      headed = true;
      for (const cells of [...heads, ...body]) {
        for (const [index, cell] of cells.entries()) {
          widths[index] = Math.max(widths[index] ?? 0, displayWidth(cell));
        }
      }
      const lines = [
        ...heads.map((cells) => line(shown, cells, widths, options.paint, "strong")),
        ...body.map((cells) => line(shown, cells, widths, options.paint, undefined)),
      ];
      return lines.map((text) => `${text}\n`).join("");
    },
  };
}

function value<T>(column: Column<T>, row: T, nowMs: number): string {
  const text = printable(column.cell(row, nowMs));
  return text === "" ? empty : text;
}

function line<T>(
  columns: readonly Column<T>[],
  cells: readonly string[],
  widths: readonly number[],
  paint: Paint,
  all: Tone | undefined,
): string {
  const last = cells.length - 1;
  const parts = cells.map((cell, index) => {
    const column = columns[index];
    const width = widths[index] ?? 0;
    const right = column?.right === true;
    const padding = " ".repeat(Math.max(0, width - displayWidth(cell)));
    // Colour goes around the word, not around the spaces, and after the width was measured.
    const tone = all ?? (column?.state === true ? toneOf(cell) : undefined);
    if (right) return `${padding}${paint(tone, cell)}`;
    return index === last ? paint(tone, cell) : `${paint(tone, cell)}${padding}`;
  });
  return parts.join(gap).trimEnd();
}

/** One object, as `NAME: value` lines; lists and objects inside are indented. */
export function describe(
  pairs: readonly (readonly [string, string | readonly string[]])[],
  paint: Paint,
): string {
  const width = Math.max(0, ...pairs.map(([name]) => displayWidth(name))) + 1;
  const lines = pairs.flatMap(([name, content]) => {
    const values =
      typeof content === "string" ? [content] : content.length === 0 ? [empty] : content;
    return values.map((text, index) => {
      const head = index === 0 ? `${name}:` : "";
      const shown = printable(text) === "" ? empty : printable(text);
      return `${paint("dim", padTo(head, width))}${gap}${paint(toneOf(shown), shown)}`;
    });
  });
  return lines.map((text) => `${text}\n`).join("");
}
