/**
 * What every exchange at the gate has in common, plain or upgraded: it is parsed, judged, counted, and
 * given the headers that the application may believe; its answer is confirmed when its head is there.
 *
 * Always true: the gate's headers are set from what was checked, never passed through; what the
 * application says under `x-cellfleet-` is removed; an answer that cannot be confirmed is replaced by
 * OUTCOME_UNKNOWN before the router sees a byte of it, unless the cell does not enforce.
 */
import type { IncomingMessage } from "node:http";
import { CellError } from "../../contract/errors.ts";
import { headers, internalPrefix } from "../../contract/headers.ts";
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";
import { filterHeaders, foldHeaderName, headerValues } from "../../contract/raw-headers.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { HeadVerdict } from "../../runtime/http/forward.ts";
import { stripRequestHeaders } from "../../runtime/http/hop-headers.ts";
import type { Gate, Ticket } from "./gate.ts";
import type { GateView } from "./gate-decision.ts";
import {
  type Asked,
  type AskedClass,
  decideConfirmationOf,
  decidePassage,
  decideStay,
  nonceOf,
  onlyValue,
  type Passage,
  type PassageCode,
  parseAsked,
  routeClassOf,
  ticketKeyOf,
  vouchedHeaders,
} from "./passage.ts";
import {
  isAccepted,
  type SignatureCheck,
  type SignatureMode,
  type SignatureVerdict,
} from "./router-signatures.ts";
import type { Upstreams } from "./upstreams.ts";

export type EntryOptions = {
  readonly gate: Gate;
  readonly upstreams: Upstreams;
  readonly signatures: {
    readonly mode: SignatureMode;
    readonly check: SignatureCheck["check"];
  };
  /** What is known now; made anew for every look. */
  readonly view: () => GateView;
  /** Reads gates and keys from every database, because the router seems to know more than this memory. */
  readonly look: (key: string) => Promise<void>;
  readonly onAdmitted: (keyspace: KeyspaceName, tenant: TenantId) => void;
  /** It passed in this stage, and would not have in `enforce`. */
  readonly onWouldRefuse: (code: PassageCode | "OUTCOME_UNKNOWN") => void;
};

export type Entered = {
  readonly kind: "entered";
  readonly asked: Asked;
  readonly service: string;
  readonly routeClass: AskedClass;
  readonly wouldRefuse: PassageCode | undefined;
  /** It was let in by a stage that refuses nothing. */
  readonly lenient: boolean;
  /** For the application. */
  readonly headers: readonly string[];
  /** The caller leaves when the exchange is over. */
  readonly ticket: Ticket;
};
export type Entry =
  | Entered
  /** `nonce`: the application has seen nothing of it, so that a router may send it again. */
  | { readonly kind: "refused"; readonly error: CellError; readonly nonce: string | undefined };

export async function enter(options: EntryOptions, req: IncomingMessage): Promise<Entry> {
  const valuesOf = (name: string) => headerValues(req.rawHeaders, name);
  const asked = parseAsked(valuesOf);
  const method = req.method ?? "GET";
  // Whoever named no placement is no router of a fleet that enforces.
  const nonce = asked.kind === "bare" ? undefined : nonceOf(asked);
  const signed = checkSignature(options, asked, valuesOf);
  const unsigned = signed instanceof Promise ? await signed : signed;
  let passage = decidePassage(asked, method, options.view(), unsigned);
  if (passage.worthALook && asked.kind === "keyed") {
    await options.look(asked.request.key);
    passage = decidePassage(asked, method, options.view(), unsigned);
  }
  // Nothing is awaited from here to the ticket: a gate that closes must find who is inside.
  if (passage.kind === "refused") return { kind: "refused", error: refusalError(passage), nonce };
  const service = options.upstreams.resolve(onlyValue(valuesOf, headers.service));
  if (service === undefined) {
    return { kind: "refused", error: unknownService(options.upstreams.services), nonce };
  }
  const { wouldRefuse } = passage;
  const { cell, stage } = options.view();
  const prepared = prepareHeaders(req, [
    ...vouchedHeaders(asked, wouldRefuse),
    ...[headers.cell, cell],
    ...flagHeaders(asked, onlyValue(valuesOf, headers.flags)),
  ]);
  if (prepared instanceof CellError) return { kind: "refused", error: prepared, nonce };
  if (wouldRefuse !== undefined) options.onWouldRefuse(wouldRefuse);
  const { tenant, keyspace } = asked.kind === "keyed" ? asked.request : nameOf(asked);
  if (tenant !== undefined && keyspace !== undefined) options.onAdmitted(keyspace, tenant);
  return {
    kind: "entered",
    ...{ asked, service, wouldRefuse },
    routeClass: routeClassOf(valuesOf),
    lenient: stage !== "enforce",
    headers: prepared,
    ticket: options.gate.enter(ticketKeyOf(asked)),
  };
}

