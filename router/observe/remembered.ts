/**
 * What became of requests that somebody may ask about: every refusal and every failure, and one in
 * `sampleEvery` of the rest, until newer ones take their places.
 *
 * Each kind has a ring of its own, bounded in entries and in bytes: a flood of refused requests, which
 * anybody can send, must not push out the failures that an operator looks for. Entries are kept as
 * text, so that their size is known and the garbage collector has little to walk through.
 */
import {
  type RememberedAnswer,
  type RememberedKind,
  type RememberedRequest,
  rememberedKinds,
  rememberedRequestSchema,
} from "../../contract/remembered-request.ts";
import { isoTime } from "../../runtime/clock.ts";
import type { RequestRecord } from "./record.ts";
import { noteOf, storyOf } from "./told-request.ts";

export type RememberedLimits = { readonly requestsMax: number; readonly bytesMax: number };

/** Parts of the whole that each kind may fill. */
const shares: Readonly<Record<RememberedKind, number>> = {
  failed: 0.5,
  refused: 0.4,
  sampled: 0.1,
};
const sampleEvery = 100;
/** A client may give the same id to many requests. */
const answersMax = 20;

type Entry = { readonly id: string; readonly atMs: number; readonly text: string };

export class Remembered {
  readonly #router: string;
  readonly #nowMs: () => number;
  readonly #startedMs: number;
  readonly #rings: Readonly<Record<RememberedKind, Ring>>;
  #passed = 0;

  constructor(options: {
    readonly router: string;
    readonly nowMs: () => number;
    readonly limits: RememberedLimits;
  }) {
    const { requestsMax, bytesMax } = options.limits;
    const ring = (kind: RememberedKind) =>
      new Ring(Math.ceil(requestsMax * shares[kind]), Math.ceil(bytesMax * shares[kind]));
    this.#router = options.router;
    this.#nowMs = options.nowMs;
    this.#startedMs = options.nowMs();
    this.#rings = { failed: ring("failed"), refused: ring("refused"), sampled: ring("sampled") };
  }

  /** Called once per request, when it is over. */
  consider(record: RequestRecord, endedMs: number): void {
    const kind = this.#kindOf(record);
    if (kind === undefined) return;
    const atMs = this.#nowMs();
    const note = { ...noteOf(record, endedMs), router: this.#router, at: isoTime(atMs), kind };
    const id = record.trace.requestId;
    this.#rings[kind].push({ id, atMs, text: JSON.stringify(note) });
  }

  /** Newest first. */
  find(requestId: string): RememberedAnswer {
    const found = rememberedKinds.flatMap((kind) => this.#rings[kind].find(requestId));
    const newest = found.sort((a, b) => b.atMs - a.atMs).slice(0, answersMax);
    const [failed, refused, sampled] = rememberedKinds.map((kind) => this.#rings[kind].span());
    return {
      router: this.#router,
      startedAt: isoTime(this.#startedMs),
      items: newest.map(({ text }) => told(text)),
      remembers: { failed, refused, sampled } as RememberedAnswer["remembers"],
    };
  }

  /** Entries now, by kind. */
  kept(): ReadonlyArray<readonly [{ readonly kind: RememberedKind }, number]> {
    return rememberedKinds.map((kind) => [{ kind }, this.#rings[kind].span().kept] as const);
  }

  #kindOf(record: RequestRecord): RememberedKind | undefined {
    const { status, flag } = record;
    if (status >= 500 || status === 0) return "failed";
    if (record.errorCode !== undefined) return "refused";
    if (flag !== "ok") return "failed";
    this.#passed += 1;
    if (this.#passed < sampleEvery) return undefined;
    this.#passed = 0;
    return "sampled";
  }
}

function told(text: string): RememberedRequest {
  const note: unknown = JSON.parse(text);
  const parsed = rememberedRequestSchema.omit({ trace: true, nextSteps: true }).loose().parse(note);
  return rememberedRequestSchema.parse({ ...parsed, ...storyOf(parsed) });
}

/** The newest entries, at most so many and at most so many bytes. */
class Ring {
  readonly #max: number;
  readonly #bytesMax: number;
  readonly #entries: (Entry | undefined)[] = [];
  /** Entries `#first` … `#next` - 1 are there; the place of one is its number modulo `#max`. */
  #first = 0;
  #next = 0;
  #bytes = 0;

  constructor(max: number, bytesMax: number) {
    this.#max = max;
    this.#bytesMax = bytesMax;
  }

  push(entry: Entry): void {
    if (this.#next - this.#first === this.#max) this.#drop();
    this.#entries[this.#next % this.#max] = entry;
    this.#next += 1;
    this.#bytes += sizeOf(entry);
    while (this.#bytes > this.#bytesMax) this.#drop();
  }

  find(id: string): Entry[] {
    return this.#entries.filter((entry) => entry?.id === id).flatMap((entry) => entry ?? []);
  }

  span(): { readonly kept: number; readonly max: number; readonly since: string | null } {
    const oldest = this.#entries[this.#first % this.#max];
    const since = this.#first === 0 || oldest === undefined ? null : isoTime(oldest.atMs);
    return { kept: this.#next - this.#first, max: this.#max, since };
  }

  #drop(): void {
    const place = this.#first % this.#max;
    const entry = this.#entries[place];
    this.#entries[place] = undefined;
    this.#first += 1;
    if (entry !== undefined) this.#bytes -= sizeOf(entry);
  }
}

/** Two bytes a character at worst, and what an entry costs beside its text. */
const sizeOf = ({ id, text }: Entry): number => 2 * (text.length + id.length) + 100;
