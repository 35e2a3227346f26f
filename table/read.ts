/**
 * Reads a routing table from its wire form, line by line, whether it comes from the control plane or
 * from disk. Nothing is believed before the tail: digest over every byte, signature over the digest,
 * number of placements and names, checksum of what was built.
 */
import { createHash } from "node:crypto";
import type { HashKey } from "../contract/half-sip-hash.ts";
import {
  aliasGroupSchema,
  placementGroupSchema,
  snapshotHeadSchema,
  snapshotTailSchema,
} from "../contract/routing-table.ts";
import { isTableRefusal, startTable, type TableState } from "../contract/table-state.ts";
import { nextTurn } from "../runtime/clock.ts";
import { signaturePurposes, type Verifier } from "../runtime/signing.ts";
import { parseJson } from "./parse-json.ts";

export type TableProblem = {
  readonly kind: "refused";
  readonly reason: "corrupt" | "unsigned" | "invalid" | "other-fleet";
  readonly text: string;
};
const refused = (reason: TableProblem["reason"], text: string): TableProblem => ({
  kind: "refused",
  reason,
  text,
});

/** Longest line of a snapshot: a group of 10,000 tenant ids of 128 characters, with room. */
export const lineBytesMax = 4 * 1024 * 1024;

/** Some ten milliseconds of putting a large table in order. */
const settleBuckets = 100_000;

/** Reads to the end of `chunks`; a table, or why it is none. Throws only what reading throws. */
export async function readSnapshot(
  chunks: AsyncIterable<Uint8Array>,
  verifier: Verifier,
  hashKey: HashKey,
): Promise<TableState | TableProblem> {
  const reader = new SnapshotReader(verifier, hashKey);
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    let data = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10)) {
      const problem = reader.line(data.subarray(0, end + 1));
      if (problem !== undefined) return problem;
      data = data.subarray(end + 1);
    }
    if (data.length > lineBytesMax) return refused("corrupt", "a line is too long");
    rest = data;
  }
  if (rest.length > 0) return refused("corrupt", "the last line is cut off");
  const table = reader.end();
  // What is served meanwhile must not wait.
  if ("settle" in table) while (!table.settle(settleBuckets)) await nextTurn();
  return table;
}

class SnapshotReader {
  readonly #verifier: Verifier;
  readonly #hashKey: HashKey;
  readonly #hash = createHash("sha256");
  #table: TableState | undefined;
  #promised = { placements: 0, aliases: 0 };
  #done: boolean = false;

  constructor(verifier: Verifier, hashKey: HashKey) {
    this.#verifier = verifier;
    this.#hashKey = hashKey;
  }

  line(bytes: Buffer): TableProblem | undefined {
    if (this.#done) return refused("corrupt", "there is more after the tail");
    const json = parseJson(bytes.toString("utf8"));
    if (this.#table === undefined) return this.#head(bytes, json);
    const isNames = typeof json === "object" && json !== null && "alias" in json;
    const group = (isNames ? aliasGroupSchema : placementGroupSchema).safeParse(json);
    if (!group.success) return this.#tail(json, this.#table);
    this.#hash.update(bytes);
    const problem = this.#table.load(group.data);
    return problem && refused("invalid", problem.text);
  }

  end(): TableState | TableProblem {
    if (this.#table === undefined) return refused("corrupt", "the file is empty");
    return this.#done ? this.#table : refused("corrupt", "the tail is missing");
  }

  #head(bytes: Buffer, json: unknown): TableProblem | undefined {
    const head = snapshotHeadSchema.safeParse(json);
    if (!head.success) return refused("corrupt", "the first line is no head of a routing table");
    this.#hash.update(bytes);
    const table = startTable(head.data, this.#hashKey);
    if (isTableRefusal(table)) return refused("invalid", table.text);
    this.#table = table;
    const { placements, aliases = 0 } = head.data;
    this.#promised = { placements, aliases };
    return undefined;
  }

  #tail(json: unknown, table: TableState): TableProblem | undefined {
    const tail = snapshotTailSchema.safeParse(json);
    if (!tail.success) return refused("corrupt", "a line is neither placements nor names nor tail");
    const { digest, checksum, keyId, signature } = tail.data;
    if (this.#hash.digest("hex") !== digest) return refused("corrupt", "the digest does not fit");
    if (!this.#verifier.verify(signaturePurposes.routingTable, digest, keyId, signature)) {
      return refused("unsigned", `no trusted key ${keyId} has signed this table`);
    }
    const { placements, aliases } = this.#promised;
    const isWhole = table.size === placements && table.aliasCount === aliases;
    if (!isWhole || table.checksum !== checksum) {
      const text = "the placements and names are not those that the head and the tail speak of";
      return refused("corrupt", text);
    }
    this.#done = true;
    return undefined;
  }
}
