/**
 * Pure: the `Proxy-Status` header of an answer that the router made itself (RFC 9209): who answered, and in
 * the words of that standard why. The house's own code stands in its details.
 */
import { type CellError, type ErrorCode, errorTable } from "../../contract/errors.ts";

export const proxyStatusHeader = "proxy-status";

/** Where the standard has a name for it; every other refusal is named by whose side it is. */
const types: Readonly<Partial<Record<ErrorCode, string>>> = {
  LOOP_DETECTED: "proxy_loop_detected",
  TENANT_UNKNOWN: "destination_not_found",
  SERVICE_UNKNOWN: "destination_not_found",
  PLACEMENT_UNAVAILABLE: "destination_unavailable",
  PLACEMENT_HELD: "destination_unavailable",
  CELL_UNREACHABLE: "destination_unavailable",
  TABLE_NOT_LOADED: "proxy_configuration_error",
  ROUTER_OVERLOADED: "connection_limit_reached",
  CELL_TIMEOUT: "http_response_timeout",
  CELL_PROTOCOL: "http_protocol_error",
  TENANT_SUSPENDED: "http_request_denied",
};

export function proxyStatus(error: CellError, routerId: string): string {
  const { source } = errorTable[error.code];
  const type =
    types[error.code] ?? (source === "client" ? "http_request_error" : "proxy_internal_response");
  return `cellfleet-${routerId}; error=${type}; details="${error.code}"`;
}
