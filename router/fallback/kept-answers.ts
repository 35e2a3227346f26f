/**
 * The last good answers of GETs on routes that may be answered stale: bounded in bytes, the least
 * recently used leaves first.
 *
 * What must always be true: an answer is found only under the placement, epoch and cell that gave it, so
 * a move, a failover or another tenant never meets it; it is never given out while the cell answers.
 */
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { RawHeaders } from "../../contract/raw-headers.ts";

export type KeptAnswer = {
  /** The placement that it belongs to, and by which cell and epoch. */
  readonly owner: Pick<FoundRoute, "key" | "cell" | "epoch">;
  readonly headers: RawHeaders;
  readonly body: Buffer;
  /** Of the clock that the owner uses, when the answer was whole. */
  readonly atMs: number;
  /** The request's values of the fields that the answer varies by (`variantOf`). */
  readonly variant: string;
  readonly varyBy: readonly string[];
};

export type KeptLimits = {
  /** Of all answers together, bodies and heads. */
  readonly totalBytesMax: number;
  readonly answerBytesMax: number;
};
export const keptLimits: KeptLimits = {
  totalBytesMax: 64 * 1024 * 1024,
  answerBytesMax: 1024 * 1024,
};

const entryBytes = 512;

export class KeptAnswers {
  readonly #limits: KeptLimits;
  /** In order of use, the oldest first. */
  readonly #answers = new Map<string, KeptAnswer>();
  #bytes = 0;

  constructor(limits: KeptLimits) {
    this.#limits = limits;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#answers.size;
  }

  get answerBytesMax(): number {
    return this.#limits.answerBytesMax;
  }

  find(key: string): KeptAnswer | undefined {
    const found = this.#answers.get(key);
    if (found === undefined) return undefined;
    this.#answers.delete(key);
    this.#answers.set(key, found);
    return found;
  }

  keep(key: string, answer: KeptAnswer): void {
    this.drop(key);
    const bytes = sizeOf(key, answer);
    if (answer.body.length > this.#limits.answerBytesMax || bytes > this.#limits.totalBytesMax) {
      return;
    }
    this.#answers.set(key, answer);
    this.#bytes += bytes;
    for (const oldest of this.#answers.keys()) {
      if (this.#bytes <= this.#limits.totalBytesMax) break;
      this.drop(oldest);
    }
  }

  drop(key: string): void {
    const found = this.#answers.get(key);
    if (found === undefined) return;
    this.#answers.delete(key);
    this.#bytes -= sizeOf(key, found);
  }

  sweep(stays: (answer: KeptAnswer) => boolean): void {
    for (const [key, answer] of this.#answers) {
      if (!stays(answer)) this.drop(key);
    }
  }
}

const sizeOf = (key: string, { headers, body, variant }: KeptAnswer): number =>
  headers.reduce((sum, part) => sum + part.length, body.length + key.length + variant.length) +
  entryBytes;
