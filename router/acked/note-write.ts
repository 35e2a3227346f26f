/** What is remembered of a write that is about to be acknowledged. Pure but for the list that it goes into. */
import type { AckedWrite } from "../../contract/cell-protocol.ts";
import { headers as names } from "../../contract/headers.ts";
import type { TenantId } from "../../contract/ids.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { AckedWrites } from "./acked-writes.ts";

const readingMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
const pathCharsMax = 500;
/** A longer one names nothing that could be looked up: cut it would be another one. */
const keyCharsMax = 200;
const storesMax = 20;

export type Acknowledged = {
  readonly route: FoundRoute;
  readonly tenant: TenantId;
  readonly method: string;
  readonly path: string;
  readonly requestId: string;
  /** Of the client's request, on its way to the cell. */
  readonly asked: RawHeaders;
  /** Of the cell's answer. */
  readonly said: RawHeaders;
  readonly status: number;
  readonly atMs: number;
};

/** May the answer stand for something that was written? */
export const isAcknowledgement = (method: string, status: number): boolean =>
  status < 500 && !readingMethods.has(method);

export function noteWrite(acked: AckedWrites, write: Acknowledged): void {
  acked.note(write.route.cell, entryOf(write));
}

function entryOf(write: Acknowledged): AckedWrite {
  const { route, tenant, method, path, status, requestId, atMs } = write;
  const [idempotencyKey = ""] = headerValues(write.asked, "idempotency-key");
  const isUseful = idempotencyKey !== "" && idempotencyKey.length <= keyCharsMax;
  return {
    key: route.key,
    tenant,
    epoch: route.epoch,
    method: method.slice(0, 20),
    path: path.slice(0, pathCharsMax),
    status,
    requestId,
    ...(isUseful ? { idempotencyKey } : {}),
    ...positions(headerValues(write.said, names.lsn)[0]),
    atMs,
  };
}

const lsnPattern = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/;

/** `X/Y` of a cell with one store; `X/Y, NAME=X/Y, …` of one with several. */
function positions(said: string | undefined): Pick<AckedWrite, "lsn" | "lsns"> {
  if (said === undefined) return {};
  if (!said.includes(",")) return lsnPattern.test(said) ? { lsn: said } : {};
  const all = said.split(",", storesMax).map((part): [string, string] => {
    const [name = "", lsn] = part.trim().split("=");
    return lsn === undefined ? [defaultService, name] : [name, lsn];
  });
  // One that cannot be read must not pass for a store that needs no look.
  return all.every(([, lsn]) => lsnPattern.test(lsn)) ? { lsns: Object.fromEntries(all) } : {};
}
