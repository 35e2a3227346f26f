/**
 * Where an event stream may end: behind a blank line, which is the end of an event (HTML standard, section
 * 9.2.6). What is cut inside an event is thrown away by its reader, and is never sent again.
 */
import { headerValues } from "../../contract/raw-headers.ts";

/** Come again soon; browsers wait some seconds otherwise. */
const comeAgain = "retry: 500\n\n";
const lf = 10;
const cr = 13;

/** Of the head of an answer; undefined: it is no event stream. */
export function eventEndOf(headers: readonly string[]): EventEnd | undefined {
  const isStream = headerValues(headers, "content-type").some((type) =>
    type.toLowerCase().startsWith("text/event-stream"),
  );
  const isPlain = ["content-encoding", "content-length"].every(
    (name) => headerValues(headers, name).length === 0,
  );
  return isStream ? new EventEnd(isPlain) : undefined;
}

export class EventEnd {
  readonly #isPlain: boolean;
  #wanted: boolean = false;
  #over: boolean = false;
  #isBetween: boolean = true;
  #lineIsEmpty: boolean = true;
  #afterCr: boolean = false;

  /** `isPlain`: a line of our own can be added to it. */
  constructor(isPlain: boolean) {
    this.#isPlain = isPlain;
  }

  get isOver(): boolean {
    return this.#over;
  }
  get lastWords(): string {
    return this.#isPlain && this.#isBetween ? comeAgain : "";
  }

  /** True: it ends here. Asked again, it ends wherever it is. */
  want(): boolean {
    this.#over ||= this.#wanted || this.#isBetween;
    this.#wanted = true;
    return this.#over;
  }

  /** What of the bytes still belongs to the stream. */
  read(chunk: Buffer): Buffer {
    for (let at = 0; at < chunk.length; at += 1) {
      if (this.#over) return chunk.subarray(0, at);
      this.#step(chunk[at]);
      this.#over = this.#wanted && this.#isBetween;
    }
    return chunk;
  }

  #step(byte: number | undefined): void {
    const isRestOfLineEnd = byte === lf && this.#afterCr;
    this.#afterCr = byte === cr;
    if (isRestOfLineEnd) return;
    const endsLine = byte === lf || byte === cr;
    this.#isBetween = endsLine && this.#lineIsEmpty;
    this.#lineIsEmpty = endsLine;
  }
}
