/**
 * The last good table on disk: a signed snapshot, and beside it the signed deltas since,
 * appended and synced one by one, so that a small change of a large table costs a small write. When
 * the journal has grown large, the follower asks for a new snapshot and the journal starts again.
 *
 * What must always be true: what is read back was signed by the control plane (`restore.ts`). A file that
 * fails this is refused with a reason and never overwritten: it is kept aside before a good one takes
 * its place. There are always two: the snapshot that is replaced is kept with its journal, and of the
 * first one there is a copy, so that one flipped bit cannot take the last good table away.
 *
 * Of a large table there is an image, too (`image-file.ts`), made of the signed files and read in their
 * place because it is there in a moment. It is gone before a snapshot takes the place of what it was
 * made from; when it is refused, the signed files are read.
 */
import { copyFile, type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { HashKey } from "../contract/half-sip-hash.ts";
import type { SignedDelta } from "../contract/routing-table.ts";
import type { TableState } from "../contract/table-state.ts";
import type { Verifier } from "../runtime/signing.ts";
import { exists, isFolder, syncFolder } from "./durable.ts";
import { writeImage } from "./image-file.ts";
import type { ImageKey } from "./image-key.ts";
import type { FileProblem } from "./problem.ts";
import { findTable, type Restored, snapshotBytes } from "./restore.ts";
import { readSeen, writeSeen, writtenAtMs } from "./seen.ts";

export type ImageOptions = {
  readonly key: ImageKey;
  /** A smaller table has no image: its snapshot is read as fast. */
  readonly tenantsMin?: number;
};
const imageTenantsMin = 10_000;
/** The journal may go on beyond an image by this, or by its share of the snapshot if that is more. */
const imageLagBytesMin = 1024 * 1024;
const imageLagShare = 1 / 64;

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
  #previousRefused: boolean = false;
  #storedRevision = 0;
  #copyJob: Promise<void> | undefined;
  #copyTried: boolean = false;

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

  /** What the next process would find here; 0: nothing. */
  get storedRevision(): number {
    return this.#storedRevision;
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

  /** `image` and `memory`: why they were not read, when they were there. Throws only for a new folder. */
  async restore(): Promise<
    Restored & { readonly image?: FileProblem; readonly memory?: FileProblem }
  > {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const read = await readSeen(this.#dir);
    const memory = read !== undefined && "kind" in read ? read : undefined;
    const seen = read === undefined || "kind" in read ? undefined : read;
    this.#fleet = seen?.fleet;
    this.#heardAtMs = seen?.heardAtMs ?? (await writtenAtMs(this.#dir));
    const [dir, verifier, hashKey] = [this.#dir, this.#verifier, this.#hashKey];
    const found = await findTable({ dir, verifier, hashKey, imageKey: this.#image?.key }, seen);
    const { restored, image } = found;
    this.#snapshotBytes = (await snapshotBytes(dir)) ?? 0;
    this.#journalBytes = found.journalBytes;
    this.#imagedBytes = found.imagedBytes;
    this.#refused = found.isRefused;
    this.#previousRefused = found.isPreviousRefused;
    // What is damaged is followed by a snapshot, never by another change.
    this.#broken = restored.kind !== "restored" || restored.damaged !== undefined;
    this.#storedRevision = restored.kind === "restored" ? restored.table.revision : 0;
    return {
      ...restored,
      ...(image === undefined ? {} : { image }),
      ...(memory === undefined ? {} : { memory }),
    };
  }

  /**
   * The second copy, if there is none, and the image, if it is time for a new one. One at a time; the
   * table may move on meanwhile.
   */
  async keepCopies(table: TableState): Promise<void> {
    if (!this.#copyTried && !this.#broken && !this.#refused) {
      this.#copyTried = true;
      this.#copyJob = this.#keepSecond();
      await this.#copyJob;
    }
    await this.#keepImage(table);
  }

  async #keepImage(table: TableState): Promise<void> {
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
        await file.sync().finally(() => file.close());
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
    this.#storedRevision = table.revision;
    await this.#remember(table);
  }

  /** What is served now has no copy here: no change may be appended to what it does not follow. */
  missed(): void {
    this.#broken = true;
  }

  async close(): Promise<void> {
    await this.#copyJob?.catch(() => {});
    await this.#imageJob?.catch(() => {});
    const journal = this.#journal;
    this.#journal = undefined;
    await journal?.close();
  }

  /**
   * A crash between any two steps leaves files that lead to the old table or to the new one: the journal
   * is the last to move, and what it has and the new snapshot contains is passed over.
   */
  async #replace(path: string, table: TableState, bytes: number): Promise<void> {
    await this.close();
    this.#broken = true;
    const current = this.#path("table.ndjson");
    // First: of the same revision it could be the very table that had drifted.
    await rm(this.#path("table.image"), { force: true });
    if (this.#previousRefused) {
      await this.#keepAside("table.previous.ndjson");
      await this.#keepAside("journal.previous.ndjson");
    }
    if (this.#refused) {
      await this.#keepAside("table.ndjson");
      await rename(path, current);
      await this.#keepAside("journal.ndjson");
    } else {
      await this.#turnOver(path);
    }
    await syncFolder(this.#dir);
    this.#imagedBytes = undefined;
    this.#refused = false;
    this.#previousRefused = false;
    this.#broken = false;
    this.#snapshotBytes = bytes;
    this.#journalBytes = 0;
    this.#storedRevision = table.revision;
    await this.#remember(table);
    this.#copyTried = true;
    await this.#keepSecond();
  }

  /** The snapshot that was served from becomes the one before, its journal goes with it. */
  async #turnOver(fresh: string): Promise<void> {
    const current = this.#path("table.ndjson");
    if (await exists(current)) {
      for (const name of ["table.previous.ndjson", "journal.previous.ndjson"]) {
        if (await isFolder(this.#path(name))) await this.#keepAside(name);
      }
      await rm(this.#path("journal.previous.ndjson"), { force: true });
      await rename(current, this.#path("table.previous.ndjson"));
    }
    await rename(fresh, current);
    const journal = this.#path("journal.ndjson");
    if (await exists(journal)) await rename(journal, this.#path("journal.previous.ndjson"));
  }

  /** Of a first snapshot, or one that an earlier release wrote. A link would share each flipped bit. */
  async #keepSecond(): Promise<void> {
    const previous = this.#path("table.previous.ndjson");
    if (await exists(previous)) return;
    const fresh = `${previous}.new`;
    try {
      await copyFile(this.#path("table.ndjson"), fresh);
      const file = await open(fresh, "r+");
      await file.sync().finally(() => file.close());
    } catch (error) {
      await rm(fresh, { force: true });
      throw error;
    }
    await rename(fresh, previous);
    await syncFolder(this.#dir);
  }

  async #keepAside(name: string): Promise<void> {
    const path = this.#path(name);
    if (await exists(path)) await rename(path, await this.#freeName(`${name}.refused`));
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

  async #remember({ fleet, revision }: TableState): Promise<void> {
    this.#fleet = fleet;
    const heardAtMs = this.#heardAtMs;
    // Before the write: a disk that takes nothing is not asked with each answer.
    this.#heardWrittenAtMs = heardAtMs ?? 0;
    await writeSeen(this.#dir, { fleet, revision, heardAtMs });
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
