/**
 * The data of a command, in the format that was asked for, on standard output alone.
 *
 * `json` and `yaml` are the API's own objects, untouched; a list is `{"items": […], "next": …}` in
 * every case. `table` and `wide` are for people and may change; `name` is one id per line.
 */
import type { Sink } from "../io.ts";
import type { Paint } from "./paint.ts";
import { printable, printableJson } from "./printable.ts";
import { type Column, createTable, describe } from "./table.ts";

export const formats = ["table", "wide", "json", "yaml", "name"] as const;
export type Format = (typeof formats)[number];

export type View<T> = {
  readonly columns: readonly Column<T>[];
  readonly id: (row: T) => string;
  /** One object, in full; without it the object is a table of one row. */
  readonly details?: (
    row: T,
    nowMs: number,
  ) => readonly (readonly [string, string | readonly string[]])[];
};

export type Page<T> = { readonly items: readonly T[]; readonly next: string | null };

export type OutputOptions = {
  readonly stdout: Sink;
  readonly format: Format;
  readonly headers: boolean;
  readonly paint: Paint;
  readonly nowMs: () => number;
  /** A line for people, not data. */
  readonly note: (text: string) => Promise<void>;
};

export type Output = {
  readonly format: Format;
  /** True for `json` and `yaml`: a program is reading. */
  readonly structured: boolean;
  readonly list: <T>(pages: AsyncIterable<Page<T>>, view: View<T>) => Promise<number>;
  readonly one: <T>(value: T, view: View<T>) => Promise<void>;
  /** Rows without an end, each on a line of its own as soon as it is there; not for `yaml`. */
  readonly stream: <T>(view: View<T>) => (rows: readonly T[]) => Promise<void>;
  /** Text that is data: a completion script, a version. */
  readonly text: (text: string) => Promise<void>;
};

export function createOutput(options: OutputOptions): Output {
  const { stdout, format } = options;
  const tableOptions = () => ({
    wide: format === "wide",
    headers: options.headers,
    nowMs: options.nowMs(),
    paint: options.paint,
  });

  async function one<T>(value: T, view: View<T>): Promise<void> {
    if (format === "json") return stdout.write(json(value));
    if (format === "yaml") return stdout.write(await yaml(value));
    if (format === "name") return stdout.write(`${printable(view.id(value))}\n`);
    if (view.details !== undefined) {
      return stdout.write(describe(view.details(value, options.nowMs()), options.paint));
    }
    return stdout.write(createTable(view.columns, tableOptions()).page([value]));
  }

  async function list<T>(pages: AsyncIterable<Page<T>>, view: View<T>): Promise<number> {
    if (format === "json") return listJson(stdout, pages);
    if (format === "yaml") return listYaml(stdout, pages);
    let rows = 0;
    const table = createTable(view.columns, tableOptions());
    for await (const { items } of pages) {
      rows += items.length;
      if (items.length === 0) continue;
      await stdout.write(
        format === "name"
          ? items.map((item) => `${printable(view.id(item))}\n`).join("")
          : table.page(items),
      );
    }
    if (rows === 0 && format !== "name") await options.note("Nothing to list.");
    return rows;
  }

  function stream<T>(view: View<T>): (rows: readonly T[]) => Promise<void> {
    const table = createTable(view.columns, tableOptions());
    const text = (rows: readonly T[]): string => {
      if (format === "json") {
        return rows.map((row) => `${printableJson(JSON.stringify(row))}\n`).join("");
      }
      if (format === "name") return rows.map((row) => `${printable(view.id(row))}\n`).join("");
      return table.page(rows);
    };
    return async (rows) => {
      if (rows.length > 0) await stdout.write(text(rows));
    };
  }

  return {
    format,
    structured: format === "json" || format === "yaml",
    list,
    one,
    stream,
    text: (text) => stdout.write(text),
  };
}

const json = (value: unknown): string => `${printableJson(JSON.stringify(value, null, 2))}\n`;

async function yaml(value: unknown): Promise<string> {
  const { toYaml } = await import("./yaml.ts");
  return toYaml(value);
}

/**
 * Page by page, so that a million tenants never stand in memory at once. Nothing is written before
 * the first page is there: a fleet that does not answer must leave standard output empty.
 */
async function listJson<T>(stdout: Sink, pages: AsyncIterable<Page<T>>): Promise<number> {
  let rows = 0;
  let next: string | null = null;
  let opening = '{\n  "items": [';
  for await (const page of pages) {
    const texts = page.items.map((item) => {
      rows += 1;
      const text = printableJson(JSON.stringify(item, null, 2)).replaceAll("\n", "\n    ");
      return `${rows === 1 ? "" : ","}\n    ${text}`;
    });
    await stdout.write(`${opening}${texts.join("")}`);
    opening = "";
    next = page.next;
  }
  await stdout.write(
    `${opening}${rows === 0 ? "" : "\n  "}],\n  "next": ${printableJson(JSON.stringify(next))}\n}\n`,
  );
  return rows;
}

async function listYaml<T>(stdout: Sink, pages: AsyncIterable<Page<T>>): Promise<number> {
  const items: T[] = [];
  let next: string | null = null;
  for await (const page of pages) {
    items.push(...page.items);
    next = page.next;
  }
  await stdout.write(await yaml({ items, next }));
  return items.length;
}
