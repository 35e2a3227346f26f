/**
 * Pure: rule R2. An answer reaches the client only if the cell confirmed, when its head was there,
 * that it still owned the placement under a live lease, the lease is certainly not over yet, and the
 * router's table of this moment says the same. Otherwise the outcome is unknown: what the cell did may
 * be undone by the new owner.
 *
 * The lease counts from when the router sent the request, on its own monotonic clock (corrections A4):
 * the cell read what remained of it later than that, so the router stops first, whatever clocks say,
 * and a router that hears nothing of a takeover passes nothing on that the old owner did after it.
 */

import { errorTable, isErrorCode } from "../../contract/errors.ts";
import { headers as names } from "../../contract/headers.ts";
import type { CellId } from "../../contract/ids.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";

export const confirmVerdicts = [
  "confirmed",
  /** The gate's own refusal: no answer of an application, so there is nothing to confirm. */
  "gate-answer",
  "missing",
  "malformed",
  "other-cell",
  "other-epoch",
  "lease-over",
  /** It was live when the cell answered, and may be over by now: the cell is asked once more. */
  "lease-spent",
  "table-moved",
  /** The cell's ownership is being taken away. */
  "cell-halted",
  /** Asked once more, the gate did not stand by it, or said nothing in time. */
  "not-again",
] as const;
export type ConfirmVerdict = (typeof confirmVerdicts)[number];

/** Monotonic milliseconds. */
export type ConfirmTimes = {
  /** When the first byte of the request that was answered had not been sent yet. */
  readonly sentMs: number;
  readonly nowMs: number;
};

/** What the table says of the tenant at this moment. */
export type TableNow = {
  readonly route: FoundRoute | undefined;
  /** Of the cell that the attempt went to. */
  readonly halted: boolean;
};

/** Clocks of two machines differ in rate by less than this. */
const rateError = 0.01;
/** From the look at the clock until the answer has left. */
const marginMs = 50;

/** Until then, and not at it, an answer that carries so much lease may be passed on. */
export const leaseEndMs = (sentMs: number, leaseMs: number): number =>
  sentMs + leaseMs * (1 - rateError) - marginMs;

/** `sent`: the route the attempt went under. */
export function confirmAnswer(
  raw: RawHeaders,
  status: number,
  sent: FoundRoute,
  now: TableNow,
  times: ConfirmTimes,
): ConfirmVerdict {
  const values = headerValues(raw, names.confirm);
  const [value] = values;
  if (value === undefined) return isGateAnswer(raw, status) ? "gate-answer" : "missing";
  const match = confirmPattern.exec(value);
  if (match === null || values.length > 1) return "malformed";
  const [, cell, epoch, leaseMs] = match;
  if (cell !== sent.cell) return "other-cell";
  if (Number(epoch) !== sent.epoch) return "other-epoch";
  if (now.halted) return "cell-halted";
  if (now.route?.cell !== sent.cell || now.route.epoch !== sent.epoch) return "table-moved";
  if (Number(leaseMs) <= 0) return "lease-over";
  return times.nowMs < leaseEndMs(times.sentMs, Number(leaseMs)) ? "confirmed" : "lease-spent";
}

const confirmPattern = /^cell=([a-z0-9-]+);epoch=(\d{1,15});lease=(-?\d{1,15})$/;

/**
 * The cell may serve, whoever its tenants are: what can be confirmed of an answer for all of them.
 * Until when, on the router's monotonic clock; undefined: not at all.
 */
export function cellConfirmedUntilMs(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  sent: CellId,
  sentMs: number,
): number | undefined {
  const value = headers[names.confirm];
  const match = typeof value === "string" ? confirmPattern.exec(value) : null;
  if (match === null) return undefined;
  const [, cell, , leaseMs] = match;
  return cell === sent && Number(leaseMs) > 0 ? leaseEndMs(sentMs, Number(leaseMs)) : undefined;
}

/** The gate removes these headers from what an application says, so they are its own. */
function isGateAnswer(raw: RawHeaders, status: number): boolean {
  const [code] = headerValues(raw, names.error);
  return code !== undefined && isErrorCode(code) && errorTable[code].httpStatus === status;
}

/** The gate swears, with the nonce of this very attempt, that the application saw nothing of it. */
export function isNotAdmitted(raw: RawHeaders, nonce: string): boolean {
  const values = headerValues(raw, names.notAdmitted);
  return values.length === 1 && values[0] === nonce;
}
