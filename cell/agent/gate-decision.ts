/**
 * May this request pass the cell's gate, and may its answer be confirmed? Pure: the table of all
 * cases is `gate-decision.test.ts`.
 *
 * Always true: only a request for a key that is active here, at exactly the epoch the router named,
 * under a live lease and with knowledge that is not older than its bound, is admitted; the same is
 * asked again before its answer is confirmed (rule R2). The database's guard asks once more on every
 * write; the gate is what keeps an application from seeing requests it must not serve.
 */
import type { ErrorCode } from "../../contract/errors.ts";
import { headers } from "../../contract/headers.ts";
import {
  type CellId,
  type Epoch,
  type KeyspaceName,
  parseCellId,
  parseEpoch,
  parseKeyspaceName,
  parseTenantId,
  type TenantId,
} from "../../contract/ids.ts";
import {
  type KeyParts,
  type PlacementKey,
  parsePlacementKey,
  rangeKey,
  slotKey,
  tenantKey,
} from "../../contract/placement-key.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import { unreachable } from "../../runtime/assert.ts";
import type { Placement } from "./placement.ts";

/** What a router says about a request. */
export type GateRequest = {
  readonly tenant: TenantId;
  readonly keyspace: KeyspaceName;
  readonly key: PlacementKey;
  readonly epoch: Epoch;
  readonly cell: CellId;
  readonly nonce: string;
};

/** What the gate knows at one instant. */
export type GateView = {
  readonly cell: CellId;
  /** `enforce` refuses; the others count and let pass (see `passage.ts`). */
  readonly stage: CellStage;
  /** 0 when there is no live lease. */
  readonly leaseRemainingMs: number;
  /** False when ownership was last read longer ago than its bound. */
  readonly fresh: boolean;
  readonly placement: (key: string) => Placement | undefined;
  readonly closed: (key: string) => boolean;
  /** The promise for it is over, and nobody has granted anything since; absent: of no key. */
  readonly stopped?: ((key: PlacementKey) => boolean) | undefined;
};

export type RefusalCode = Extract<ErrorCode, "PLACEMENT_STALE" | "LEASE_MISSING" | "GATE_CLOSED">;
export type Admission =
  | { readonly kind: "admitted" }
  | {
      readonly kind: "refused";
      readonly code: RefusalCode;
      readonly reason: string;
      /** What this cell knows of the key, as a hint for the router. */
      readonly known: Placement | undefined;
      /** The router may know more than this memory: one look into the database can settle it. */
      readonly worthALook: boolean;
    };

const noncePattern = /^[\x21-\x7e]{1,64}$/;

export function parseNonce(valuesOf: (name: string) => readonly string[]): string | undefined {
  const [value = "", second] = valuesOf(headers.nonce);
  return second === undefined && noncePattern.test(value) ? value : undefined;
}

/**
 * Undefined when a header is absent, there twice, or not what a router would send; then the request
 * did not come through one. `valuesOf` takes a name in lower case.
 */
export function parseGateRequest(
  valuesOf: (name: string) => readonly string[],
): GateRequest | undefined {
  const only = (name: string): string => {
    const [value, second] = valuesOf(name);
    return second === undefined ? (value ?? "") : "";
  };
  const tenant = parseTenantId(only(headers.tenant));
  const keyspace = parseKeyspaceName(only(headers.keyspace));
  const cell = parseCellId(only(headers.cell));
  const epochText = only(headers.epoch);
  const epoch = /^[1-9]\d{0,15}$/.test(epochText) ? parseEpoch(Number(epochText)) : undefined;
  const parts = parsePlacementKey(only(headers.key));
  const nonce = parseNonce(valuesOf);
  if (
    tenant === undefined ||
    keyspace === undefined ||
    cell === undefined ||
    epoch === undefined ||
    parts === undefined ||
    nonce === undefined
  ) {
    return undefined;
  }
  if (parts.keyspace !== keyspace) return undefined;
  if (parts.kind === "tenant" && parts.tenant !== tenant) return undefined;
  return { tenant, keyspace, key: keyOf(parts), epoch, cell, nonce };
}

