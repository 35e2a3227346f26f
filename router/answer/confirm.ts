/**
 * Pure: rule R2. An answer reaches the client only if the cell confirmed, when its head was there,
 * that it still owned the placement under a live lease, and the router's table of this moment says the
 * same. Otherwise the outcome is unknown: what the cell did may be undone by the new owner.
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
  "table-moved",
] as const;
export type ConfirmVerdict = (typeof confirmVerdicts)[number];

/**
 * `sent`: the route the attempt went under. `now`: what the table says of the tenant at this moment.
 */
export function confirmAnswer(
  raw: RawHeaders,
  status: number,
  sent: FoundRoute,
  now: FoundRoute | undefined,
): ConfirmVerdict {
  const values = headerValues(raw, names.confirm);
  const [value] = values;
  if (value === undefined) return isGateAnswer(raw, status) ? "gate-answer" : "missing";
  const match = confirmPattern.exec(value);
  if (match === null || values.length > 1) return "malformed";
  const [, cell, epoch, leaseMs] = match;
  if (cell !== sent.cell) return "other-cell";
  if (Number(epoch) !== sent.epoch) return "other-epoch";
  if (Number(leaseMs) <= 0) return "lease-over";
  return now?.cell === sent.cell && now.epoch === sent.epoch ? "confirmed" : "table-moved";
}

const confirmPattern = /^cell=([a-z0-9-]+);epoch=(\d{1,15});lease=(-?\d{1,15})$/;

/** The cell may serve, whoever its tenants are: what can be confirmed of an answer for all of them. */
export function confirmsCell(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  sent: CellId,
): boolean {
  const value = headers[names.confirm];
  const match = typeof value === "string" ? confirmPattern.exec(value) : null;
  if (match === null) return false;
  const [, cell, , leaseMs] = match;
  return cell === sent && Number(leaseMs) > 0;
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
