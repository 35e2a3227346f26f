/**
 * Finds the newest table in the folder that can be believed: the image, the snapshot with its journal,
 * the generation before with both journals, at last an image that is older.
 *
 * What must always be true: each is verified as a whole and is of the fleet that was served from here. One
 * that is older than what was served is taken only when the newer one is damaged or gone: a stale
 * router is harmless, since cells check the epoch, and a router without a table serves nobody.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { HashKey } from "../contract/half-sip-hash.ts";
import { snapshotHeadSchema } from "../contract/routing-table.ts";
import { TableState } from "../contract/table-state.ts";
import type { Verifier } from "../runtime/signing.ts";
import { exists } from "./durable.ts";
import { readImage } from "./image-file.ts";
import type { ImageKey } from "./image-key.ts";
import { type Replayed, replayAndCut, replayJournal } from "./journal.ts";
import { parseJson } from "./parse-json.ts";
import { type FileProblem, orUnreadable, refused } from "./problem.ts";
import { lineBytesMax, readSnapshot } from "./read.ts";
import { compareSeen, type Seen } from "./seen.ts";

export type Folder = {
  readonly dir: string;
  readonly verifier: Verifier;
  readonly hashKey: HashKey;
  readonly imageKey: ImageKey | undefined;
};

type Taken = {
  readonly kind: "restored";
  readonly table: TableState;
  /** What was refused although a table was found: it is older than it should be, or its files are. */
  readonly damaged?: FileProblem;
};
export type Restored = Taken | FileProblem | { readonly kind: "absent" };

export type Found = {
  readonly restored: Restored;
  /** Why the image was not read, when it was there. */
  readonly image?: FileProblem;
  readonly journalBytes: number;
  /** How far the journal is contained in the image that was read. */
  readonly imagedBytes?: number;
  /** The snapshot, and the one before it, are to be kept aside. */
  readonly isRefused: boolean;
  readonly isPreviousRefused: boolean;
};

type Attempt =
  | { readonly table: TableState; readonly journal: Replayed; readonly damaged?: FileProblem }
  | FileProblem
  | { readonly kind: "absent" };

const absent = { kind: "absent" } as const;

export async function findTable(folder: Folder, seen: Seen | undefined): Promise<Found> {
  const image = await tryImage(folder, seen, "current");
  if ("table" in image) return foundImage(image, seen);
  const found = await findSigned(folder, seen);
  return image.kind === "refused" ? { ...found, image } : found;
}

async function findSigned(folder: Folder, seen: Seen | undefined): Promise<Found> {
  const none = { journalBytes: 0, isRefused: true, isPreviousRefused: false };
  const current = await trySnapshot(folder, seen);
  if ("table" in current) {
    const { table, journal } = current;
    const restored = taken(table, journal.problem, seen);
    return { ...none, restored, journalBytes: journal.bytes, isRefused: false };
  }
  const problem = current.kind === "absent" ? await missing(folder, seen) : current;
  if (problem === undefined) return { ...none, restored: absent, isRefused: false };
  // Whole, and not ours or set back by somebody: nothing here is damaged.
  if (problem.reason === "other-fleet" || problem.reason === "older") {
    return { ...none, restored: problem };
  }
  const previous = await tryPrevious(folder, seen);
  if ("table" in previous) return { ...none, restored: taken(previous.table, problem, seen) };
  const isPreviousRefused = previous.kind === "refused";
  const old = await tryImage(folder, seen, "any");
  const restored = "table" in old ? taken(old.table, problem, seen) : problem;
  return { ...none, restored, isPreviousRefused };
}

function foundImage(image: Extract<Attempt, { table: TableState }>, seen: Seen | undefined): Found {
  const { table, journal, damaged } = image;
  return {
    restored: taken(table, journal.problem ?? damaged, seen),
    journalBytes: journal.bytes,
    imagedBytes: journal.passedBytes,
    // Without a good snapshot beside it the image is all there is: another one is asked for.
    isRefused: damaged !== undefined,
    isPreviousRefused: false,
  };
}

function taken(table: TableState, problem: FileProblem | undefined, seen: Seen | undefined): Taken {
  if (problem === undefined) return { kind: "restored", table };
  const before = seen === undefined ? "" : `, revision ${seen.revision} was served before`;
  const text = `${problem.text}; revision ${table.revision} serves on${before}`;
  return { kind: "restored", table, damaged: { ...problem, text } };
}

