/**
 * One token against one source: is it signed by the issuer, meant for us, in its time, and what does its
 * claim say? Every "no" has a reason; none of them contains anything of the token.
 */
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from "jose";
import { type TokenClaim, tokenAlgorithmsDefault } from "../../contract/tenant-source.ts";
import type { KeySet } from "./jwt-key-set.ts";

export const tokenRefusals = [
  "malformed",
  "too-large",
  "issuer",
  "audience",
  "type",
  "expired",
  "not-yet",
  "algorithm",
  "key-unknown",
  "signature",
  "claims",
  "keys-unavailable",
  "overloaded",
] as const;
export type TokenRefusal = (typeof tokenRefusals)[number];

export type VerifiedToken = {
  readonly kind: "verified";
  readonly claim: ClaimValue;
  readonly expiresMs: number;
  /** Of the keys it was verified with. */
  readonly keysVersion: number;
};
export type TokenVerdict =
  | VerifiedToken
  | { readonly kind: "refused"; readonly reason: TokenRefusal };

/** `other`: the claim is there and is no text. */
export type ClaimValue =
  | { readonly kind: "absent" }
  | { readonly kind: "text"; readonly value: string }
  | { readonly kind: "other" };

/** Clocks of issuers differ from ours by this much at most. */
const leewaySeconds = 30;
/** Without a setting; tokens of other kinds (logout, security events, proofs) name no tenant. */
const plainTypes: ReadonlySet<string> = new Set(["", "jwt", "at+jwt"]);

export async function verifyToken(
  jwt: TokenClaim,
  keys: KeySet,
  token: string,
  nowMs: number,
): Promise<TokenVerdict> {
  if (!(await keys.loaded())) return refused("keys-unavailable");
  const { version } = keys;
  const first = await verifyOnce(jwt, keys, token, nowMs);
  if (first.kind === "verified" || first.reason !== "key-unknown") return first;
  return (await keys.refreshed(version)) ? verifyOnce(jwt, keys, token, nowMs) : first;
}

async function verifyOnce(
  jwt: TokenClaim,
  keys: KeySet,
  token: string,
  nowMs: number,
): Promise<TokenVerdict> {
  const { find, version } = keys;
  if (find === undefined) return refused("keys-unavailable");
  try {
    const { payload, protectedHeader } = await jwtVerify(token, find, {
      algorithms: [...(jwt.algorithms ?? tokenAlgorithmsDefault)],
      issuer: jwt.issuer,
      ...(jwt.audience === undefined ? {} : { audience: jwt.audience }),
      clockTolerance: leewaySeconds,
      currentDate: new Date(nowMs),
      requiredClaims: ["exp"],
    });
    if (!typeFits(jwt, protectedHeader.typ)) return refused("type");
    const expiresMs = (payload.exp ?? 0) * 1000;
    return {
      kind: "verified",
      claim: claimOf(payload, jwt.claim),
      expiresMs,
      keysVersion: version,
    };
  } catch (error) {
    return refused(reasonOf(error));
  }
}

const refused = (reason: TokenRefusal): TokenVerdict => ({ kind: "refused", reason });

function typeFits({ type }: TokenClaim, typ: string | undefined): boolean {
  const plain = (typ ?? "").toLowerCase().replace(/^application\//, "");
  return type === undefined
    ? plainTypes.has(plain)
    : plain === type.toLowerCase().replace(/^application\//, "");
}

const claimReasons: Readonly<Record<string, TokenRefusal>> = {
  iss: "issuer",
  aud: "audience",
  nbf: "not-yet",
};

function reasonOf(error: unknown): TokenRefusal {
  if (error instanceof errors.JWTExpired) return "expired";
  if (error instanceof errors.JWTClaimValidationFailed)
    return claimReasons[error.claim] ?? "claims";
  if (error instanceof errors.JOSEAlgNotAllowed || error instanceof errors.JOSENotSupported) {
    return "algorithm";
  }
  if (
    error instanceof errors.JWKSNoMatchingKey ||
    error instanceof errors.JWKSMultipleMatchingKeys
  ) {
    return "key-unknown";
  }
  if (error instanceof errors.JWTInvalid || error instanceof errors.JWSInvalid) return "malformed";
  // A bad signature, or a key of the list that does not fit the algorithm.
  return "signature";
}

/** A claim of the whole name comes before a path: `https://example.com/tenant` has dots too. */
function claimOf(payload: JWTPayload, name: string): ClaimValue {
  let value: unknown = member(payload, name);
  if (value === undefined) {
    value = name.split(".").reduce<unknown>((at, part) => member(at, part), payload);
  }
  if (value === undefined || value === null) return { kind: "absent" };
  return typeof value === "string" ? { kind: "text", value } : { kind: "other" };
}

const member = (value: unknown, name: string): unknown =>
  isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined;

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What a token says of itself, believed by nobody yet. Undefined: it is no token. */
export function readUnverified(
  token: string,
):
  | { readonly issuer: string | undefined; readonly claim: (name: string) => ClaimValue }
  | undefined {
  try {
    decodeProtectedHeader(token);
    const payload = decodeJwt(token);
    return { issuer: payload.iss, claim: (name) => claimOf(payload, name) };
  } catch {
    return undefined; // Not three parts of base64url with JSON in them.
  }
}
