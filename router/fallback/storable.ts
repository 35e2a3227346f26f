/**
 * Pure: which answers may be kept to be given again when the cell cannot answer, by the rules for
 * caches that many share (RFC 9111 section 3, RFC 5861). In doubt it is not kept.
 */
import { headerValues, listElements, type RawHeaders } from "../../contract/raw-headers.ts";

/** Answers that a client sends credentials for are its own, unless they say that they are everybody's. */
const credentials = ["authorization", "cookie", "x-api-key", "x-auth-token"] as const;
/** Words of Cache-Control by which an answer may not be kept here, or not be given stale. */
const forbidding = [
  "no-store",
  "private",
  "no-cache",
  "must-revalidate",
  "proxy-revalidate",
] as const;
const varyFieldsMax = 8;

/** Undefined: it may not be kept. Else the request fields that the answer varies by, lower case, sorted. */
export function storableBy(
  request: RawHeaders,
  status: number,
  answer: RawHeaders,
): readonly string[] | undefined {
  if (status !== 200) return undefined;
  if (headerValues(answer, "set-cookie").length > 0) return undefined;
  const control = directives(answer);
  if (forbidding.some((word) => control.has(word))) return undefined;
  const isOwn = credentials.some((name) => headerValues(request, name).length > 0);
  if (isOwn && !control.has("public")) return undefined;
  const varies = [...new Set(listElements(headerValues(answer, "vary")))];
  if (varies.includes("*") || varies.length > varyFieldsMax) return undefined;
  return varies.sort((a, b) => (a < b ? -1 : 1));
}

/** Requests that ask for a part, or for nothing that was kept, go without. */
export const mayBeGivenStale = (request: RawHeaders): boolean =>
  headerValues(request, "range").length === 0 &&
  !directives(request).has("no-store") &&
  !directives(request).has("no-cache");

/** The request's values of the fields, as one text: two requests with the same are alike. */
export const variantOf = (request: RawHeaders, fields: readonly string[]): string =>
  JSON.stringify(fields.map((field) => headerValues(request, field)));

/** Names of directives, without their values. */
const directives = (headers: RawHeaders): ReadonlySet<string> =>
  new Set(
    listElements(headerValues(headers, "cache-control")).map((one) => one.split("=")[0] ?? ""),
  );
