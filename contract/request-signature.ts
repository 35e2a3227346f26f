/**
 * What a router signs of a request to a cell, and how the signature stands in its header:
 * `v1.KEY-ID.EXPIRES.SIGNATURE`, expiry in seconds since the epoch, Ed25519 in base64.
 *
 * Signed is what the gate goes by: fleet, cell, tenant, placement, epoch, class and service, each in a
 * line of its own (none of them can hold a line's end). Method, path and body are not: whoever sees a
 * request on its way may repeat it for the same tenant until it expires; links are kept private by TLS.
 */
import type { RouteClass } from "./service-route.ts";

export type SignedRequest = {
  readonly fleet: string;
  readonly cell: string;
  /** Undefined: the request names no tenant. */
  readonly tenant: { readonly keyspace: string; readonly tenant: string } | undefined;
  /** Undefined: the table has no placement, or the class speaks of none. */
  readonly placement: { readonly key: string; readonly epoch: number } | undefined;
  readonly routeClass: RouteClass;
  readonly service: string;
};

/** So long a signature is good. */
export const signatureLifeMs = 60_000;

export type SignatureParts = {
  readonly keyId: string;
  readonly expiresSeconds: number;
  readonly signature: string;
};

const pattern = /^v1\.([\w-]{16,64})\.([1-9]\d{8,11})\.([A-Za-z0-9+/]{86}==)$/;

export function parseSignature(raw: string): SignatureParts | undefined {
  const [, keyId, expires, signature] = pattern.exec(raw) ?? [];
  if (keyId === undefined || expires === undefined || signature === undefined) return undefined;
  return { keyId, expiresSeconds: Number(expires), signature };
}

export const signatureText = ({ keyId, expiresSeconds, signature }: SignatureParts): string =>
  `v1.${keyId}.${expiresSeconds}.${signature}`;

/** Without key and expiry: the same for as long as a placement stays as it is. */
export function requestText(request: SignedRequest): string {
  const { fleet, cell, tenant, placement, routeClass, service } = request;
  const who = tenant === undefined ? "\n" : `${tenant.keyspace}\n${tenant.tenant}`;
  const where = placement === undefined ? "\n" : `${placement.key}\n${placement.epoch}`;
  return `${fleet}\n${cell}\n${who}\n${where}\n${routeClass}\n${service}`;
}

/** All that is signed. */
export const signedText = (keyId: string, expiresSeconds: number, request: string): string =>
  `${keyId}\n${expiresSeconds}\n${request}`;
