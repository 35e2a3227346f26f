/**
 * What was served from this folder, and when the control plane was last heard: `seen.json`. It is not
 * synced: an older memory after a power cut only weakens a comparison, and tells a table older than it
 * is, never newer; the files that it is compared with are synced themselves.
 */
import { open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { TableState } from "../contract/table-state.ts";
import { exists } from "./durable.ts";
import { parseJson } from "./parse-json.ts";
import { type FileProblem, orUnreadable, refused } from "./problem.ts";

const seenSchema = z.object({
  fleet: z.string(),
  revision: z.number().int().min(0),
  /** By this machine's clock; absent in what an earlier release wrote. */
  heardAtMs: z.number().min(0).optional(),
});
export type Seen = z.infer<typeof seenSchema>;

const pathIn = (dir: string): string => join(dir, "seen.json");

/** Without a readable memory there is nothing to compare with; signatures still hold. */
export const readSeen = (dir: string): Promise<Seen | FileProblem | undefined> =>
  orUnreadable(async () => {
    if (!(await exists(pathIn(dir)))) return undefined;
    return seenSchema.safeParse(parseJson(await readFile(pathIn(dir), "utf8"))).data;
  });

export async function writeSeen(dir: string, seen: Seen): Promise<void> {
  const fresh = `${pathIn(dir)}.new`;
  const file = await open(fresh, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(seen)}\n`);
  } finally {
    await file.close();
  }
  await rename(fresh, pathIn(dir));
}

/** Nothing is written here before an answer: without a note of its time, this is the best that is known. */
export async function writtenAtMs(dir: string): Promise<number | undefined> {
  const found = await orUnreadable(async () => {
    for (const name of ["seen.json", "table.ndjson", "table.image"]) {
      if (await exists(join(dir, name))) return (await stat(join(dir, name))).mtimeMs;
    }
    return undefined;
  });
  return typeof found === "number" ? found : undefined;
}

/** Why `table` is not what this folder served. */
export function compareSeen(table: TableState, seen: Seen | undefined): FileProblem | undefined {
  if (seen === undefined) return undefined;
  const { fleet, revision } = seen;
  if (fleet !== table.fleet) {
    const text = `the file is of fleet ${table.fleet}, this process serves ${fleet}`;
    return refused("other-fleet", text);
  }
  return table.revision < revision
    ? refused("older", `the file is at revision ${table.revision}, ${revision} was served before`)
    : undefined;
}