function keyOf(parts: KeyParts): PlacementKey {
  switch (parts.kind) {
    case "tenant":
      return tenantKey(parts.keyspace, parts.tenant);
    case "slot":
      return slotKey(parts.keyspace, parts.slot);
    case "range":
      return rangeKey(parts.keyspace, parts.from);
    default:
      return unreachable(parts);
  }
}

/** May this cell serve anything at all now, and is it the one that is meant? */
export function decideCell(cell: CellId, view: GateView): Admission {
  if (cell !== view.cell) return refuse("PLACEMENT_STALE", `this is ${view.cell}, not ${cell}`);
  if (!view.fresh) {
    return refuse("GATE_CLOSED", "the cell's database has been out of sight for too long");
  }
  return view.leaseRemainingMs > 0
    ? { kind: "admitted" }
    : refuse("LEASE_MISSING", "the cell holds no live lease");
}

export function decideAdmission(request: GateRequest, view: GateView): Admission {
  const cell = decideCell(request.cell, view);
  // What a router must know first is that it is mistaken; a lease comes and goes.
  if (cell.kind === "refused" && cell.code !== "LEASE_MISSING") return cell;
  const stale = findStaleness(request, view);
  if (stale !== undefined) return stale;
  if (cell.kind === "refused") return cell;
  if (view.stopped?.(request.key) === true) {
    const reason = `the partner that keeps a copy of ${request.key} promises nothing any more`;
    return refuse("LEASE_MISSING", reason);
  }
  if (view.closed(request.key)) {
    // It may be open again in the database, and the router may have let go of the request for that.
    const reason = `the gate is closed for ${request.key} while it is being fenced`;
    return refuse("GATE_CLOSED", reason, undefined, true);
  }
  return { kind: "admitted" };
}

export type Confirmation =
  | { readonly kind: "confirmed"; readonly header: string }
  | { readonly kind: "unknown"; readonly reason: string };

/**
 * The second look, when the application's response headers are there. A gate that closed meanwhile
 * changes nothing: it waits for exactly these answers.
 */
export function decideConfirmation(request: GateRequest, view: GateView): Confirmation {
  const again = decideAdmission(request, { ...view, closed: () => false });
  if (again.kind === "refused") return { kind: "unknown", reason: again.reason };
  return { kind: "confirmed", header: confirmHeader(view, request.epoch) };
}

/** Epoch 0: of no placement, only of the cell. */
export const confirmHeader = (view: GateView, epoch: number): string =>
  `cell=${view.cell};epoch=${epoch};lease=${Math.floor(view.leaseRemainingMs)}`;

function findStaleness(request: GateRequest, view: GateView): Admission | undefined {
  const known = view.placement(request.key);
  if (known === undefined) {
    return refuse("PLACEMENT_STALE", `${request.key} is not known here`, undefined, true);
  }
  if (known.state !== "active") {
    return refuse("PLACEMENT_STALE", `${request.key} is ${known.state} here`, known, true);
  }
  if (known.epoch !== request.epoch) {
    return refuse(
      "PLACEMENT_STALE",
      `${request.key} is at epoch ${known.epoch} here, not ${request.epoch}`,
      known,
      known.epoch < request.epoch,
    );
  }
  return findOverride(request, view);
}

/** A tenant with a placement of its own is not served under its container any more. */
function findOverride(request: GateRequest, view: GateView): Admission | undefined {
  const own = tenantKey(request.keyspace, request.tenant);
  if (own === request.key) return undefined;
  const override = view.placement(own);
  if (override === undefined || override.state === "dropped") return undefined;
  return refuse("PLACEMENT_STALE", `${request.tenant} has a placement of its own`, override);
}

const refuse = (
  code: RefusalCode,
  reason: string,
  known?: Placement,
  worthALook = false,
): Admission => ({ kind: "refused", code, reason, known, worthALook });