/** Why no router of the fleet vouches for it; undefined when one does, or when that is not asked. */
export function checkSignature(
  { signatures: { mode, check }, view }: EntryOptions,
  asked: Asked,
  valuesOf: (name: string) => readonly string[],
): string | undefined | Promise<string | undefined> {
  if (mode === "off") return undefined;
  const reason = (verdict: SignatureVerdict): string | undefined =>
    mode === "observe" || isAccepted(verdict) ? undefined : unsignedText(verdict);
  const request = {
    ...signedPart(asked, valuesOf),
    routeClass: routeClassOf(valuesOf),
    service: onlyValue(valuesOf, headers.service) ?? defaultService,
  };
  const patient = mode === "require" && view().stage === "enforce";
  const verdict = check(request, valuesOf(headers.signature), patient);
  return verdict instanceof Promise ? verdict.then(reason) : reason(verdict);
}

/** As the router signed it: with the cell that it meant, which the gate compares with its own. */
function signedPart(asked: Asked, valuesOf: (name: string) => readonly string[]) {
  switch (asked.kind) {
    case "keyed":
      return { cell: asked.request.cell, tenant: asked.request, placement: asked.request };
    case "cell-wide":
      return { cell: asked.cell, tenant: undefined, placement: undefined };
    case "bare": {
      const { tenant, keyspace } = asked;
      const named =
        tenant === undefined || keyspace === undefined ? undefined : { tenant, keyspace };
      const cell = onlyValue(valuesOf, headers.cell) ?? "";
      return { cell, tenant: named, placement: undefined };
    }
  }
}

const unsignedText = (verdict: SignatureVerdict): string =>
  `No router of this fleet vouches for the request: its signature is ${unsignedTexts[verdict] ?? verdict}`;
const unsignedTexts: Readonly<Partial<Record<SignatureVerdict, string>>> = {
  "no-table": "not to be judged, because this agent has no routing table yet",
  "unknown-key": "by a key that the routing table does not name",
  "too-long": "valid for too long, so the clocks of router and cell differ",
  forged: "not for this tenant, placement, epoch, cell, class and service",
};

/** Feature flags as the router told them; a request that did not come from one has none. */
const flagHeaders = (asked: Asked, flags: string | undefined): string[] =>
  asked.kind === "bare" || flags === undefined || flags === "" ? [] : [headers.flags, flags];

/** The answer's headers for the router, or the error that goes instead. */
export function confirmHead(options: EntryOptions, entry: Entered, raw: string[]): HeadVerdict {
  const confirmation = decideConfirmationOf(entry.asked, options.view());
  const kept = filterHeaders(raw, (name) => !name.startsWith(internalPrefix));
  if (confirmation.kind === "confirmed") {
    kept.push(headers.confirm, confirmation.header);
    return { kind: "pass", headers: kept };
  }
  if (!mustConfirm(options, entry)) {
    // Counted once: what had no right to enter is in the counters already.
    if (entry.wouldRefuse === undefined) options.onWouldRefuse("OUTCOME_UNKNOWN");
    return { kind: "pass", headers: kept };
  }
  return { kind: "replace", error: outcomeUnknown(confirmation.reason) };
}

/** Let in, or answered, in a stage that refuses nothing: then nothing is refused at the end either. */
export const mustConfirm = (options: EntryOptions, entry: Entered): boolean =>
  !entry.lenient && options.view().stage === "enforce";

/** What lasts outlives stages and moves that are taken back. */
export const mayStay = (options: EntryOptions, entry: Entered): boolean =>
  decideStay(entry.asked, options.view());

const nameOf = (asked: Asked) =>
  asked.kind === "bare" ? asked : { tenant: undefined, keyspace: undefined };

/** The request's headers for the application, or why it cannot be passed on. */
function prepareHeaders(req: IncomingMessage, vouched: readonly string[]): string[] | CellError {
  if (!(req.url ?? "").startsWith("/")) {
    return new CellError("REQUEST_INVALID", "the request target is not a path");
  }
  const stripped = stripRequestHeaders(req.rawHeaders);
  if (stripped.kind === "refused") return new CellError("REQUEST_INVALID", stripped.reason);
  const own = filterHeaders(
    stripped.headers,
    (name) => !foldHeaderName(name).startsWith(internalPrefix) && name !== "expect",
  );
  own.push(...vouched);
  return own;
}

export const outcomeUnknown = (reason: string): CellError =>
  new CellError("OUTCOME_UNKNOWN", `The application answered, but ${reason}.`, {
    nextSteps: ["Repeat the request with the same Idempotency-Key."],
  });

const unknownService = (services: readonly string[]): CellError =>
  new CellError(
    "SERVICE_UNKNOWN",
    `No such service stands behind this agent; these do: ${services.join(", ")}.`,
    { nextSteps: ["Start the agent with --upstream NAME=URL for this service too."] },
  );

function refusalError(passage: Passage & { kind: "refused" }): CellError {
  const { code, reason, known } = passage;
  // As it is: a reason may begin with a placement key, and keys know upper from lower case.
  return new CellError(code, `${reason}.`, {
    ...(known === undefined ? {} : { details: { state: known.state, epoch: known.epoch } }),
    ...(code === "GATE_HEADERS_MISSING" || code === "ROUTER_SIGNATURE_INVALID"
      ? { nextSteps: ["Send the request to a router of the fleet."] }
      : {}),
  });
}
