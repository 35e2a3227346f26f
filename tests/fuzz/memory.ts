/**
 * The oracle of memory: looked at after every round, when nothing is under way, and after collections. What
 * is still there then is kept by somebody; caches are full after the first rounds.
 */
import { collectGarbage } from "../../runtime/garbage.fixture.ts";

/** Compiled code comes and goes; a kilobyte per request would be ten times as much in the shortest run. */
const growthMiBMax = 4;

export type Memory = { readonly heapMiB: number; readonly buffersMiB: number };

export async function memoryNow(): Promise<Memory> {
  // What is closed lets go of its memory a few turns later, and what that held then.
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { heapMiB: mebibytes(heapUsed), buffersMiB: mebibytes(arrayBuffers) };
}

const mebibytes = (bytes: number): number => Math.round(bytes / 1024 / 102.4) / 10;

/** Compares the last look with the least of the second half: growth that never ends shows there too. */
export function judgeMemory(looks: readonly Memory[], onFinding: (what: string) => void): void {
  const warm = looks.slice(Math.floor(looks.length / 2));
  for (const kind of ["heapMiB", "buffersMiB"] as const) {
    const least = Math.min(...warm.map((look) => look[kind]));
    const last = warm.at(-1)?.[kind] ?? 0;
    if (last - least > growthMiBMax) {
      onFinding(`memory grows: ${kind} ${looks.map((look) => look[kind]).join(", ")}`);
    }
  }
}
