/**
 * Header names of the house: what a client may send, what only a router may send, what a cell
 * answers. Everything under `internalPrefix` is removed from what a client sends (promise 3: a
 * client cannot name its own epoch or cell).
 */

/** From the client: the tenant, where the router is configured to read it from a header. */
export const tenantHeader = "x-tenant-id";
/** Router to cell, and in errors: ours alone. A client's headers under it are removed. */
export const internalPrefix = "x-cellfleet-";

export const headers = {
  /** Request, router to cell: the tenant that was identified. */
  tenant: "x-cellfleet-tenant",
  /** Request, router to cell: the keyspace that the tenant was looked up in. */
  keyspace: "x-cellfleet-keyspace",
  /** Request, router to cell: the placement key (`default/tenant/acme`). */
  key: "x-cellfleet-key",
  /** Request, router to cell: the epoch of the placement the router forwards under. */
  epoch: "x-cellfleet-epoch",
  /** Request, router to cell: the cell that the router believes to be speaking to. */
  cell: "x-cellfleet-cell",
  /** Request, router to cell: which of the cell's services is meant; absent means `default`. */
  service: "x-cellfleet-service",
  /** Request, router to cell: the class of the route (`read`, `fan-out`); absent means `tenant`. */
  routeClass: "x-cellfleet-class",
  /** Request, router to cell: names of the feature flags that are on, `a,b`, sorted; absent: none. */
  flags: "x-cellfleet-flags",
  /** Request, router to cell: signed by the router, so that a cell can refuse what came past it (`request-signature.ts`). */
  signature: "x-cellfleet-signature",
  /** Request, router to cell: fresh per attempt; a refusal of the gate echoes it (corrections A11). */
  nonce: "x-cellfleet-nonce",
  /**
   * Response, cell to router (rule R2): `cell=cell-01;epoch=3;lease=1199000`, the lease's remaining
   * milliseconds, read when the application's response headers were there. Never passed on. Of a
   * request: see `confirmPath`.
   */
  confirm: "x-cellfleet-confirm",
  /**
   * Response to a write, cell to router: where the cell's write-ahead log stood when the application had
   * answered, `X/Y`; of further stores behind it, `X/Y, NAME=X/Y`. Never passed on.
   */
  lsn: "x-cellfleet-lsn",
  /** Response, cell to router: `nonce` of a request refused before the application saw a byte. */
  notAdmitted: "x-cellfleet-not-admitted",
  /** Response, to the client: the code of an answer that the house made itself. */
  error: "x-cellfleet-error",
  /** Response, to the client: which part of the house made the answer. */
  answeredBy: "x-cellfleet-answered-by",
} as const;

/**
 * `GET`, router to gate, with the headers of a request whose answer took longer than the lease that it
 * carries, and `x-cellfleet-confirm: again`: answered with a fresh `x-cellfleet-confirm`, or refused.
 */
export const confirmPath = "/cellfleet/confirm";
export const confirmAgain = "again";

/** Response, to the client: who answered, under which epoch. Can be switched off in the router. */
export const cellHeader = "x-cell";
export const cellEpochHeader = "x-cell-epoch";
/**
 * How far this session has written, `CELL.LSN`: answers to writes carry it where a cell has replicas,
 * and a read that brings it back sees its own writes. A cookie for browsers, a header for others.
 */
export const positionHeader = "x-cell-position";
export const positionCookie = "cell_position";
/** Response of a fan-out: the cells that are missing in it, absent when it is complete. */
export const missingCellsHeader = "x-cell-missing";
export const requestIdHeader = "x-request-id";
export const traceparentHeader = "traceparent";

/**
 * Headers of one connection, which an intermediary must not pass on (RFC 9110 section 7.6.1), with
 * the ones that real clients still send. Names listed in `Connection` are removed as well.
 */
export const hopByHopHeaders: readonly string[] = [
  "alt-svc",
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
