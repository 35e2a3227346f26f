/**
 * The last good table on disk: a signed snapshot, and beside it the signed deltas since,
 * appended and synced one by one, so that a small change of a large table costs a small write. When
 * the journal has grown large, the follower asks for a new snapshot and the journal starts again.
 *
 * What must always be true: what is read back was signed by the control plane, is whole, and is not
 * older than what was served from here before (`seen.json` remembers). A file that fails this is
 * refused with a reason and never overwritten: it is kept aside before a good one takes its place.
 *
 * Of a large table there is an image, too (`image-file.ts`), made of the signed files and read in their
 * place because it is there in a moment. It is gone before a snapshot takes the place of what it was
 * made from; when it is refused, the signed files are read.
 */
import { createReadStream } from "node:fs";
import {
  type FileHandle,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  truncate,
} from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { HashKey } from "../contract/half-sip-hash.ts";
import {
  deltaBodySchema,
  type SignedDelta,
  signedDeltaSchema,
  snapshotHeadSchema,
} from "../contract/routing-table.ts";
import { TableState } from "../contract/table-state.ts";
import { signaturePurposes, type Verifier } from "../runtime/signing.ts";
import { exists, syncFolder } from "./durable.ts";
import { readImage, writeImage } from "./image-file.ts";
import type { ImageKey } from "./image-key.ts";
import { parseJson } from "./parse-json.ts";
import { lineBytesMax, readSnapshot } from "./read.ts";

export type FileProblem = {
  readonly kind: "refused";
  readonly reason: "corrupt" | "unsigned" | "invalid" | "other-fleet" | "older";
  readonly text: string;
};
export type Restored =
  | { readonly kind: "restored"; readonly table: TableState }
  | FileProblem
  | { readonly kind: "absent" };

export type ImageOptions = {
  readonly key: ImageKey;
  /** A smaller table has no image: its snapshot is read as fast. */
  readonly tenantsMin?: number;
};
const imageTenantsMin = 10_000;
/** The journal may go on beyond an image by this, or by its share of the snapshot if that is more. */
const imageLagBytesMin = 1024 * 1024;
const imageLagShare = 1 / 64;

const seenSchema = z.object({
  fleet: z.string(),
  revision: z.number().int().min(0),
  /** By this machine's clock; absent in what an earlier release wrote. */
  heardAtMs: z.number().min(0).optional(),
});

/** So often the time of an answer is written down: by so much the age after a restart may be too high. */
const heardEveryMs = 10_000;

/** The journal may grow to this, or to the size of the snapshot if that is more. */
const journalBytesMin = 8 * 1024 * 1024;

export class TableFile {
  readonly #dir: string;
  readonly #verifier: Verifier;
  readonly #hashKey: HashKey;
  readonly #image: ImageOptions | undefined;
  #imageJob: Promise<void> | undefined;
  /** How far the journal is contained in the image; undefined when there is none. */
  #imagedBytes: number | undefined;
  #journal: FileHandle | undefined;
  #journalBytes = 0;
  #snapshotBytes = 0;
  #fleet: string | undefined;
  #heardAtMs: number | undefined;
  #heardWrittenAtMs = 0;
  /** A delta is missing in the journal: nothing may follow it before there is a new snapshot. */
  #broken: boolean = false;
  /** What lies there was refused: it is kept aside before anything is written. */
  #refused: boolean = false;

  constructor(dir: string, verifier: Verifier, hashKey: HashKey, image?: ImageOptions) {
    this.#dir = dir;
    this.#verifier = verifier;
    this.#hashKey = hashKey;
    this.#image = image;
  }

  /** True when a new snapshot would be shorter to read than what is there. */
  get wantsSnapshot(): boolean {
    return this.#broken || this.#journalBytes > Math.max(journalBytesMin, this.#snapshotBytes);
  }

  /** The fleet that this folder belongs to, once a table of it has been written. */
  get fleet(): string | undefined {
    return this.#fleet;
  }

  /** When the control plane last answered, as far as is written; undefined when nothing ever was. */
  get heardAtMs(): number | undefined {
    return this.#heardAtMs;
  }

