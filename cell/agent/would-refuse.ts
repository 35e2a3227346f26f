/**
 * What this gate has let pass and would have refused in `enforce`, by code, since this process began.
 * Each agent of a cell has numbers of its own; the primary's travel to the control plane.
 */
import type { Counter } from "../../runtime/metrics.ts";
import type { passageCodes } from "./passage.ts";

type Code = (typeof passageCodes)[number];

export class WouldRefuse {
  readonly #counts = new Map<Code, number>();
  readonly #counter: Counter;

  constructor(counter: Counter) {
    this.#counter = counter;
  }

  readonly note = (code: Code): void => {
    this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
    this.#counter.inc({ reason: code });
  };

  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }
}
