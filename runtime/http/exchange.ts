/**
 * One request on one connection of an endpoint, from the first byte to the last: the handler that
 * undici calls. `forward.ts` says what it promises; here is only the order of events.
 *
 * Phases: `connecting` (nothing was sent) → `sending` (the endpoint may have seen it) → `answering`
 * (the head passed to the client) or `discarding` (the caller's own answer goes instead) → `over`.
 * `judging` is between the last two of them, while the caller takes its time over the head.
 */
import type { Dispatcher } from "undici";
import type { CellError } from "../../contract/errors.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import { isHandshakeAlert } from "./endpoint-tls.ts";
import { errorCode } from "./error-code.ts";
import { type EventEnd, eventEndOf } from "./event-end.ts";
import type { BodyTap, ForwardOptions, HeadVerdict, HopFailure, HopOutcome } from "./forward.ts";
import { isUnderstood, stripResponseHeaders, stripTrailers, withoutLength } from "./hop-headers.ts";
import { PhaseTimer } from "./phase-timer.ts";
import { BodyError } from "./request-body.ts";
import { latin1, lists } from "./wire-headers.ts";

type Phase = "connecting" | "sending" | "judging" | "answering" | "discarding" | "over";

/** A refused answer of this size is read to its end, so that its connection can be used again. */
const discardBytesMax = 64 * 1024;
const discardMs = 1000;
/** More hints than this are for nobody's good. */
const hintsMax = 8;
/** A body of this size that is whole at once leaves as text, together with its head. */
const wholeBytesMax = 16 * 1024;

export class Exchange implements Dispatcher.DispatchHandler {
  readonly #options: ForwardOptions;
  readonly #queueMs: number;
  readonly #timer: PhaseTimer;
  readonly #startedMs: number;
  #phase: Phase = "connecting";
  #controller: Dispatcher.DispatchController | undefined;
  readonly #settle: (outcome: HopOutcome) => void;
  #status: number | undefined;
  #replacement: CellError | undefined;
  #tap: BodyTap | undefined;
  #events: EventEnd | undefined;
  #ending: boolean = false;
  #endedEarly: boolean = false;
  #discarded = 0;
  #hints = 0;
  /** The head was given to node:http and waits for what follows in the same turn. */
  #headWaits: boolean = false;
  /** The client does not take what it was given. */
  #stalled: boolean = false;
  /** A whole small body, which leaves together with its head. */
  #whole: Buffer | undefined;
  #bytesOut = 0;
  #connectMs = 0;
  #firstByteMs = 0;

  /** `settle` is called once. */
  constructor(options: ForwardOptions, queueMs: number, settle: (outcome: HopOutcome) => void) {
    this.#options = options;
    this.#queueMs = queueMs;
    this.#settle = settle;
    this.#timer = new PhaseTimer(options.clock, (reason) => this.#fail(reason, undefined));
    this.#startedMs = options.clock.monotonicMs();
  }

