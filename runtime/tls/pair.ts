/** Is this certificate with this key fit to be served? Says why not in one sentence. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { namesOf } from "./names.ts";

export type Pair = {
  /** PEM; the certificate first, those that lead to its authority after it. */
  readonly cert: string;
  readonly key: string;
  readonly names: readonly string[];
  readonly notAfterMs: number;
};
export type CheckedPair =
  | { readonly kind: "ok"; readonly pair: Pair }
  | { readonly kind: "bad"; readonly reason: string };

const bad = (reason: string): CheckedPair => ({ kind: "bad", reason });

export function checkPair(cert: string, key: string, nowMs: number): CheckedPair {
  let parsed: X509Certificate;
  try {
    parsed = new X509Certificate(cert);
  } catch {
    return bad("the certificate cannot be read: PEM is expected");
  }
  try {
    if (!parsed.checkPrivateKey(createPrivateKey(key))) {
      return bad("the key is not that of the certificate");
    }
  } catch {
    // What Node says of a key may quote it.
    return bad("the key cannot be read: PEM without a passphrase is expected");
  }
  const notAfterMs = parsed.validToDate.getTime();
  if (notAfterMs <= nowMs) return bad(`it expired on ${parsed.validToDate.toISOString()}`);
  return { kind: "ok", pair: { cert, key, names: namesOf(parsed.subjectAltName), notAfterMs } };
}
