/**
 * What becomes of a request at the gate, in every stage of the cell and for every class of route. Pure.
 *
 * Always true: in `enforce` only what `gate-decision.ts` admits gets through, and requests of the
 * classes that speak of no tenant (fan-out, any-cell, public), while the cell may serve. In the other stages everything gets through
 * and what would have been refused carries its code; such a request is given no key and no epoch,
 * because nobody here has checked them, and its answer is confirmed if it can be, never replaced.
 */
import type { ErrorCode } from "../../contract/errors.ts";
import { headers } from "../../contract/headers.ts";
import {
  type CellId,
  type KeyspaceName,
  parseCellId,
  parseKeyspaceName,
  parseTenantId,
  type TenantId,
} from "../../contract/ids.ts";
import type { RouteClass } from "../../contract/service-route.ts";
import {
  type Admission,
  type Confirmation,
  confirmHeader,
  decideAdmission,
  decideCell,
  decideConfirmation,
  type GateRequest,
  type GateView,
  parseGateRequest,
  parseNonce,
  type RefusalCode,
} from "./gate-decision.ts";
import type { Placement } from "./placement.ts";

/** `fan-out` only reads, for all tenants of the cell; the others are the application's own matter. */
const cellWideClasses = ["fan-out", "any-cell", "public"] as const satisfies readonly RouteClass[];
type CellWideClass = (typeof cellWideClasses)[number];
export type AskedClass = "tenant" | "read" | CellWideClass;

/** What a request says of itself. */
export type Asked =
  | { readonly kind: "keyed"; readonly request: GateRequest }
  /** Of a class that speaks of no tenant. */
  | {
      readonly kind: "cell-wide";
      readonly routeClass: CellWideClass;
      readonly cell: CellId;
      readonly nonce: string;
    }
  /** Not, or not wholly, what a router sends with a placement. */
  | {
      readonly kind: "bare";
      readonly tenant: TenantId | undefined;
      readonly keyspace: KeyspaceName | undefined;
      readonly nonce: string | undefined;
    };

export const passageCodes = [
  "PLACEMENT_STALE",
  "LEASE_MISSING",
  "GATE_CLOSED",
  "GATE_HEADERS_MISSING",
  "METHOD_NOT_ALLOWED",
  "ROUTER_SIGNATURE_INVALID",
  "OUTCOME_UNKNOWN",
] as const satisfies readonly ErrorCode[];
export type PassageCode =
  | RefusalCode
  | "GATE_HEADERS_MISSING"
  | "METHOD_NOT_ALLOWED"
  | "ROUTER_SIGNATURE_INVALID";

export type Passage =
  | {
      readonly kind: "passes";
      /** Why it would be refused in `enforce`; undefined when it would not. */
      readonly wouldRefuse: PassageCode | undefined;
      readonly worthALook: boolean;
    }
  | {
      readonly kind: "refused";
      readonly code: PassageCode;
      readonly reason: string;
      readonly known: Placement | undefined;
      readonly worthALook: boolean;
    };

type Values = (name: string) => readonly string[];

/** `valuesOf` takes a name in lower case. */
export function parseAsked(valuesOf: Values): Asked {
  const request = parseGateRequest(valuesOf);
  if (request !== undefined) return { kind: "keyed", request };
  const cell = parseCellId(onlyValue(valuesOf, headers.cell) ?? "");
  const nonce = parseNonce(valuesOf);
  const namesTenant = [headers.tenant, headers.key, headers.epoch].some(
    (name) => valuesOf(name).length > 0,
  );
  const routeClass = routeClassOf(valuesOf);
  if (isCellWide(routeClass) && !namesTenant && cell !== undefined && nonce !== undefined) {
    return { kind: "cell-wide", routeClass, cell, nonce };
  }
  return {
    kind: "bare",
    tenant: parseTenantId(onlyValue(valuesOf, headers.tenant) ?? ""),
    keyspace: parseKeyspaceName(onlyValue(valuesOf, headers.keyspace) ?? ""),
    nonce,
  };
}

const isCellWide = (routeClass: string | undefined): routeClass is CellWideClass =>
  cellWideClasses.some((one) => one === routeClass);

export function routeClassOf(valuesOf: Values): AskedClass {
  const named = onlyValue(valuesOf, headers.routeClass);
  return named === "read" || isCellWide(named) ? named : "tenant";
}

