/**
 * That nobody waits any more for what is being done, and why. Its signal is made when somebody asks for
 * it: most requests end without, and a signal that nobody hears costs as much as a header section.
 */
export class Departure {
  #controller: AbortController | undefined;
  #reason: string | undefined;

  /** Undefined: somebody waits. */
  get reason(): string | undefined {
    return this.#reason;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** The first reason stays. */
  leave(reason: string): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}
