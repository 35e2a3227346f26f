import fc from "fast-check";
import { expect, test } from "vitest";
import { checkFile, entryLine, historyHead, readEntries } from "./file.ts";
import type { Entry } from "./model.ts";
import { createRecorder } from "./recorder.ts";

/** Three writes of one process, recorded as a workload does. */
function recorded(): Entry[] {
  const entries: Entry[] = [];
  let nowMs = 0;
  const recorder = createRecorder({
    clock: {
      monotonicMs: () => {
        nowMs += 1;
        return nowMs;
      },
    },
    run: "run-1",
    write: (entry) => entries.push(entry),
  });
  const send = (value: string) => recorder.invoke({ process: "p1", tenant: "acme", value });
  send("a").ok({ cell: "cell-01", epoch: 1, ref: "1" });
  send("b").fail("PLACEMENT_STALE");
  send("ç").info("x".repeat(500));
  recorder.note({ kind: "present", tenant: "acme", value: "a", cell: "cell-01", ref: "1" });
  recorder.note({ kind: "read", tenant: "acme" });
  return entries;
}

async function* chunksOf(text: string, size: number): AsyncGenerator<string> {
  for (let from = 0; from < text.length; from += size) yield text.slice(from, from + size);
}

async function readAll(text: string, size = 1000): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const entry of readEntries(chunksOf(text, size))) entries.push(entry);
  return entries;
}

test("what is recorded is read back, in chunks of any size", async () => {
  const entries = recorded();
  const text = entries.map(entryLine).join("");
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 300 }), async (size) => {
      const read = await readAll(text, size);
      expect(read).toHaveLength(9);
      expect(read.slice(0, 6)).toEqual(entries.slice(0, 6));
    }),
  );
  const verdict = await checkFile(chunksOf(text, 7));
  expect(verdict.violations).toEqual([]);
  expect(verdict.counts).toMatchObject({ invoked: 3, acknowledged: 1, failed: 1, unknown: 1 });
});

test("a line that is no entry is named by its number", async () => {
  const head = entryLine(historyHead("run-1"));
  await expect(readAll(`${head}{"kind":"ok"}\n`)).rejects.toThrow("line 2: not an entry");
  await expect(readAll(`${head}not json\n`)).rejects.toThrow("line 2: not an entry");
});

test("a file of version 1 is read, and holds what that version knows", async () => {
  const head = entryLine({ kind: "head", format: "cellfleet.history", version: 1, run: "old" });
  const old = [head, ...recorded().slice(1).map(entryLine)].join("");
  const verdict = await checkFile(chunksOf(old, 50));
  expect(verdict.violations).toEqual([]);
  const list = entryLine({ kind: "list", at: 0, process: "p", tenant: "acme" });
  await expect(readAll(`${head}${list}`)).rejects.toThrow(
    "line 2: version 1 of the format knows no list",
  );
  expect(await readAll(`${entryLine(historyHead("new"))}${list}`)).toHaveLength(2);
});

test("a file that breaks off, or is empty, or is another file is not a history", async () => {
  const text = recorded().map(entryLine).join("");
  await expect(readAll(text.slice(0, -5))).rejects.toThrow("line 9: the file breaks off");
  await expect(readAll("")).rejects.toThrow("line 1: the file is empty");
  await expect(readAll('{"kind":"read","tenant":"acme"}\n')).rejects.toThrow(
    "a history begins with its head",
  );
});
