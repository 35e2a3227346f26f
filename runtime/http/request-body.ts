/**
 * A client's request body on its way to an endpoint: counted, bounded in size and in silence, and kept
 * for a second attempt while it is small.
 *
 * What must always be true: a body that did not arrive whole never looks whole to the endpoint.
 * undici takes a destroyed stream for an empty body and sends `content-length: 0`; so it is given an
 * iterator that throws unless the parser saw the end of the message.
 */
import type { IncomingMessage } from "node:http";
import type { Clock, Timer } from "../clock.ts";
import type { BodyFraming } from "./hop-headers.ts";

export const bodyTroubles = ["body-too-large", "body-stalled", "body-slow", "body-broken"] as const;
export type BodyTrouble = (typeof bodyTroubles)[number];
export const isBodyTrouble = (reason: string): reason is BodyTrouble =>
  (bodyTroubles as readonly string[]).includes(reason);

export class BodyError extends Error {
  override readonly name = "BodyError";
  readonly trouble: BodyTrouble;
  constructor(trouble: BodyTrouble, message: string) {
    super(message);
    this.trouble = trouble;
  }
}

/** What a body must come with on the whole, once the client was waited for so long, all waits together. */
export type BodyPace = { readonly bytesPerSecondMin: number; readonly afterMs: number };

export type RequestBodyOptions = {
  readonly source: IncomingMessage;
  readonly framing: BodyFraming;
  readonly clock: Clock;
  readonly bytesMax: number;
  /** So much is kept for a second attempt; a larger body cannot be sent again. */
  readonly keepBytesMax: number;
  /** Longest silence of the client. */
  readonly idleMs: number;
  /** Absent: the body may come as slowly as it likes, if it is never silent for too long. */
  readonly pace?: BodyPace;
  /** Called once before the first byte is asked for: where `100 Continue` is sent. */
  readonly onFirstRead?: () => void;
};

/** So long may a client go on with a body that nobody wants any more. */
const lingerMs = 5000;

export class RequestBody {
  readonly #options: RequestBodyOptions;
  /** Chunks from position `#base` on. */
  #chunks: Buffer[] = [];
  #base = 0;
  #keeping: boolean = true;
  #received = 0;
  #started: boolean = false;
  #released: boolean = false;
  #ended: boolean = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;
  /** So long the client was waited for, all waits together. */
  #waitedMs = 0;
  #attempt = 0;

  constructor(options: RequestBodyOptions) {
    this.#options = options;
  }

  /** Bytes that arrived from the client. */
  get received(): number {
    return this.#received;
  }
  get idleMs(): number {
    return this.#options.idleMs;
  }
  get empty(): boolean {
    return this.#options.framing.kind === "none";
  }
  /** It takes at most so many bytes of memory while nobody reads it: what is kept, and what comes unasked. */
  get restingBytesMax(): number {
    const { framing, bytesMax, keepBytesMax, source } = this.#options;
    if (framing.kind === "none") return 0;
    const whole = framing.kind === "length" ? framing.bytes : bytesMax;
    // A stream is full when it has a chunk too much.
    return Math.min(whole, bytesMax, keepBytesMax + 2 * source.readableHighWaterMark);
  }
  /** True while everything that was read is still at hand. */
  get replayable(): boolean {
    return this.#error === undefined && this.#keeping && this.#base === 0;
  }

  /** The body from its first byte; ends the attempt before. Throws `BodyError` in the reader. */
  open(): AsyncGenerator<Buffer, void, void> {
    this.#attempt += 1;
    return this.#read(this.#attempt);
  }

  /** From now on nothing is kept: the answer has begun, so there is no second attempt. */
  commit(): void {
    this.#keeping = false;
  }