  start(): void {
    const { res } = this.#options.client;
    res.on("close", this.#onClientClose);
    if (res.destroyed) this.#onClientClose();
    else this.#dispatch();
  }

  #dispatch(): void {
    const { endpoint, method, path, headers, body, fresh = false } = this.#options;
    // undici's own connect timer is coarse, and a request in its queue cannot be taken back.
    this.#timer.watch(endpoint.connectMs, "connect", this.#startedMs);
    const pool = fresh ? endpoint.openFresh() : endpoint.pool;
    pool.dispatch(
      {
        method,
        path: endpoint.basePath + path,
        headers: headers as string[],
        // The types know streams and buffers only; the code takes any async iterable.
        body: body.empty ? null : (body.open() as unknown as Uint8Array),
        headersTimeout: 0,
        bodyTimeout: 0,
      },
      this,
    );
    // Ends when its one request has.
    if (fresh) void pool.close();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#phase === "over") {
      controller.abort(new Error("the exchange ended before a connection was free"));
      return;
    }
    this.#controller = controller;
    const { clock, body, limits } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#connectMs = nowMs - this.#startedMs;
    this.#phase = "sending";
    // A silent client is the body's matter, with its own timer; this one is longer than that.
    const uploadMs = body.empty ? 0 : body.idleMs;
    this.#timer.watch(limits.headMs + uploadMs, "head-timeout", nowMs);
  }

  onBodySent(): void {
    this.#timer.touch();
  }

  onRequestSent(): void {
    // Without a body it was sent in the turn in which it was begun.
    if (this.#phase !== "sending" || this.#options.body.empty) return;
    this.#timer.watch(this.#options.limits.headMs, "head-timeout");
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (this.#phase !== "sending") return;
    const raw = latin1(controller.rawHeaders);
    if (status < 200) {
      // Of interim answers only hints go on; the final one follows on the same connection.
      if (status === 103 && this.#options.earlyHints === true) this.#hint(raw);
      return;
    }
    if (!isUnderstood(raw)) {
      this.#fail("protocol", new Error("a Transfer-Encoding that is not chunked"));
      return;
    }
    this.#status = status;
    const nowMs = this.#options.clock.monotonicMs();
    this.#firstByteMs = nowMs - this.#startedMs;
    const stripped = stripResponseHeaders(raw);
    // RFC 9110 section 8.6: a 204 has no length, whatever the endpoint says.
    const headers = status === 204 ? withoutLength(stripped) : stripped;
    const sentMs = this.#startedMs + this.#connectMs;
    const verdict = this.#options.onResponseHead(status, headers, sentMs);
    if (!(verdict instanceof Promise)) {
      this.#judge(status, headers, verdict, nowMs);
      return;
    }
    // The endpoint has answered, so its own timers are over; nothing more is read meanwhile.
    this.#phase = "judging";
    controller.pause();
    void verdict.then((late) => {
      if (this.#phase !== "judging") return;
      try {
        this.#judge(status, headers, late, this.#options.clock.monotonicMs());
        this.#catchUp(controller);
      } catch (error) {
        // A head that Node will not write; undici would have caught it in its own turn.
        controller.abort(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  /** Links and nothing else: a hint is no answer, and names nobody who gave it. */
  #hint(raw: readonly string[]): void {
    const { req, res } = this.#options.client;
    // HTTP/1.0 takes the first status it sees for the answer (RFC 9110 section 15.2).
    if (req.httpVersion === "1.0" || this.#hints >= hintsMax) return;
    this.#hints += 1;
    try {
      res.writeEarlyHints({ link: headerValues(raw, "link") });
    } catch {
      // Node refuses links that break their grammar. A hint may be left out.
    }
  }

  /** A message without a body ends at once, paused or not. */
  #catchUp(controller: Dispatcher.DispatchController): void {
    controller.resume();
    if (this.#endedEarly) this.onResponseEnd(controller);
  }

  #judge(status: number, headers: readonly string[], verdict: HeadVerdict, nowMs: number): void {
    if (verdict.kind === "replace") {
      this.#phase = "discarding";
      this.#replacement = verdict.error;
      this.#timer.watch(discardMs, "replaced", nowMs);
      return;
    }
    // A head that Node will not write throws, and then the client can still be told so.
    this.#writeHead(status, verdict.headers);
    this.#tap = verdict.tap;
    this.#phase = "answering";
    this.#options.body.commit();
    const { bodyIdleMs, eventStreamIdleMs } = this.#options.limits;
    const events = eventEndOf(headers);
    this.#timer.watch(events ? eventStreamIdleMs : bodyIdleMs, "body-timeout", nowMs);
    if (this.#options.onEventStream !== undefined) this.#events = events;
    if (events) this.#options.onEventStream?.(() => events.want() && this.#endStream());
  }

  /** With what was written so far; of what comes behind that the endpoint hears by a reset. */
  #endStream(): void {
    if (this.#phase !== "answering" || this.#ending) return;
    this.sendHead();
    this.#ending = true;
    this.#timer.watch(this.#options.limits.clientStallMs, "client-stalled");
    this.#options.client.res.end(this.#events?.lastWords ?? "", this.#onFinished);
    this.#controller?.abort(new Error("the stream was ended"));
  }

  /**
   * The head must not wait for the first byte of the body: an event stream may be silent for long. But
   * what came with it in the same turn leaves with it, in one write.
   */
  #writeHead(status: number, headers: readonly string[]): void {
    const { res, req } = this.#options.client;
    res.writeHead(status, headers as string[]);
    if (req.method === "HEAD") return;
    this.#headWaits = true;
    process.nextTick(sendHead, this);
  }

  /** For `sendHead`: nobody else knows when a turn is over. */
  sendHead(): void {
    if (!this.#headWaits || this.#phase === "over") return;
    this.#headWaits = false;
    const { res, req } = this.#options.client;
    const whole = this.#whole;
    this.#whole = undefined;
    // In HTTP/1 `flushHeaders()` would write its bytes as UTF-8, and they are latin1.
    if (whole !== undefined) this.#write(whole);
    else if (req.httpVersionMajor === 1) res.write("", "latin1");
    else res.flushHeaders();
  }

  onResponseData(_controller: Dispatcher.DispatchController, bytes: Buffer): void {
    if (this.#phase === "discarding") {
      this.#discarded += bytes.length;
      if (this.#discarded > discardBytesMax) this.#fail("replaced", undefined);
      return;
    }
    if (this.#phase !== "answering" || this.#ending) return;
    const chunk = this.#events?.read(bytes) ?? bytes;
    this.#bytesOut += chunk.length;
    this.#tap?.data(chunk);
    if (this.#headWaits && this.#whole === undefined && chunk.length <= wholeBytesMax) {
      this.#whole = chunk;
      return;
    }
    this.#timer.touch();
    // node:http puts a head that waits before the first bytes that are written.
    if (this.#whole === undefined) this.#headWaits = false;
    else this.sendHead();
    this.#write(chunk);
    if (this.#events?.isOver === true) this.#endStream();
  }

  #write(chunk: Buffer): void {
    const { res } = this.#options.client;
    if (res.write(chunk) || this.#stalled) return;
    this.#stalled = true;
    const controller = this.#controller;
    controller?.pause();
    const restore = this.#timer.interrupt(this.#options.limits.clientStallMs, "client-stalled");
    res.once("drain", () => {
      if (this.#phase !== "answering") return;
      this.#stalled = false;
      restore();
      controller?.resume();
    });
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#phase === "judging") {
      this.#endedEarly = true;
      return;
    }
    if (this.#phase === "discarding") {
      this.#fail("replaced", undefined);
      return;
    }
    if (this.#phase !== "answering" || this.#ending) return;
    const { req, res } = this.#options.client;
    this.#ending = true;
    this.#tap?.end();
    const { clock, limits } = this.#options;
    // While the head waits it is still the turn in which it came.
    const nowMs = this.#headWaits ? this.#startedMs + this.#firstByteMs : clock.monotonicMs();
    this.#timer.watch(limits.clientStallMs, "client-stalled", nowMs);
    if (this.#options.trailers) {
      const trailers = stripTrailers(latin1(controller.rawTrailers));
      if (trailers.length > 0) res.addTrailers(lists(trailers));
    }
    // What is small leaves as text: node:http then makes one write of head and body.
    const whole = this.#headWaits ? this.#whole : undefined;
    this.#headWaits = false;
    this.#whole = undefined;
    if (req.httpVersionMajor !== 1) {
      if (whole === undefined) res.end(this.#onFinished);
      else res.end(whole, this.#onFinished);
    } else if (whole === undefined) res.end();
    // Its `close` follows at once.
    else res.end(whole.toString("latin1"), "latin1");
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    // Of a stream that was ended here the endpoint hears by a reset.
    if (this.#phase === "over" || this.#ending) return;
    if (this.#phase === "discarding") this.#fail("replaced", error);
    else this.#fail(this.#reasonOf(error), error);
  }

  #reasonOf(error: Error): HopFailure {
    if (error instanceof BodyError) return error.trouble;
    const code = errorCode(error);
    if (protocolCodes.has(code)) return "protocol";
    if (this.#phase === "connecting" || isHandshakeAlert(error)) return "connect";
    const rude = error.message === "bad response" || error.message === "bad upgrade";
    if (rude || error.name === "HTTPParserError") return "protocol";
    return "reset";
  }

  /** Nobody waits for the head any more; an answer that has begun goes on. */
  giveUp(reason: HopFailure): void {
    if (this.#phase !== "answering") this.#fail(reason, undefined);
  }

  readonly #onFinished = (): void => this.#finish();

  readonly #onClientClose = (): void => {
    if (this.#ending && this.#options.client.res.writableFinished) this.#finish();
    else this.#fail("client-gone", undefined);
  };

  #finish(): void {
    if (this.#phase === "over" || !this.#ending) return;
    this.#over();
    this.#settle({ kind: "answered", status: this.#status ?? 0, ...this.#common() });
  }

  #fail(reason: HopFailure, cause: unknown): void {
    const phase = this.#phase;
    if (phase === "over") return;
    this.#over();
    this.#controller?.abort(new Error(reason));
    if (phase === "answering") {
      this.#cutClient();
      this.#settle({
        kind: "broken",
        status: this.#status ?? 0,
        reason,
        cause,
        ...this.#common(),
      });
      return;
    }
    this.#settle({
      kind: "failed",
      reason,
      sent: phase === "connecting" ? "nothing" : "maybe",
      error: this.#replacement,
      status: this.#status,
      cause,
      ...this.#common(),
    });
  }

  /** A reset instead of a clean end: an answer to HTTP/1.0 has no other way to look cut off. */
  #cutClient(): void {
    const { res } = this.#options.client;
    const { socket } = res;
    if (socket !== null && !res.hasHeader("content-length") && !res.chunkedEncoding) {
      socket.resetAndDestroy();
    }
    res.destroy();
  }

  #over(): void {
    this.#phase = "over";
    this.#timer.stop();
    this.#options.client.res.off("close", this.#onClientClose);
  }

  #common(): Pick<HopOutcome, "bytesOut" | "times"> {
    return {
      bytesOut: this.#bytesOut,
      times: {
        queueMs: this.#queueMs,
        connectMs: this.#connectMs,
        firstByteMs: this.#firstByteMs,
      },
    };
  }
}

const sendHead = (exchange: Exchange): void => exchange.sendHead();

const protocolCodes: ReadonlySet<string> = new Set([
  "UND_ERR_HEADERS_OVERFLOW",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "UND_ERR_INVALID_ARG",
  "UND_ERR_NOT_SUPPORTED",
  "ERR_INVALID_CHAR",
  "ERR_HTTP_INVALID_STATUS_CODE",
]);
