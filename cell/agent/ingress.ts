/**
 * The cell's entry: every request of every router comes through here, and the application behind it
 * sees only those the gate let in (`entry.ts`).
 *
 * Always true: a second instance is tried only if the first has certainly seen nothing; a position
 * that goes out with the answer to a write was read after the application had answered.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { CellError } from "../../contract/errors.ts";
import { headerValues, listElements } from "../../contract/raw-headers.ts";
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import {
  type ForwardLimits,
  forward,
  forwardLimits,
  type HopFailure,
  type HopOutcome,
} from "../../runtime/http/forward.ts";
import { bodyFraming } from "../../runtime/http/hop-headers.ts";
import { RequestBody } from "../../runtime/http/request-body.ts";
import { type Acks, answerHead } from "./acks/answer-head.ts";
import { answerAgain, isConfirmAgain } from "./confirm-again.ts";
import { type Entered, type EntryOptions, enter } from "./entry.ts";
import type { Lasting } from "./lasting.ts";
import { nonceOf } from "./passage.ts";
import { planRead, type ReadChoiceOptions, type ReadPlan } from "./read-choice.ts";
import { buildAnswer, sendAnswer } from "./refusal.ts";
import type { ReplicaWatch } from "./replica-watch.ts";
import type { Door } from "./standby/promise-door.ts";
import type { Instance } from "./upstreams.ts";

export type IngressOptions = EntryOptions &
  ReadChoiceOptions & {
    readonly clock: Clock;
    readonly watch: ReplicaWatch | undefined;
    readonly acks: Acks;
    readonly lasting: Lasting;
    /** Of the agents among themselves, in front of all that is routed. */
    readonly door: Door;
    /** `code` is that of the gate's own answer; absent when the application's answer went out. */
    readonly onDone: (status: number, code: string | undefined) => void;
    /** Of what was let in, and of nothing that nobody was left to be answered. */
    readonly onServed: (entry: Entered, status: number) => void;
  };

export const bodyBytesMax = 1024 ** 3;
const bodyIdleMs = 60_000;
const headersMs = 15_000;
const requestMs = 600_000;
/** Above what routers keep idle connections for, so that a router never meets a closing one. */
const keepAliveMs = 75_000;
const headerBytesMax = 64 * 1024;
/** An application that is in the middle of an event has this long to come to its end. */
const eventMs = 3000;
const limits: ForwardLimits = forwardLimits;

export function createIngress(
  options: IngressOptions,
  shouldUpgrade: (req: IncomingMessage) => boolean,
  create: (settings: ServerOptions) => Server = createServer,
): Server {
  const server = create({
    shouldUpgradeCallback: shouldUpgrade,
    maxHeaderSize: headerBytesMax,
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: keepAliveMs,
  });
  // Bounded by bytes; a count would drop the headers beyond it in silence.
  server.maxHeadersCount = 0;
  const onRequest = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => {
    // An aborted upload is seen by the body's reader; unheard it would end the process.
    req.on("error", () => {});
    res.on("error", () => {});
    if (options.door.serve(req, res)) return;
    void serve(options, req, res, expectsContinue);
  };
  server.on("request", (req, res) => onRequest(req, res, false));
  server.on("checkContinue", (req, res) => onRequest(req, res, true));
  server.on("checkExpectation", (_req, res) => {
    answer(options, res, new CellError("EXPECTATION_FAILED", "only 100-continue is understood"));
  });
  return server;
}

async function serve(
  options: IngressOptions,
  req: IncomingMessage,
  res: ServerResponse,
  expectsContinue: boolean,
): Promise<void> {
  if (isConfirmAgain(req)) {
    const refused = await answerAgain(options, req, res);
    if (refused !== undefined) answer(options, res, refused);
    return;
  }
  const entry = await enter(options, req);
  if (entry.kind === "refused") {
    answer(options, res, entry.error, entry.nonce);
    return;
  }
  const body = new RequestBody({
    source: req,
    framing: bodyFraming(req.rawHeaders),
    clock: options.clock,
    bytesMax: bodyBytesMax,
    keepBytesMax: 0,
    idleMs: bodyIdleMs,
    ...(expectsContinue ? { onFirstRead: () => res.writeContinue() } : {}),
  });
  try {
    const status = finish(options, res, entry, await exchange(options, entry, { req, res }, body));
    if (status !== undefined) options.onServed(entry, status);
  } finally {
    body.release();
    options.lasting.over(entry);
    entry.ticket.leave();
  }
}

