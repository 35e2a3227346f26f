/**
 * History files: NDJSON, a head line first, then entries in order of time, appended as they happen. A file
 * that breaks off within a line was cut short by a crash of the recorder: reading says where.
 */
import { type Checker, createChecker } from "./check.ts";
import { type Entry, entrySchema, type Verdict } from "./model.ts";

export const entryLine = (entry: Entry): string => `${JSON.stringify(entry)}\n`;

export const historyHead = (run: string): Entry => ({
  kind: "head",
  format: "cellfleet.history",
  version: 2,
  run,
});

const kindsOfVersion1: ReadonlySet<Entry["kind"]> = new Set([
  "head",
  "invoke",
  "ok",
  "fail",
  "info",
  "present",
  "read",
  "commit",
  "owner",
  "reported-lost",
  "salvaged",
]);

/** Entries of a stream of text in chunks of any size. Throws with the number of a line that is not one. */
export async function* readEntries(chunks: AsyncIterable<string>): AsyncGenerator<Entry> {
  let rest = "";
  let line = 0;
  let version = 0;
  for await (const chunk of chunks) {
    const lines = `${rest}${chunk}`.split("\n");
    rest = lines.pop() ?? "";
    for (const text of lines) {
      line += 1;
      const entry = parseLine(text, line);
      if (entry.kind === "head") version = entry.version;
      if (version === 1 && !kindsOfVersion1.has(entry.kind)) {
        throw new Error(`line ${line}: version 1 of the format knows no ${entry.kind}`);
      }
      yield entry;
    }
  }
  if (rest !== "") throw new Error(`line ${line + 1}: the file breaks off: ${rest.slice(0, 80)}`);
  if (line === 0) throw new Error("line 1: the file is empty");
}

/** Reads and judges without holding the file in memory. */
export async function checkFile(chunks: AsyncIterable<string>): Promise<Verdict> {
  const checker: Checker = createChecker();
  for await (const entry of readEntries(chunks)) checker.feed(entry);
  return checker.verdict();
}

function parseLine(text: string, line: number): Entry {
  const parsed = entrySchema.safeParse(parseJson(text));
  if (!parsed.success)
    throw new Error(`line ${line}: not an entry of a history: ${text.slice(0, 80)}`);
  if (line === 1 && parsed.data.kind !== "head") {
    throw new Error("line 1: a history begins with its head");
  }
  return parsed.data;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The schema refuses it and the caller names the line.
  }
}
