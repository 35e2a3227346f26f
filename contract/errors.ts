/**
 * The error table: every refusal of the house has one code, and the code is stable API.
 *
 * Clients, scripts and tests branch on `code`, never on message text. `docs/errors.md` is generated
 * from this table. Adding a code: docs/checklists/add-an-error-code.md.
 */
import { z } from "zod";
import { controlErrors } from "./control-errors.ts";
import { type ErrorEntry, entry } from "./error-entry.ts";

export const errorTable = {
  // Identifying the tenant of a request.
  TENANT_MISSING: entry(
    400,
    "client",
    "never",
    64,
    "The request names no tenant in any configured place.",
  ),
  TENANT_INVALID: entry(400, "client", "never", 64, "The tenant id breaks the rules for ids."),
  TENANT_CONFLICT: entry(
    400,
    "client",
    "never",
    64,
    "Two places of the request name different tenants.",
  ),
  TENANT_AMBIGUOUS: entry(
    400,
    "client",
    "never",
    64,
    "The name in the request stands for several tenants; name one of them.",
  ),
  TENANT_TOKEN_INVALID: entry(
    401,
    "client",
    "never",
    77,
    "The token that names the tenant could not be verified; nothing else in the request was believed in its place.",
  ),
  TENANT_KEYS_UNAVAILABLE: entry(
    503,
    "router",
    "safe",
    69,
    "The keys that tokens are verified with have not been read yet; the token was not judged.",
  ),
  TENANT_UNKNOWN: entry(404, "client", "never", 5, "No placement exists for this tenant."),
  TENANT_SUSPENDED: entry(403, "client", "never", 4, "The tenant is suspended by its operator."),
  // Requests the router will not carry.
  REQUEST_INVALID: entry(
    400,
    "client",
    "never",
    64,
    "The request breaks the rules of HTTP or of the API.",
  ),
  METHOD_NOT_ALLOWED: entry(405, "client", "never", 64, "The method is not served here."),
  BODY_TOO_LARGE: entry(413, "client", "never", 64, "The body is larger than the limit."),
  EXPECTATION_FAILED: entry(
    417,
    "client",
    "never",
    64,
    "Only `Expect: 100-continue` is understood.",
  ),
  HEADERS_TOO_LARGE: entry(
    431,
    "client",
    "never",
    64,
    "The header section is larger than the limit.",
  ),
  URL_TOO_LONG: entry(414, "client", "never", 64, "The request target is longer than the limit."),
  REQUEST_TIMEOUT: entry(
    408,
    "client",
    "idempotent-only",
    1,
    "The request came too slowly, or stopped coming: its head or its body.",
  ),
  HOST_MISDIRECTED: entry(
    421,
    "client",
    "never",
    64,
    "The certificate of this connection does not speak for the host that is asked for.",
  ),
  LOOP_DETECTED: entry(508, "router", "never", 1, "The request has already passed this router."),
  // Routing and forwarding.
  TABLE_NOT_LOADED: entry(503, "router", "safe", 69, "The router has no routing table yet."),
  PLACEMENT_HELD: entry(
    503,
    "router",
    "safe",
    4,
    "The placement is switching owner; waiting took too long.",
  ),
  PLACEMENT_UNAVAILABLE: entry(
    503,
    "router",
    "safe",
    4,
    "The placement has no cell that may serve it.",
  ),
  SERVICE_UNKNOWN: entry(
    503,
    "router",
    "never",
    5,
    "The route speaks of a service that is not registered.",
  ),
  ROUTER_OVERLOADED: entry(
    503,
    "router",
    "safe",
    1,
    "The router has too much to do, or its queue for this cell is full or took too long.",
  ),
  TENANT_LIMITED: entry(
    429,
    "router",
    "safe",
    4,
    "The tenant has as much under way, or sends as fast, as it may; Retry-After says when to come back.",
  ),
  DEADLINE_EXCEEDED: entry(
    504,
    "depends",
    "idempotent-only",
    1,
    "The deadline that the request, its route or the router set was over before an answer came, or the client's own was over on arrival.",
  ),
  ROUTER_DRAINING: entry(503, "router", "safe", 1, "The router is shutting down."),
  CELL_UNREACHABLE: entry(
    503,
    "cell",
    "safe",
    1,
    "The cell cannot be reached; other cells are unaffected.",
  ),
  CELL_TIMEOUT: entry(
    504,
    "cell",
    "idempotent-only",
    1,
    "The cell did not answer in time; the outcome is unknown.",
  ),
  CELL_PROTOCOL: entry(
    502,
    "cell",
    "idempotent-only",
    1,
    "The cell's answer broke HTTP or the cell protocol.",
  ),
  OUTCOME_UNKNOWN: entry(
    503,
    "router",
    "idempotent-only",
    1,
    "The cell answered, but ownership or lease could not be confirmed; repeat with the same Idempotency-Key.",
  ),
  // The cell's gate.
  PLACEMENT_STALE: entry(
    421,
    "cell",
    "safe",
    6,
    "This cell does not own the placement at this epoch.",
  ),
  LEASE_MISSING: entry(
    503,
    "cell",
    "safe",
    4,
    "The cell holds no valid lease, so it may not serve.",
  ),
  GATE_CLOSED: entry(503, "cell", "safe", 4, "The cell's gate is closed for this placement."),
  GATE_HEADERS_MISSING: entry(
    403,
    "cell",
    "never",
    77,
    "The request did not come through a router.",
  ),
  ROUTER_SIGNATURE_INVALID: entry(
    403,
    "cell",
    "never",
    77,
    "The request does not carry a valid signature of a router of this fleet.",
  ),
  APP_UNREACHABLE: entry(
    503,
    "cell",
    "safe",
    1,
    "The application behind the agent cannot be reached.",
  ),
  // Refusals of a cell's database, as the sample application reports them.
  KEY_NOT_ACTIVE: entry(
    503,
    "cell",
    "safe",
    6,
    "The database refused: the placement is not active in this cell (CF001).",
  ),
  ...controlErrors,
  // Trouble.
  OP_FAILED: entry(
    500,
    "control",
    "never",
    1,
    "The operation failed; its evidence says at which step.",
  ),
  PROVIDER_FAILED: entry(502, "control", "safe", 1, "The provider could not do what was asked."),
  CONTROL_PLANE_UNREACHABLE: entry(
    503,
    "control",
    "safe",
    69,
    "The control plane does not answer; routers and cells do not need it to serve.",
  ),
  CONFIG_INVALID: entry(500, "client", "never", 78, "A setting is missing or wrong."),
  INTERNAL: entry(500, "control", "idempotent-only", 1, "A fault in Cellfleet itself."),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;
export const errorCodes = Object.keys(errorTable) as ErrorCode[];

/** One error class: `code` decides everything, `cause` is for the log only. */
export class CellError extends Error {
  override readonly name = "CellError";
  readonly code: ErrorCode;
  readonly nextSteps: readonly string[];
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      readonly nextSteps?: readonly string[];
      /** Shown to the client: no secrets, no stack. */
      readonly details?: Readonly<Record<string, unknown>>;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.nextSteps = options.nextSteps ?? [];
    this.details = options.details ?? {};
  }
}

export const errorBodySchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    next_steps: z.array(z.string()),
    /** Structured facts: limits, values, line numbers. */
    details: z.record(z.string(), z.unknown()).optional(),
    /** Always false in a refusal: what was asked for left no trace. Absent where that is unknown. */
    changed: z.literal(false).optional(),
    /** Of a router's refusal: as in `x-request-id`, for `cellctl explain request`. */
    request_id: z.string().optional(),
  }),
});
export type ErrorBody = z.infer<typeof errorBodySchema>;

/** The wire form of an error; `changed` is claimed only where the table says nothing was done. */
export function errorBody(error: CellError): ErrorBody {
  const { retry } = errorTable[error.code];
  return {
    error: {
      code: error.code,
      message: error.message,
      next_steps: [...error.nextSteps],
      ...(Object.keys(error.details).length > 0 ? { details: { ...error.details } } : {}),
      ...(retry === "idempotent-only" ? {} : { changed: false as const }),
    },
  };
}

export const isErrorCode = (raw: string): raw is ErrorCode => Object.hasOwn(errorTable, raw);
