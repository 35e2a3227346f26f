/**
 * What an export is written into: under another name until it is whole, readable by its owner alone,
 * with a sum over every byte. A file of the final name is a whole export.
 */
import { createHash, type Hash } from "node:crypto";
import { access, type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CellError } from "../../contract/errors.ts";

export type SummedFile = {
  readonly write: (part: Buffer | string) => Promise<void>;
  readonly bytes: () => number;
  /** Of all bytes so far, hex. */
  readonly sha256: () => string;
  /** On disk, not only in the memory of the machine. */
  readonly close: () => Promise<void>;
};

export async function openSummed(path: string): Promise<SummedFile> {
  const handle: FileHandle = await open(path, "wx", 0o600);
  const hash: Hash = createHash("sha256");
  let bytes = 0;
  return {
    write: async (part) => {
      const buffer = typeof part === "string" ? Buffer.from(part) : part;
      if (buffer.length === 0) return;
      hash.update(buffer);
      bytes += buffer.length;
      await handle.writeFile(buffer);
    },
    bytes: () => bytes,
    sha256: () => hash.copy().digest("hex"),
    close: async () => {
      await handle.sync().finally(() => handle.close());
    },
  };
}

/**
 * `work` gets the name to write to: a file it creates, or with `folder` a folder that is there. The
 * final name appears when it has ended well; after a failure nothing is left.
 */
export async function writeWhole<T>(
  target: { readonly path: string; readonly folder: boolean; readonly mark: string },
  work: (path: string) => Promise<T>,
): Promise<T> {
  await refuseExisting(target.path);
  const part = join(dirname(target.path), `.${basename(target.path)}.${target.mark}.part`);
  try {
    if (target.folder) await mkdir(part, { mode: 0o700 });
    const result = await work(part);
    await refuseExisting(target.path);
    await rename(part, target.path);
    return result;
  } catch (error) {
    await rm(part, { recursive: true, force: true });
    throw asUnwritable(error, target.path);
  }
}

async function refuseExisting(path: string): Promise<void> {
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (!exists) return;
  throw new CellError("STATE_CONFLICT", `${path} exists, and is left as it is`, {
    nextSteps: ["choose another name, or remove it first"],
  });
}

function asUnwritable(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !("syscall" in error) || !("path" in error)) return error;
  return new CellError("CONFIG_INVALID", `cannot write ${path}: ${error.message}`, {
    cause: error,
    nextSteps: ["choose a folder that exists, that you may write and that has room"],
  });
}
