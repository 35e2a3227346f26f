/**
 * What of a message's headers goes over the next hop.
 *
 * What must always be true: headers of one connection end here (RFC 9110 section 7.6.1), and they
 * are removed *before* an intermediary adds its own, so that `Connection: x-cellfleet-epoch` from a
 * client cannot take ours away.
 */
import { hopByHopHeaders } from "../../contract/headers.ts";
import {
  byHeaderName,
  filterHeaders,
  foldHeaderName,
  headerValues,
  listElements,
  type RawHeaders,
} from "../../contract/raw-headers.ts";

const hopByHop: ReadonlySet<string> = new Set(hopByHopHeaders);

/** Without these a message has no meaning or no end, so nobody may ask for their removal. */
const framing: ReadonlySet<string> = new Set(["host", "content-length"]);

export type StrippedHeaders =
  | { readonly kind: "stripped"; readonly headers: string[] }
  | { readonly kind: "refused"; readonly reason: string };

/** For a request: a `Connection` header that names Host or Content-Length is an attack and refused. */
export function stripRequestHeaders(raw: RawHeaders): StrippedHeaders {
  const named = listElements(headerValues(raw, "connection"));
  const stolen = named.find((name) => framing.has(name));
  if (stolen !== undefined) {
    return { kind: "refused", reason: `the Connection header names ${stolen}` };
  }
  return { kind: "stripped", headers: strip(raw, named) };
}

/**
 * For a response: what frames it stays, whatever `Connection` names. A length beside a
 * Transfer-Encoding is dropped, because the encoding wins (RFC 9112 section 6.3).
 */
export function stripResponseHeaders(raw: RawHeaders): string[] {
  const named = listElements(headerValues(raw, "connection")).filter((name) => !framing.has(name));
  const encoded = headerValues(raw, "transfer-encoding").length > 0;
  const headers = strip(raw, named);
  return encoded ? filterHeaders(headers, (name) => name !== "content-length") : headers;
}

/** Also under another spelling that some server reads as the same: `transfer_encoding`. */
const endsHere = byHeaderName((name) => {
  const plain = foldHeaderName(name);
  return hopByHop.has(plain) || (plain !== name && framing.has(plain));
});

function strip(raw: RawHeaders, named: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    if (!endsHere(name) && !isNamed(named, name)) kept.push(name, raw[at + 1] ?? "");
  }
  return kept;
}

const isNamed = (named: readonly string[], name: string): boolean =>
  named.length > 0 && named.includes(name.toLowerCase());

/** Fields that steer framing, routing, trust or caching mean nothing good in a trailer (RFC 9110 section 6.5.1). */
const neverInTrailers: ReadonlySet<string> = new Set([
  ...hopByHop,
  ...framing,
  "authorization",
  "cache-control",
  "content-encoding",
  "content-range",
  "content-type",
  "cookie",
  "expect",
  "max-forwards",
  "pragma",
  "range",
  "set-cookie",
  "vary",
  "www-authenticate",
]);

export const withoutLength = (raw: RawHeaders): string[] =>
  filterHeaders(raw, (name) => name !== "content-length");

export const stripTrailers = (raw: RawHeaders): string[] =>
  filterHeaders(raw, (name) => !neverInTrailers.has(name) && !name.startsWith("x-cell"));

export type BodyFraming =
  | { readonly kind: "none" }
  | { readonly kind: "length"; readonly bytes: number }
  | { readonly kind: "chunked" };

/** How the body of a request is delimited. Node's parser has refused contradictions before. */
export function bodyFraming(raw: RawHeaders): BodyFraming {
  if (headerValues(raw, "transfer-encoding").length > 0) return { kind: "chunked" };
  const [length] = headerValues(raw, "content-length");
  const bytes = Number(length ?? 0);
  return bytes > 0 ? { kind: "length", bytes } : { kind: "none" };
}

/** Any other coding would reach the client as plain bytes: undici undoes `chunked` alone. */
export function isUnderstood(raw: RawHeaders): boolean {
  const codings = headerValues(raw, "transfer-encoding");
  return codings.length === 0 || (codings.length === 1 && codings[0]?.toLowerCase() === "chunked");
}
