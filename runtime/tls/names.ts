/** Pure: which hosts a certificate speaks for, by the names in it and nothing else (RFC 6125). */
import { isIP } from "node:net";

const namePattern =
  /^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$/;

/** Lower case; `*.` at the beginning only. What is no name or address is left out. */
export function namesOf(subjectAltName: string | undefined): string[] {
  const names: string[] = [];
  for (const part of (subjectAltName ?? "").split(", ")) {
    const [, kind, value = ""] = /^(DNS|IP Address):(.+)$/.exec(part) ?? [];
    const name = kind === "DNS" ? value.toLowerCase() : canonicalAddress(value);
    if (kind === "DNS" ? namePattern.test(name) : isIP(name) !== 0) names.push(name);
  }
  return names;
}

/** The name under which a wildcard would cover `host`: `*.cells.test` for `acme.cells.test`. */
export function wildcardOf(host: string): string | undefined {
  const dot = host.indexOf(".");
  return dot <= 0 || isIP(host) !== 0 ? undefined : `*${host.slice(dot)}`;
}

/** A host as it stands in a request (lower case, no port), in the form of `namesOf`. */
export const canonicalHost = (host: string): string =>
  host.startsWith("[") ? canonicalAddress(host.slice(1, -1)) : host;

/** One spelling for each address of IPv6. */
function canonicalAddress(address: string): string {
  if (isIP(address) !== 6) return address;
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}
