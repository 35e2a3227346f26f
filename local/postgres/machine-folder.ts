/**
 * Folders that both we and the unprivileged user can reach.
 *
 * The machine's cache (`cellfleet-UID` in the temporary folder) holds only what can be made again:
 * a readable copy of the binaries, templates. It lies in a folder where anybody may write, so it is
 * used only when it is ours and nobody else can write into it.
 */
import { lstat, mkdir, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { CellError } from "../../contract/errors.ts";
import { type RunAs, runCommand } from "./command.ts";

const compiledMaxMs = 7 * 24 * 3_600_000;

export async function machineFolder(runAs: RunAs | undefined): Promise<string> {
  const refused: string[] = [];
  for (const parent of new Set([tmpdir(), "/tmp", "/var/tmp"])) {
    const folder = join(parent, `cellfleet-${process.getuid?.() ?? 0}`);
    const trouble = await claim(folder, runAs);
    if (trouble === undefined) return folder;
    refused.push(`${folder}: ${trouble}`);
  }
  throw new CellError("CONFIG_INVALID", `No folder for the cache: ${refused.join("; ")}.`, {
    nextSteps: ["set TMPDIR to a folder that you own"],
  });
}

/**
 * Where our processes keep compiled code (NODE_COMPILE_CACHE): it halves the processor time that a
 * start of nine of them takes. Nobody else may write there, as what lies there is run.
 */
export async function compiledCodeFolder(runAs: RunAs | undefined, nowMs: number): Promise<string> {
  const folder = join(await machineFolder(runAs), "compiled");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // Node never removes what older code left.
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: nowMs }));
    if (entry.isFile() && nowMs - mtimeMs > compiledMaxMs) await rm(path, { force: true });
  }
  return folder;
}

/** Can this user enter and read the folder, through all the folders above it? */
export async function canReach(folder: string, runAs: RunAs | undefined): Promise<boolean> {
  if (runAs === undefined) return true;
  const probe = ["-c", 'test -x "$1" && test -x "$2"', "probe", dirname(folder), folder];
  return (await runCommand("/bin/sh", probe, { runAs, env: {} })).code === 0;
}

async function claim(folder: string, runAs: RunAs | undefined): Promise<string | undefined> {
  try {
    await mkdir(folder, { mode: runAs === undefined ? 0o700 : 0o711 });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) {
      return error instanceof Error ? error.message : String(error);
    }
  }
  const status = await lstat(folder);
  if (!status.isDirectory()) return "not a folder";
  if (status.uid !== process.getuid?.()) return `belongs to uid ${status.uid}`;
  if ((status.mode & 0o022) !== 0) return "others may write into it";
  return (await canReach(folder, runAs)) ? undefined : `closed to the user ${runAs?.name}`;
}