/** Undefined when it is absent; of two, neither. */
export function onlyValue(valuesOf: Values, name: string): string | undefined {
  const [value, second] = valuesOf(name);
  return second === undefined ? value : "";
}

/** `unsigned`: why no router of the fleet vouches for it; undefined when one does, or nobody asks. */
export function decidePassage(
  asked: Asked,
  method: string,
  view: GateView,
  unsigned?: string,
): Passage {
  const judged =
    unsigned !== undefined && asked.kind !== "bare"
      ? refuse("ROUTER_SIGNATURE_INVALID", unsigned)
      : judge(asked, method, view);
  if (judged.kind === "admitted") {
    return { kind: "passes", wouldRefuse: undefined, worthALook: false };
  }
  if (view.stage === "enforce") return judged;
  return { kind: "passes", wouldRefuse: judged.code, worthALook: judged.worthALook };
}

/** The second look, when the application's response headers are there. */
export function decideConfirmationOf(asked: Asked, view: GateView): Confirmation {
  if (asked.kind === "keyed") return decideConfirmation(asked.request, view);
  if (asked.kind === "bare") return { kind: "unknown", reason: "it named no placement" };
  const again = decideCell(asked.cell, view);
  return again.kind === "refused"
    ? { kind: "unknown", reason: again.reason }
    : { kind: "confirmed", header: confirmHeader(view, 0) };
}

/**
 * May an exchange that lasts go on? Where its key has left it may not, in no stage; in `enforce` only what
 * would be confirmed may. A fence behind a closed gate is a move's, which may be taken back.
 */
export function decideStay(asked: Asked, view: GateView): boolean {
  if (asked.kind !== "keyed") return view.stage !== "enforce" || isConfirmed(asked, view);
  const { key } = asked.request;
  const placement = view.placement(key);
  if (placement?.state === "moved" || placement?.state === "dropped") return false;
  if (view.stage !== "enforce") return true;
  if (placement?.state !== "fenced" || !view.closed(key)) return isConfirmed(asked, view);
  const before: Placement = { ...placement, state: "active" };
  return isConfirmed(asked, {
    ...view,
    placement: (other) => (other === key ? before : view.placement(other)),
  });
}

const isConfirmed = (asked: Asked, view: GateView): boolean =>
  decideConfirmationOf(asked, view).kind === "confirmed";

/** What the application is told. Only what was checked, or what the router alone decides. */
export function vouchedHeaders(asked: Asked, wouldRefuse: PassageCode | undefined): string[] {
  if (asked.kind === "cell-wide") return [headers.routeClass, asked.routeClass];
  const { tenant, keyspace } = asked.kind === "keyed" ? asked.request : asked;
  const told = [
    ...(tenant === undefined ? [] : [headers.tenant, tenant]),
    ...(keyspace === undefined ? [] : [headers.keyspace, keyspace]),
  ];
  if (asked.kind === "bare" || wouldRefuse !== undefined) return told;
  return [...told, headers.key, asked.request.key, headers.epoch, String(asked.request.epoch)];
}

export const nonceOf = (asked: Asked): string | undefined =>
  asked.kind === "keyed" ? asked.request.nonce : asked.nonce;

/** Requests are counted in flight under their key; those that named none have none. */
export const ticketKeyOf = (asked: Asked): string =>
  asked.kind === "keyed" ? asked.request.key : "";

type Judged = (Admission & { kind: "admitted" }) | (Passage & { kind: "refused" });

function judge(asked: Asked, method: string, view: GateView): Judged {
  switch (asked.kind) {
    case "keyed":
      return decideAdmission(asked.request, view);
    case "cell-wide":
      return asked.routeClass !== "fan-out" || method === "GET" || method === "HEAD"
        ? decideCell(asked.cell, view)
        : refuse("METHOD_NOT_ALLOWED", "a fan-out only reads: GET or HEAD");
    case "bare":
      return refuse(
        "GATE_HEADERS_MISSING",
        "The headers by which a router names tenant, key, epoch and cell are absent or malformed",
      );
  }
}

const refuse = (code: PassageCode, reason: string): Judged => ({
  kind: "refused",
  code,
  reason,
  known: undefined,
  worthALook: false,
});
