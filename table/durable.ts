/** Small steps on a disk that a crash must not undo. */
import { open, stat } from "node:fs/promises";

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}

export const isFolder = async (path: string): Promise<boolean> =>
  (await exists(path)) && (await stat(path)).isDirectory();

/** A file that was renamed is under its new name after a power cut only when this is done. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
