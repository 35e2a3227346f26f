/**
 * One HTTP hop: a request taken from a client's connection goes to an endpoint, and the answer comes
 * back, both streamed. The router and the gate of a cell's agent use it.
 *
 * What must always be true:
 * - The caller sees the response head before the client does, and may put its own answer in its place.
 * - A truncated answer looks truncated: the client's connection is cut, never ended cleanly.
 * - An abort travels in both directions; every wait has its own timer.
 * - The outcome says whether the endpoint can have seen the request, which decides over a repetition.
 *
 * Of interim responses (1xx) 103 is relayed where the caller allows it, the others are dropped; request
 * trailers are dropped; response trailers are relayed when the client asked for them.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { CellError } from "../../contract/errors.ts";
import type { Clock } from "../clock.ts";
import type { Endpoint } from "./endpoint.ts";
import { Exchange } from "./exchange.ts";
import type { RequestBody } from "./request-body.ts";
import type { SeatWish } from "./slots.ts";

export const hopFailures = [
  "queue-full",
  "queue-timeout",
  "connect",
  "head-timeout",
  "body-timeout",
  "reset",
  "protocol",
  "body-too-large",
  "body-stalled",
  "body-slow",
  "body-broken",
  "client-stalled",
  "client-gone",
  /** The caller's signal came, for another reason than that the client is gone. */
  "deadline",
  "replaced",
] as const;
export type HopFailure = (typeof hopFailures)[number];

export type ForwardLimits = {
  /** From the last byte of the request to the response head. */
  readonly headMs: number;
  /** Longest silence of the endpoint in a body; of an event stream. */
  readonly bodyIdleMs: number;
  readonly eventStreamIdleMs: number;
  /** Longest time that the client takes nothing. */
  readonly clientStallMs: number;
};
export const forwardLimits: ForwardLimits = {
  headMs: 30_000,
  bodyIdleMs: 60_000,
  eventStreamIdleMs: 900_000,
  clientStallMs: 60_000,
};

/** Sees an answer's body on its way to the client; `end` only when it was whole. */
export type BodyTap = {
  readonly data: (chunk: Buffer) => void;
  readonly end: () => void;
};

/** What becomes of a response head: it goes to the client with these headers, or an error goes instead. */
export type HeadVerdict =
  | {
      readonly kind: "pass";
      readonly headers: readonly string[];
      readonly tap?: BodyTap | undefined;
    }
  | { readonly kind: "replace"; readonly error: CellError };

export type ForwardOptions = {
  readonly clock: Clock;
  readonly endpoint: Endpoint;
  /** How a seat at the endpoint is asked for. */
  readonly seat?: SeatWish;
  /** Aborted when nobody waits for an answer's head any more. */
  readonly signal?: AbortSignal | undefined;
  /** On a connection of its own: for what failed on one that had been used before. */
  readonly fresh?: boolean;
  readonly method: string;
  /** Origin form, as the client sent it. */
  readonly path: string;
  /** Without headers of the connection; `host` and `content-length` included. */
  readonly headers: readonly string[];
  readonly body: RequestBody;
  readonly client: { readonly req: IncomingMessage; readonly res: ServerResponse };
  readonly limits: ForwardLimits;
  /** The client sent `TE: trailers`. */
  readonly trailers: boolean;
  /** The endpoint's links of a 103 go to the client at once, before anybody judges its answer. */
  readonly earlyHints?: boolean;
  /**
   * An event stream has begun, which would not end by itself: `end` ends it whole, behind an event, so that
   * its reader comes back; called again, wherever it is.
   */
  readonly onEventStream?: (end: () => void) => void;
  /**
   * `headers` are those of the endpoint without the ones of its connection. Called once, synchronously;
   * a promise of the verdict, which must not reject, holds the answer back until it is there. `sentMs`
   * is monotonic: nothing of the request had been sent before it.
   */
  readonly onResponseHead: (
    status: number,
    headers: string[],
    sentMs: number,
  ) => HeadVerdict | Promise<HeadVerdict>;
};

export type HopTimes = {
  readonly queueMs: number;
  readonly connectMs: number;
  readonly firstByteMs: number;
};
type Common = { readonly bytesOut: number; readonly times: HopTimes };

export type HopOutcome =
  /** The client has the whole answer. */
  | (Common & { readonly kind: "answered"; readonly status: number })
  /** The client has nothing yet: the caller answers, or tries again. `status` is the endpoint's, if it came. */
  | (Common & {
      readonly kind: "failed";
      readonly reason: HopFailure;
      /** `nothing`: the endpoint has not seen a byte of the request. */
      readonly sent: "nothing" | "maybe";
      readonly error: CellError | undefined;
      readonly status: number | undefined;
      readonly cause: unknown;
    })
  /** The answer had begun; the client's connection was cut, or the client cut it. */
  | (Common & {
      readonly kind: "broken";
      readonly status: number;
      readonly reason: HopFailure;
      readonly cause: unknown;
    });

/**
 * Why a client's signal is aborted. Every connection closes in the end; without a reason of its own
 * each `abort()` would make an exception with a stack, a tenth of a proxy's time.
 */
export const clientGone = "client-gone";

/** Never rejects. */
export function forward(options: ForwardOptions): Promise<HopOutcome> {
  const { endpoint, client, signal } = options;
  const idle = !client.res.destroyed && signal?.aborted !== true;
  // Nearly always a seat is free, and then there is nothing to wait for and nobody to tell.
  return idle && endpoint.slots.takeNow(options.seat)
    ? exchange(options, options.seat?.waitedMs ?? 0)
    : forwardLater(options);
}

async function forwardLater(options: ForwardOptions): Promise<HopOutcome> {
  const { clock, endpoint, client, signal } = options;
  const startedMs = clock.monotonicMs();
  const gone = new AbortController();
  const leave = () => gone.abort(clientGone);
  const giveUp = () => gone.abort(signal?.reason);
  client.res.once("close", leave);
  signal?.addEventListener("abort", giveUp, { once: true });
  if (client.res.destroyed) leave();
  if (signal?.aborted === true) giveUp();
  const seat = await endpoint.slots.take(gone.signal, options.seat);
  client.res.off("close", leave);
  signal?.removeEventListener("abort", giveUp);
  const queueMs = clock.monotonicMs() - startedMs + (options.seat?.waitedMs ?? 0);
  if (seat === "taken") return exchange(options, queueMs);
  return {
    kind: "failed",
    reason: seat === "client-gone" ? reasonOf(gone.signal) : seat,
    sent: "nothing",
    error: undefined,
    status: undefined,
    cause: undefined,
    bytesOut: 0,
    times: { queueMs, connectMs: 0, firstByteMs: 0 },
  };
}

/** With a seat, which it gives back. */
function exchange(options: ForwardOptions, queueMs: number): Promise<HopOutcome> {
  const { endpoint, signal, body } = options;
  return new Promise((resolve) => {
    const run = new Exchange(options, queueMs, (outcome) => {
      signal?.removeEventListener("abort", giveUp);
      endpoint.slots.give();
      // A failed attempt may be followed by another, which needs the body; the caller releases it then.
      if (outcome.kind !== "failed") body.release();
      resolve(outcome);
    });
    const giveUp = () => run.giveUp(signal === undefined ? "deadline" : reasonOf(signal));
    signal?.addEventListener("abort", giveUp, { once: true });
    run.start();
  });
}

/** Why nobody waits any more. */
const reasonOf = (signal: AbortSignal): HopFailure =>
  signal.reason === clientGone ? "client-gone" : "deadline";