/** With one instance after the other, for as long as none of them has seen a byte. */
async function exchange(
  options: IngressOptions,
  entry: Entered,
  client: { readonly req: IncomingMessage; readonly res: ServerResponse },
  body: RequestBody,
): Promise<HopOutcome> {
  const { req } = client;
  const plan = planRead(options, entry, req);
  const tried = new Set<Instance>();
  let instance = must(chooseInstance(options, entry, plan, tried), "an instance of the service");
  for (;;) {
    tried.add(instance);
    const outcome = await forward({
      clock: options.clock,
      endpoint: instance.endpoint,
      method: req.method ?? "GET",
      path: req.url ?? "/",
      headers: entry.headers,
      body,
      client,
      limits,
      onEventStream: (end) =>
        options.lasting.add(entry, () => {
          end();
          options.clock.after(eventMs, end, { background: true });
        }),
      trailers: listElements(headerValues(req.rawHeaders, "te")).includes("trailers"),
      onResponseHead: (status, raw) =>
        answerHead(options, entry, {
          ...{ method: req.method ?? "GET", status, raw },
          givesPosition: plan.givesPosition,
        }),
    });
    if (outcome.kind !== "failed" || outcome.reason !== "connect") return outcome;
    options.upstreams.suspect(instance);
    const another = chooseInstance(options, entry, plan, tried);
    if (outcome.sent !== "nothing" || !body.replayable || another === undefined) return outcome;
    instance = another;
  }
}

/** Undefined when every instance that may answer has been tried. */
function chooseInstance(
  options: IngressOptions,
  entry: Entered,
  plan: ReadPlan,
  tried: ReadonlySet<Instance>,
): Instance | undefined {
  for (const fits of plan.preferences) {
    const instance = options.upstreams.pick(entry.service, fits, tried);
    if (instance !== undefined) return instance;
  }
  return undefined;
}

function finish(
  options: IngressOptions,
  res: ServerResponse,
  entry: Entered,
  outcome: HopOutcome,
): number | undefined {
  if (outcome.kind === "answered" || outcome.kind === "broken") {
    options.onDone(outcome.status, undefined);
    return outcome.status;
  }
  const error = outcome.error ?? failureError(outcome.reason);
  if (error === undefined) {
    res.destroy();
    return undefined;
  }
  const untouched = outcome.sent === "nothing" ? nonceOf(entry.asked) : undefined;
  return answer(options, res, error, untouched);
}

/** Undefined: there is nobody left to answer. */
function failureError(reason: HopFailure): CellError | undefined {
  switch (reason) {
    case "queue-full":
    case "queue-timeout":
      return new CellError("APP_UNREACHABLE", "The application is busy with too many requests.");
    case "connect":
      return new CellError("APP_UNREACHABLE", "The application does not accept connections.");
    case "head-timeout":
      return new CellError("CELL_TIMEOUT", "The application did not answer in time.");
    case "body-too-large":
      return new CellError("BODY_TOO_LARGE", `The body is larger than ${bodyBytesMax} bytes.`);
    case "body-stalled":
    case "body-slow":
    case "body-broken":
      return new CellError("REQUEST_INVALID", "The request's body did not arrive whole.");
    case "protocol":
      return new CellError("CELL_PROTOCOL", "The application's answer is not HTTP.");
    case "client-gone":
      return undefined;
    case "deadline":
    case "reset":
    case "body-timeout":
    case "client-stalled":
    case "replaced":
      return new CellError("OUTCOME_UNKNOWN", "The application ended the exchange unanswered.", {
        nextSteps: ["Repeat the request with the same Idempotency-Key."],
      });
  }
}

function answer(
  options: IngressOptions,
  res: ServerResponse,
  error: CellError,
  notAdmitted?: string,
): number {
  const own = buildAnswer(error, notAdmitted);
  options.onDone(own.status, error.code);
  sendAnswer(res, own);
  return own.status;
}
