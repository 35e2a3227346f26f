/**
 * One run of a hook that is a command: JSON on its standard input, exit code 0 for done.
 *
 * It is the leader of a process group of its own. When the time is over, when the signal aborts, and also
 * when it has ended by itself, the whole group is killed: nothing that it started stays behind. Its environment
 * is PATH alone, for what the control plane has in its own are secrets.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import type { Clock } from "../runtime/clock.ts";
import type { HookCall, HookFailure } from "./hooks.ts";
import { excerptBytesMax, excerptOf } from "./hooks-excerpt.ts";

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const lastWordsMs = 200;

type End =
  | { readonly code: number | null; readonly signal: string | null }
  | { readonly error: Error };

export async function runHookCommand(
  command: string,
  { body, timeoutMs, signal }: HookCall,
  clock: Clock,
): Promise<HookFailure | undefined> {
  const child = spawn("/bin/sh", ["-c", command], {
    cwd: "/",
    env: { PATH: path },
    detached: true,
    stdio: "pipe",
  });
  const heard = listen(child);
  let late = false;
  const timer = clock.after(timeoutMs, () => {
    late = true;
    killGroup(child);
  });
  const stop = () => killGroup(child);
  signal.addEventListener("abort", stop, { once: true });
  child.stdin.on("error", () => {}); // A command need not read what it is told.
  child.stdin.end(body);
  try {
    const end = await ended(child, clock);
    if (late) return { text: `it was killed: not done within ${timeoutMs} ms`, again: false };
    if ("error" in end) return { text: `it could not be run: ${end.error.message}`, again: false };
    if (end.code === 0) return undefined;
    const how = end.code === null ? `it was ended by ${end.signal}` : `it exited with ${end.code}`;
    return { text: `${how}: ${excerptOf(heard())}`, again: end.code !== null };
  } finally {
    timer.cancel();
    signal.removeEventListener("abort", stop);
    child.stdout.destroy();
    child.stderr.destroy();
  }
}

/**
 * The shell's own end. What it has started may keep the pipes open, so that goes first; then what was
 * said last is heard, unless something has left the group and still holds a pipe.
 */
async function ended(child: ChildProcessWithoutNullStreams, clock: Clock): Promise<End> {
  const closed = new AbortController();
  child.once("close", () => closed.abort());
  const end = await new Promise<End>((resolve) => {
    child.once("error", (error) => resolve({ error }));
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
  killGroup(child);
  await clock.sleep(lastWordsMs, closed.signal);
  return end;
}

/** What is beyond the limit is read as well, or the command would wait for us; and forgotten. */
function listen(child: ChildProcessWithoutNullStreams): () => Buffer {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const hear = (chunk: Buffer) => {
    if (bytes < excerptBytesMax) chunks.push(chunk);
    bytes += chunk.length;
  };
  child.stderr.on("data", hear);
  child.stdout.on("data", hear);
  return () => Buffer.concat(chunks).subarray(0, excerptBytesMax);
}

function killGroup({ pid }: ChildProcessWithoutNullStreams): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // All of it has ended already.
  }
}
