/**
 * Log files of the processes: written by the processes themselves, so that nothing is lost and
 * nothing blocks when the supervisor is gone; bounded by us. At most two files of `bytesMax` each
 * per process: `NAME.log` and the one before, `NAME.log.1`.
 */
import { closeSync, openSync } from "node:fs";
import { copyFile, rename, stat, truncate } from "node:fs/promises";

const bytesMax = 32 * 1024 * 1024;

/** The last run's log becomes `.1`. */
export async function rotate(path: string): Promise<void> {
  if ((await sizeOf(path)) > 0) await rename(path, `${path}.1`);
}

/** For a process that is writing: its file is copied, then emptied under it (it appends). */
export async function trim(path: string): Promise<void> {
  if ((await sizeOf(path)) <= bytesMax) return;
  await copyFile(path, `${path}.1`);
  await truncate(path, 0);
}

/** Opens for appending, hands the descriptor over, closes ours. */
export function withLog<T>(path: string, use: (descriptor: number) => T): T {
  const descriptor = openSync(path, "a", 0o600);
  try {
    return use(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );
