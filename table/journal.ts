/**
 * The journal of signed deltas, read back onto the table that it follows. A line that is bad is told of
 * and passed over: each delta is signed and says what it follows, so nothing is applied out of its place,
 * and what stands before the damage (or behind it, when the table has it already) is not lost with it.
 */
import { readFile, truncate } from "node:fs/promises";
import { deltaBodySchema, signedDeltaSchema } from "../contract/routing-table.ts";
import type { TableState } from "../contract/table-state.ts";
import { signaturePurposes, type Verifier } from "../runtime/signing.ts";
import { exists } from "./durable.ts";
import { parseJson } from "./parse-json.ts";
import { type FileProblem, orUnreadable, refused } from "./problem.ts";

export type Replayed = {
  /** Of whole lines. */
  readonly bytes: number;
  /** Of them, those that the table contained before. */
  readonly passedBytes: number;
  /** Its last line has no end. */
  readonly isTorn: boolean;
  /** Of the first bad line. */
  readonly problem?: FileProblem;
};

/** Deltas that the table contains already are passed over: a crash may leave them. */
export async function replayJournal(
  path: string,
  table: TableState,
  verifier: Verifier,
): Promise<Replayed> {
  const all = await orUnreadable(async () =>
    (await exists(path)) ? await readFile(path) : Buffer.alloc(0),
  );
  if (!Buffer.isBuffer(all)) return { bytes: 0, passedBytes: 0, isTorn: false, problem: all };
  const bytes = all.lastIndexOf(10) + 1;
  let passedBytes = 0;
  let problem: FileProblem | undefined;
  for (const line of all.toString("utf8", 0, bytes).split("\n")) {
    const said = line === "" ? undefined : applyLine(line, table, verifier);
    if (said === "passed") passedBytes += Buffer.byteLength(line) + 1;
    else problem ??= said;
  }
  const isTorn = bytes < all.length;
  return { bytes, passedBytes, isTorn, ...(problem === undefined ? {} : { problem }) };
}

/**
 * A line without its end was being written at a crash, and was never acknowledged. It is cut off, so
 * that the next one stands for itself.
 */
export async function replayAndCut(
  path: string,
  table: TableState,
  verifier: Verifier,
): Promise<Replayed> {
  const replayed = await replayJournal(path, table, verifier);
  if (!replayed.isTorn || replayed.problem !== undefined) return replayed;
  const problem = await orUnreadable(() => truncate(path, replayed.bytes));
  return problem === undefined ? replayed : { ...replayed, problem };
}

/** What is passed over is not believed either, so its signature does not matter. */
function applyLine(
  line: string,
  table: TableState,
  verifier: Verifier,
): FileProblem | "passed" | undefined {
  const delta = signedDeltaSchema.safeParse(parseJson(line));
  if (!delta.success) return refused("corrupt", "a line of the journal is no signed delta");
  const { body, keyId, signature } = delta.data;
  const parsed = deltaBodySchema.safeParse(parseJson(body));
  if (parsed.success && parsed.data.to <= table.revision) return "passed";
  if (!verifier.verify(signaturePurposes.delta, body, keyId, signature)) {
    return refused("unsigned", `no trusted key ${keyId} has signed a line of the journal`);
  }
  if (!parsed.success) return refused("invalid", "a signed delta does not fit the contract");
  const problem = table.apply(parsed.data);
  return problem && refused("corrupt", `the journal does not follow the snapshot: ${problem.text}`);
}