/** Nothing at all is no mistake; a folder that once had a table is. */
async function missing(folder: Folder, seen: Seen | undefined): Promise<FileProblem | undefined> {
  for (const name of ["journal.ndjson", "table.previous.ndjson"]) {
    if (await exists(join(folder.dir, name)))
      return refused("missing", `${name} has no table.ndjson`);
  }
  if (seen === undefined) return undefined;
  return refused("missing", `table.ndjson is gone, revision ${seen.revision} was served before`);
}

async function trySnapshot(folder: Folder, seen: Seen | undefined): Promise<Attempt> {
  const table = await readTable(folder, "table.ndjson");
  if ("kind" in table) return table;
  const journal = await replayCurrent(folder, table);
  return refusal(table, seen, journal) ?? { table, journal };
}

/** Its own journal, then the newer one: often they lead to the very table that was served. */
async function tryPrevious(folder: Folder, seen: Seen | undefined): Promise<Attempt> {
  const table = await readTable(folder, "table.previous.ndjson");
  if ("kind" in table) return table;
  const { dir, verifier } = folder;
  await replayJournal(join(dir, "journal.previous.ndjson"), table, verifier);
  const journal = await replayJournal(join(dir, "journal.ndjson"), table, verifier);
  const problem = compareSeen(table, seen);
  return problem?.reason === "other-fleet" ? problem : { table, journal };
}

async function tryImage(
  folder: Folder,
  seen: Seen | undefined,
  which: "current" | "any",
): Promise<Attempt> {
  const { imageKey } = folder;
  if (imageKey === undefined) return absent;
  const read = await orUnreadable(() => readImage(join(folder.dir, "table.image"), imageKey));
  if (read.kind !== "image") return read;
  const table = TableState.fromShared(read.shared, true);
  const imaged = table.revision;
  const snapshot = await snapshotRevision(folder);
  if (typeof snapshot === "number" && snapshot > imaged && which === "current") {
    return refused("older", `the image is at revision ${imaged}, the snapshot at ${snapshot}`);
  }
  const journal = await replayCurrent(folder, table);
  const problem = refusal(table, seen, journal);
  if (problem !== undefined && (which === "current" || problem.reason === "other-fleet")) {
    return problem;
  }
  return typeof snapshot === "number" ? { table, journal } : { table, journal, damaged: snapshot };
}

/** Older than what was served is only what has no damage that would tell why. */
function refusal(
  table: TableState,
  seen: Seen | undefined,
  journal: Replayed,
): FileProblem | undefined {
  const problem = compareSeen(table, seen);
  return problem?.reason === "older" && journal.problem !== undefined ? undefined : problem;
}

async function readTable({ dir, verifier, hashKey }: Folder, name: string) {
  const path = join(dir, name);
  return orUnreadable(async () =>
    (await exists(path)) ? readSnapshot(createReadStream(path), verifier, hashKey) : absent,
  );
}

const replayCurrent = ({ dir, verifier }: Folder, table: TableState): Promise<Replayed> =>
  replayAndCut(join(dir, "journal.ndjson"), table, verifier);

/** As its head says, which nobody has verified: good for a comparison. */
async function snapshotRevision({ dir }: Folder): Promise<number | FileProblem> {
  const path = join(dir, "table.ndjson");
  return orUnreadable(async () => {
    if (!(await exists(path))) return refused("missing", "the image has no table.ndjson");
    const chunks: Buffer[] = [];
    for await (const chunk of createReadStream(path, { end: lineBytesMax })) {
      chunks.push(Buffer.from(chunk));
      if (chunk.includes(10)) break;
    }
    const [line = ""] = Buffer.concat(chunks).toString("utf8").split("\n", 1);
    const head = snapshotHeadSchema.safeParse(parseJson(line));
    return head.data?.revision ?? refused("corrupt", "table.ndjson has no head of a routing table");
  });
}

/** Undefined when there is none that can be read. */
export async function snapshotBytes(dir: string): Promise<number | undefined> {
  const bytes = await orUnreadable(async () => (await stat(join(dir, "table.ndjson"))).size);
  return typeof bytes === "number" ? bytes : undefined;
}
