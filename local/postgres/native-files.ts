/**
 * The files of the npm package: make the library links that its postinstall script would have made,
 * and copy everything out when the user who runs the server cannot reach it. Both may be done by
 * several processes at once: links are made by whoever is first, copies appear by rename.
 */
import { chmod, cp, lstat, mkdir, readdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import type { Random } from "../../runtime/random.ts";
import type { RunAs } from "./command.ts";
import { machineFolder } from "./machine-folder.ts";

/** Paths in the list are relative to the package, and begin with `native/`. */
const linksSchema = z.array(z.object({ source: z.string(), target: z.string() }));

/** `closed`: a link is missing and we may not write there. */
export async function linkLibraries(native: string): Promise<"linked" | "closed"> {
  const list = join(native, "pg-symlinks.json");
  const links = linksSchema.parse(JSON.parse(await readFile(list, "utf8").catch(() => "[]")));
  try {
    for (const { source, target } of links) {
      const path = join(dirname(native), target);
      if ((await exists(path)) || dirname(source) !== dirname(target)) continue;
      await symlink(basename(source), path).catch(ignoreExisting);
    }
    return "linked";
  } catch {
    return "closed"; // Read-only or another user's: the copy is repaired instead.
  }
}

/** A copy that everybody can read, made once per build. Returns its `native` folder. */
export async function copyOut(
  native: string,
  options: { readonly runAs: RunAs | undefined; readonly random: Random },
): Promise<string> {
  const { size, mtimeMs } = await lstat(join(native, "bin", "postgres"));
  const folder = await machineFolder(options.runAs);
  const goal = join(folder, `postgres-${size}-${Math.floor(mtimeMs)}`);
  if (await exists(goal)) return join(goal, "native");
  const draft = join(folder, `draft-${options.random.hex(6)}`);
  try {
    // The links' list counts paths from the folder above `native`.
    await mkdir(draft, { mode: 0o755 });
    await cp(native, join(draft, "native"), { recursive: true, verbatimSymlinks: true });
    await openToAll(draft);
    await linkLibraries(join(draft, "native"));
    await rename(draft, goal).catch(ignoreExisting);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return join(goal, "native");
}

async function openToAll(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await openToAll(path);
    else if (entry.isFile()) {
      const { mode } = await lstat(path);
      await chmod(path, (mode & 0o100) === 0 ? 0o644 : 0o755);
    }
  }
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

/** Somebody else was first, with the same content. */
export function ignoreExisting(error: unknown): void {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code !== "EEXIST" && code !== "ENOTEMPTY") throw error;
}