  /** Lets the rest flow away, so that the client's connection can be used again. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#attempt += 1;
    this.#chunks = [];
    const { source } = this.#options;
    // Nothing to let flow, and node:http ends the reading of it.
    if (this.empty && source.complete) return;
    source.off("data", this.#onData);
    // An error after this point concerns nobody: the exchange is over.
    source.on("error", () => {});
    source.resume();
    this.#wake?.();
    if (source.complete) return;
    // Not for ever: a client that never ends its body does not keep its connection.
    const timer = this.#options.clock.after(lingerMs, () => source.destroy(), { background: true });
    source.once("close", timer.cancel);
  }

  async *#read(attempt: number): AsyncGenerator<Buffer, void, void> {
    this.#start();
    let position = 0;
    while (attempt === this.#attempt) {
      const chunk = this.#chunks[position - this.#base];
      if (chunk !== undefined) {
        position += 1;
        this.#forget(position);
        yield chunk;
        continue;
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return;
      await this.#more();
    }
    throw new BodyError("body-broken", "the attempt is over");
  }

  #forget(position: number): void {
    if (this.#keeping) return;
    this.#chunks.splice(0, position - this.#base);
    this.#base = position;
  }

  #start(): void {
    if (this.#started) return;
    this.#started = true;
    const { source, framing, bytesMax, onFirstRead } = this.#options;
    if (framing.kind === "length" && framing.bytes > bytesMax) {
      this.#fail(new BodyError("body-too-large", `the body is larger than ${bytesMax} bytes`));
      return;
    }
    onFirstRead?.();
    source.on("data", this.#onData);
    source.on("end", this.#onEnd);
    source.on("error", this.#onBroken);
    source.on("close", this.#onBroken);
    source.pause();
    if (source.destroyed && !source.readableEnded) this.#onBroken();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#options.source.pause();
    this.#received += chunk.length;
    const { bytesMax, keepBytesMax } = this.#options;
    if (this.#received > bytesMax) {
      this.#fail(new BodyError("body-too-large", `the body is larger than ${bytesMax} bytes`));
      return;
    }
    if (this.#received > keepBytesMax) this.#keeping = false;
    this.#chunks.push(chunk);
    this.#wake?.();
  };

  readonly #onEnd = (): void => {
    const { source, framing } = this.#options;
    const whole =
      source.complete && (framing.kind !== "length" || framing.bytes === this.#received);
    if (whole) this.#ended = true;
    else this.#onBroken();
    this.#wake?.();
  };

  readonly #onBroken = (): void => {
    if (this.#ended) return;
    this.#fail(new BodyError("body-broken", "the client ended the body before it was whole"));
  };

  #fail(error: BodyError): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** Resolves when there is more to look at: a chunk, the end, an error. */
  #more(): Promise<void> {
    const { clock, source } = this.#options;
    const { ms, slow } = this.#patience();
    const startedMs = clock.monotonicMs();
    return new Promise((resolve) => {
      let timer: Timer | undefined;
      const wake = () => {
        timer?.cancel();
        if (this.#wake === wake) this.#wake = undefined;
        this.#waitedMs += clock.monotonicMs() - startedMs;
        resolve();
      };
      // An abandoned attempt may still wait: it is woken to find that it is over.
      this.#wake?.();
      this.#wake = wake;
      timer = clock.after(ms, () => this.#fail(this.#late(slow)));
      source.resume();
    });
  }

  /** How long the next byte may take; `slow`: because of all that came before it. */
  #patience(): { readonly ms: number; readonly slow: boolean } {
    const { idleMs, pace } = this.#options;
    if (pace === undefined) return { ms: idleMs, slow: false };
    const allowedMs = Math.max(pace.afterMs, (this.#received / pace.bytesPerSecondMin) * 1000);
    const leftMs = Math.max(0, allowedMs - this.#waitedMs);
    return leftMs < idleMs ? { ms: leftMs, slow: true } : { ms: idleMs, slow: false };
  }

  #late(slow: boolean): BodyError {
    const { idleMs, pace } = this.#options;
    return slow
      ? new BodyError("body-slow", `less than ${pace?.bytesPerSecondMin} bytes a second came`)
      : new BodyError("body-stalled", `the client sent nothing for ${idleMs} ms`);
  }
}
