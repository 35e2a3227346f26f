/** Chance enters here and nowhere else. */
import { randomBytes, randomUUID } from "node:crypto";

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
  hex: (bytes) => randomBytes(bytes).toString("hex"),
};

/** `ms` spread by ±`share` of itself. */
export const jitter = (random: Random, ms: number, share: number): number =>
  ms * (1 + share * (2 * random.unit() - 1));

/** Operation ids sort by time of creation: 9 characters of time, then chance. */
export const newOpId = (random: Random, nowMs: number): string =>
  `op_${nowMs.toString(36).padStart(9, "0")}${random.hex(5)}`;
