/** Chance enters here and nowhere else. */
import { randomFillSync, randomUUID } from "node:crypto";

export type Random = {
  /** In [0, 1). For jitter, never for secrets. */
  readonly unit: () => number;
  readonly uuid: () => string;
  /** Lower-case hex of `bytes` random bytes from the system's generator; fit for secrets. */
  readonly hex: (bytes: number) => string;
};

export const systemRandom: Random = {
  unit: () => Math.random(),
  uuid: () => randomUUID(),
  hex: pooledHex,
};

/** One call to the system's generator for many ids; each byte is handed out once. */
const pool = Buffer.alloc(4096);
let used = pool.length;

function pooledHex(bytes: number): string {
  if (bytes > pool.length) return randomFillSync(Buffer.alloc(bytes)).toString("hex");
  if (used + bytes > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += bytes;
  return pool.toString("hex", used - bytes, used);
}

/** `ms` spread by ±`share` of itself. */
export const jitter = (random: Random, ms: number, share: number): number =>
  ms * (1 + share * (2 * random.unit() - 1));

/** Operation ids sort by time of creation: 9 characters of time, then chance. */
export const newOpId = (random: Random, nowMs: number): string =>
  `op_${nowMs.toString(36).padStart(9, "0")}${random.hex(5)}`;
