/**
 * What the gates of this cell have let pass and would have refused in `enforce`, by code.
 *
 * Only one agent of a cell, the primary, reports to the control plane; so agents tell each other their
 * numbers through the cell's database, each as a total since its process began. A number that is
 * heard twice or late changes nothing; one of an agent that is gone stays until this process ends.
 */
import { z } from "zod";
import type { Counter } from "../../runtime/metrics.ts";
import { passageCodes } from "./passage.ts";

type Code = (typeof passageCodes)[number];
type Counts = Readonly<Partial<Record<Code, number>>>;

/** Of NOTIFY. */
export const gateChannel = "cellfleet_gate";
/** Agents of one cell whose numbers are kept; far more than stand in front of one database. */
const agentsMax = 200;
const repeatMs = 5000;

const toldSchema = z.object({
  instance: z.string().max(64),
  counts: z.partialRecord(z.enum(passageCodes), z.number().int().min(0)),
});

export class WouldRefuse {
  readonly #instance: string;
  readonly #counter: Counter;
  readonly #own = new Map<Code, number>();
  readonly #others = new Map<string, Counts>();
  #told = "";
  #toldMonoMs = Number.NEGATIVE_INFINITY;

  constructor(instance: string, counter: Counter) {
    this.#instance = instance;
    this.#counter = counter;
  }

  readonly note = (code: Code): void => {
    this.#own.set(code, (this.#own.get(code) ?? 0) + 1);
    this.#counter.inc({ reason: code });
  };

  /** Of all gates of the cell that were heard of. */
  counts(): Readonly<Record<string, number>> {
    const all = new Map<string, number>(this.#own);
    for (const counts of this.#others.values()) {
      for (const [code, count] of Object.entries(counts)) {
        all.set(code, (all.get(code) ?? 0) + count);
      }
    }
    return Object.fromEntries(all);
  }

  /** For the other agents; undefined when they know it, from this connection to the database on. */
  tell(nowMonoMs: number): string | undefined {
    if (this.#own.size === 0) return undefined;
    const text = JSON.stringify({
      instance: this.#instance,
      counts: Object.fromEntries(this.#own),
    });
    if (text === this.#told && nowMonoMs - this.#toldMonoMs < repeatMs) return undefined;
    this.#told = text;
    this.#toldMonoMs = nowMonoMs;
    return text;
  }

  /** Whoever may log in to the database can say such a thing, so it is checked. */
  hear(payload: string): void {
    const told = toldSchema.safeParse(parseJson(payload)).data;
    if (told === undefined || told.instance === this.#instance) return;
    if (this.#others.has(told.instance) || this.#others.size < agentsMax) {
      this.#others.set(told.instance, told.counts);
    }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // No agent said that.
  }
}