  /**
   * An answer came: the age of what lies here counts from now, in the next process, too. One small
   * write in ten seconds, not synced: after a power cut the table is told older than it is, never newer.
   */
  async heard(table: TableState | undefined, nowMs: number): Promise<void> {
    this.#heardAtMs = nowMs;
    // A clock that was set back must not keep it from being written for as long.
    const isFresh = Math.abs(nowMs - this.#heardWrittenAtMs) < heardEveryMs;
    if (table === undefined || this.#fleet === undefined || isFresh) return;
    await this.#remember(table);
  }

  /** `image`: why it was not read, when it was there. */
  async restore(): Promise<Restored & { readonly image?: FileProblem }> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const seen = await this.#seen();
    this.#fleet = seen?.fleet;
    this.#heardAtMs = seen?.heardAtMs ?? (await this.#writtenAtMs());
    const image = await this.#restoreImage();
    if (image.kind === "restored") return image;
    this.#imagedBytes = undefined;
    const restored = await this.#read();
    this.#refused = restored.kind === "refused";
    return image.kind === "refused" ? { ...restored, image } : restored;
  }

  /** If it is time for a new one. One at a time; the table may move on meanwhile. */
  async keepImage(table: TableState): Promise<void> {
    const image = this.#image;
    if (image === undefined || !this.#isImageDue()) return;
    if (table.size < (image.tenantsMin ?? imageTenantsMin)) return;
    const imagedBytes = this.#journalBytes;
    this.#imageJob = writeImage(this.#path("table.image"), table.share(), image.key)
      .then(() => {
        this.#imagedBytes = imagedBytes;
      })
      .finally(() => {
        this.#imageJob = undefined;
      });
    await this.#imageJob;
  }

  /** Writes `chunks` beside the old file and takes its place when all of it is on the disk. */
  async beginSnapshot(): Promise<SnapshotWriter> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const path = this.#path("table.ndjson.new");
    const file = await open(path, "w", 0o600);
    let bytes = 0;
    return {
      write: async (chunk) => {
        bytes += chunk.length;
        await file.writeFile(chunk);
      },
      commit: async (table) => {
        await file.sync();
        await file.close();
        await this.#replace(path, table, bytes);
      },
      discard: async () => {
        await file.close();
        await rm(path, { force: true });
      },
    };
  }

  /** Throws what the disk says; from then on only a new snapshot makes the file good again. */
  async append(delta: SignedDelta, table: TableState): Promise<void> {
    if (this.#broken) throw new Error("the journal lacks an earlier change");
    const line = Buffer.from(`${JSON.stringify(delta)}\n`, "utf8");
    try {
      this.#journal ??= await open(this.#path("journal.ndjson"), "a", 0o600);
      await this.#journal.writeFile(line);
      await this.#journal.datasync();
    } catch (error) {
      this.#broken = true;
      throw error;
    }
    this.#journalBytes += line.length;
    await this.#remember(table);
  }

  async close(): Promise<void> {
    await this.#imageJob?.catch(() => {});
    const journal = this.#journal;
    this.#journal = undefined;
    await journal?.close();
  }

  /** A crash before the journal is gone leaves deltas that the snapshot contains; they are passed over. */
  async #replace(path: string, table: TableState, bytes: number): Promise<void> {
    await this.close();
    if (this.#refused) await this.#keepAside();
    // First: of the same revision it could be the very table that had drifted.
    await rm(this.#path("table.image"), { force: true });
    await rename(path, this.#path("table.ndjson"));
    await rm(this.#path("journal.ndjson"), { force: true });
    await syncFolder(this.#dir);
    this.#imagedBytes = undefined;
    this.#refused = false;
    this.#broken = false;
    this.#snapshotBytes = bytes;
    this.#journalBytes = 0;
    await this.#remember(table);
  }

  async #keepAside(): Promise<void> {
    for (const name of ["table.ndjson", "journal.ndjson"]) {
      const path = this.#path(name);
      if (await exists(path)) await rename(path, await this.#freeName(`${name}.refused`));
    }
  }

  async #freeName(wanted: string): Promise<string> {
    for (let nth = 1; ; nth += 1) {
      const path = this.#path(`${wanted}-${nth}`);
      if (!(await exists(path))) return path;
    }
  }

  #isImageDue(): boolean {
    if (this.#imageJob !== undefined || this.#broken) return false;
    if (this.#imagedBytes === undefined) return true;
    const lagMax = Math.max(imageLagBytesMin, this.#snapshotBytes * imageLagShare);
    return this.#journalBytes - this.#imagedBytes > lagMax;
  }

  async #restoreImage(): Promise<Restored> {
    if (this.#image === undefined) return { kind: "absent" };
    const read = await readImage(this.#path("table.image"), this.#image.key);
    if (read.kind !== "image") return read;
    const table = TableState.fromShared(read.shared, true);
    const imaged = table.revision;
    const snapshot = await this.#snapshotRevision();
    if (snapshot !== undefined && snapshot > imaged) {
      return refused("older", `the image is at revision ${imaged}, the snapshot at ${snapshot}`);
    }
    this.#imagedBytes = 0;
    const problem = (await this.#replay(table)) ?? (await this.#compareSeen(table));
    if (problem !== undefined) return problem;
    // Without a good snapshot beside it the image is all there is: another one is asked for.
    this.#broken = snapshot === undefined;
    this.#refused = snapshot === undefined;
    return { kind: "restored", table };
  }

  /** As its head says, which nobody has verified: good for a comparison. Undefined: there is no such head. */
  async #snapshotRevision(): Promise<number | undefined> {
    const path = this.#path("table.ndjson");
    if (!(await exists(path))) return undefined;
    this.#snapshotBytes = (await stat(path)).size;
    const chunks: Buffer[] = [];
    for await (const chunk of createReadStream(path, { end: lineBytesMax })) {
      chunks.push(Buffer.from(chunk));
      if (chunk.includes(10)) break;
    }
    const [line = ""] = Buffer.concat(chunks).toString("utf8").split("\n", 1);
    return snapshotHeadSchema.safeParse(parseJson(line)).data?.revision;
  }

  async #read(): Promise<Restored> {
    const path = this.#path("table.ndjson");
    if (!(await exists(path))) return { kind: "absent" };
    this.#snapshotBytes = (await stat(path)).size;
    const table = await readSnapshot(createReadStream(path), this.#verifier, this.#hashKey);
    if ("kind" in table) return table;
    const problem = (await this.#replay(table)) ?? (await this.#compareSeen(table));
    return problem ?? { kind: "restored", table };
  }

  /** Deltas that the snapshot contains already are passed over: a crash may leave them. */
  async #replay(table: TableState): Promise<FileProblem | undefined> {
    const path = this.#path("journal.ndjson");
    if (!(await exists(path))) return undefined;
    const text = await readFile(path, "utf8");
    const whole = text.lastIndexOf("\n") + 1;
    for (const line of text.slice(0, whole).split("\n")) {
      const said = line === "" ? undefined : this.#applyLine(line, table);
      if (said === "passed" && this.#imagedBytes !== undefined) {
        this.#imagedBytes += Buffer.byteLength(line) + 1;
      } else if (said !== undefined && said !== "passed") return said;
    }
    this.#journalBytes = Buffer.byteLength(text.slice(0, whole));
    // A line without its end was being written at a crash, and was never acknowledged.
    if (whole < text.length) await truncate(path, this.#journalBytes);
    return undefined;
  }

  /** What is passed over is not believed either, so its signature does not matter. */
  #applyLine(line: string, table: TableState): FileProblem | "passed" | undefined {
    const delta = signedDeltaSchema.safeParse(parseJson(line));
    if (!delta.success) return refused("corrupt", "a line of the journal is no signed delta");
    const { body, keyId, signature } = delta.data;
    const parsed = deltaBodySchema.safeParse(parseJson(body));
    if (parsed.success && parsed.data.to <= table.revision) return "passed";
    if (!this.#verifier.verify(signaturePurposes.delta, body, keyId, signature)) {
      return refused("unsigned", `no trusted key ${keyId} has signed a line of the journal`);
    }
    if (!parsed.success) return refused("invalid", "a signed delta does not fit the contract");
    const problem = table.apply(parsed.data);
    return (
      problem && refused("corrupt", `the journal does not follow the snapshot: ${problem.text}`)
    );
  }

  async #compareSeen(table: TableState): Promise<FileProblem | undefined> {
    const seen = await this.#seen();
    if (seen === undefined) return undefined;
    const { fleet, revision } = seen;
    if (fleet !== table.fleet) {
      return refused(
        "other-fleet",
        `the file is of fleet ${table.fleet}, this process serves ${fleet}`,
      );
    }
    return table.revision < revision
      ? refused("older", `the file is at revision ${table.revision}, ${revision} was served before`)
      : undefined;
  }

  /** Nothing is written here before an answer: without a note of its time, this is the best that is known. */
  async #writtenAtMs(): Promise<number | undefined> {
    for (const name of ["seen.json", "table.ndjson", "table.image"]) {
      if (await exists(this.#path(name))) return (await stat(this.#path(name))).mtimeMs;
    }
    return undefined;
  }

  /** Without a readable memory there is nothing to compare with; signatures still hold. */
  async #seen(): Promise<z.infer<typeof seenSchema> | undefined> {
    const path = this.#path("seen.json");
    if (!(await exists(path))) return undefined;
    return seenSchema.safeParse(parseJson(await readFile(path, "utf8"))).data;
  }

  /**
   * Not synced: an older memory after a power cut only weakens the comparison, and the file that it
   * is compared with is synced itself.
   */
  async #remember({ fleet, revision }: TableState): Promise<void> {
    this.#fleet = fleet;
    const heardAtMs = this.#heardAtMs;
    // Before the write: a disk that takes nothing is not asked with each answer.
    this.#heardWrittenAtMs = heardAtMs ?? 0;
    const path = this.#path("seen.json");
    const file = await open(`${path}.new`, "w", 0o600);
    try {
      await file.writeFile(`${JSON.stringify({ fleet, revision, heardAtMs })}\n`);
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
  }

  #path(name: string): string {
    return join(this.#dir, name);
  }
}

export type SnapshotWriter = {
  readonly write: (chunk: Uint8Array) => Promise<void>;
  readonly commit: (table: TableState) => Promise<void>;
  readonly discard: () => Promise<void>;
};

const refused = (reason: FileProblem["reason"], text: string): FileProblem => ({
  kind: "refused",
  reason,
  text,
});
