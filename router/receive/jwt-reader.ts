/**
 * The tokens of a request, verified before its tenant is read. A token that was verified a moment ago is
 * known again by its hash, without waiting; only a new one makes a request wait.
 *
 * What must always be true: a verdict is used for the token, the sources and the keys it was made with,
 * and never after the token's end; tokens are neither kept nor written anywhere, only their hashes are
 * kept; verifying takes a bounded share of the process.
 */
import { hash } from "node:crypto";
import type { ErrorCode } from "../../contract/errors.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import {
  type TenantSource,
  type TokenClaim,
  type TokenSource,
  tokenPlace,
  tokenSourceName,
} from "../../contract/tenant-source.ts";
import { cookieValues, type FindToken, noTokens, type TokenFinding } from "./identify.ts";
import type { KeySet } from "./jwt-key-set.ts";
import {
  type ClaimValue,
  readUnverified,
  type TokenRefusal,
  type TokenVerdict,
  verifyToken,
} from "./jwt-verify.ts";

export type TokenReader = {
  /** A promise only when a token has to be verified. `sources` is the table's own list. */
  readonly read: (
    sources: readonly TenantSource[],
    headers: RawHeaders,
  ) => FindToken | Promise<FindToken>;
};

export type TokenReaderOptions = {
  readonly nowMs: () => number;
  /** The keys at a place; undefined: none are kept for it. */
  readonly keySet: (jwks: string) => KeySet | undefined;
  readonly onVerdict: (result: TokenResult) => void;
};
export const tokenResults = ["verified", "known"] as const;
export type TokenResult = (typeof tokenResults)[number] | TokenRefusal;

/** Longer tokens are refused unread. */
const tokenBytesMax = 8192;
/** Verified tokens that are remembered, and for how long at most. */
const rememberedMax = 10_000;
const rememberedMs = 300_000;
/** Tokens that are being verified at once; what comes above it is refused for now. */
const verifyingMax = 256;

/** The sources that look in one header or cookie. */
type Place = { readonly name: string; readonly sources: readonly TokenSource[] };
type Findings = ReadonlyMap<TokenSource, TokenFinding>;
type Remembered = {
  readonly findings: Findings;
  readonly untilMs: number;
  /** The keys it was verified with, as they were. */
  readonly keys: ReadonlyArray<{ readonly set: KeySet; readonly version: number }>;
};

export function createTokenReader(options: TokenReaderOptions): TokenReader {
  const memory = createMemory(options.nowMs);
  let known: { readonly sources: readonly TenantSource[]; readonly places: readonly Place[] } = {
    sources: [],
    places: [],
  };
  let verifying = 0;

  function placesOf(sources: readonly TenantSource[]): readonly Place[] {
    if (known.sources !== sources) known = { sources, places: groupByPlace(sources) };
    return known.places;
  }

  function refuse(place: Place, reason: TokenRefusal, claim?: ClaimReader): Findings {
    options.onVerdict(reason);
    return refuseAll(place, reason, claim);
  }

  async function judge(place: Place, key: string, token: string): Promise<Findings> {
    const unverified = readUnverified(token);
    if (unverified === undefined) return refuse(place, "malformed");
    const { issuer, claim } = unverified;
    const asked = place.sources.filter(({ jwt }) => jwt.issuer === issuer);
    const trials = await Promise.all(asked.map((source) => tryToken(options, source, token)));
    const verified = trials.filter(({ verdict }) => verdict.kind === "verified");
    // One source that takes it is enough: the others look for other tokens in the same place.
    if (verified.length === 0) {
      const last = trials.at(-1)?.verdict;
      return refuse(place, last?.kind === "refused" ? last.reason : "issuer", claim);
    }
    options.onVerdict("verified");
    const entry = memoryOf(verified, options.nowMs());
    memory.keep(place, key, entry);
    return entry.findings;
  }

  function look(place: Place, headers: RawHeaders): Findings | Promise<Findings> {
    const [value, second] = tokensAt(place, headers);
    if (value === undefined) return nothing;
    if (second !== undefined) {
      return new Map(place.sources.map((source) => [source, { kind: "several" }]));
    }
    if (value.length > tokenBytesMax) return refuse(place, "too-large");
    const key = hash("sha256", value, "base64url");
    const found = memory.recall(place, key);
    if (found !== undefined) {
      options.onVerdict("known");
      return found;
    }
    if (verifying >= verifyingMax) return refuse(place, "overloaded");
    verifying += 1;
    return judge(place, key, value).finally(() => {
      verifying -= 1;
    });
  }

  return {
    read: (sources, headers) => {
      const places = placesOf(sources);
      if (places.length === 0) return noTokens;
      const found = places.map((place) => look(place, headers));
      return isSettled(found) ? finder(found) : Promise.all(found).then(finder);
    },
  };
}

/** Verified tokens, each under the place it was found in: another list of sources has other places. */
function createMemory(nowMs: () => number) {
  /** Least recently used first. */
  const kept = new Map<string, Remembered & { readonly place: Place }>();
  return {
    recall: (place: Place, key: string): Findings | undefined => {
      const name = `${place.name} ${key}`;
      const found = kept.get(name);
      if (found === undefined) return undefined;
      kept.delete(name);
      const isGood =
        found.place === place &&
        nowMs() < found.untilMs &&
        found.keys.every(({ set, version }) => set.version === version);
      if (!isGood) return undefined;
      kept.set(name, found);
      return found.findings;
    },
    keep: (place: Place, key: string, entry: Remembered): void => {
      if (nowMs() >= entry.untilMs) return;
      const [oldest] = kept.keys();
      if (kept.size >= rememberedMax && oldest !== undefined) kept.delete(oldest);
      kept.set(`${place.name} ${key}`, { ...entry, place });
    },
  };
}

type Trial = {
  readonly source: TokenSource;
  readonly set: KeySet | undefined;
  readonly verdict: TokenVerdict;
};

async function tryToken(
  { keySet, nowMs }: TokenReaderOptions,
  source: TokenSource,
  token: string,
): Promise<Trial> {
  const set = keySet(source.jwt.jwks);
  const verdict: TokenVerdict =
    set === undefined
      ? { kind: "refused", reason: "keys-unavailable" }
      : await verifyToken(source.jwt, set, token, nowMs());
  return { source, set, verdict };
}

function memoryOf(trials: readonly Trial[], nowMs: number): Remembered {
  const findings = new Map<TokenSource, TokenFinding>();
  const keys: Array<Remembered["keys"][number]> = [];
  let untilMs = nowMs + rememberedMs;
  for (const { source, set, verdict } of trials) {
    if (verdict.kind !== "verified" || set === undefined) continue;
    findings.set(source, findingOf(source, verdict.claim));
    keys.push({ set, version: verdict.keysVersion });
    untilMs = Math.min(untilMs, verdict.expiresMs);
  }
  return { findings, untilMs, keys };
}

type ClaimReader = (name: string) => ClaimValue;

const refuseAll = (place: Place, reason: TokenRefusal, claim?: ClaimReader): Findings =>
  new Map(
    place.sources.map((source) => [source, refusal(place, reason, claim?.(source.jwt.claim))]),
  );

const nothing: Findings = new Map();

const isSettled = (
  found: readonly (Findings | Promise<Findings>)[],
): found is readonly Findings[] => !found.some((one) => one instanceof Promise);

const finder =
  (found: readonly Findings[]): FindToken =>
  (source) => {
    for (const findings of found) {
      const finding = findings.get(source);
      if (finding !== undefined) return finding;
    }
    return noTokens(source);
  };

function groupByPlace(sources: readonly TenantSource[]): readonly Place[] {
  const byName = Map.groupBy(
    sources.filter((source): source is TokenSource => "jwt" in source),
    ({ jwt }) => tokenPlace(jwt),
  );
  return [...byName].map(([name, ofPlace]) => ({ name, sources: ofPlace }));
}

/** Everything in this place that may be a token; `authorization` also carries other things. */
function tokensAt({ sources: [first] }: Place, headers: RawHeaders): string[] {
  if (first === undefined) return [];
  const { header = "authorization", cookie }: TokenClaim = first.jwt;
  if (cookie !== undefined) return cookieValues(cookie, headers);
  const name = header.toLowerCase();
  const values = headerValues(headers, name).map((value) => value.trim());
  const isBearer = (value: string) => /^bearer(?: |$)/i.test(value);
  // Of two, each could be the one that the application reads.
  if (name === "authorization" && values.length === 1 && !values.some(isBearer)) return [];
  return values.map((value) => (isBearer(value) ? value.slice("bearer".length).trim() : value));
}

const findingOf = (source: TokenSource, claim: ClaimValue): TokenFinding => {
  if (claim.kind === "text") return { kind: "claim", value: claim.value };
  if (claim.kind === "absent") return { kind: "absent" };
  const message = `The ${tokenSourceName(source.jwt)} is no text, so it names no tenant.`;
  return { kind: "refused", code: "TENANT_INVALID", message, claimed: undefined };
};

const codes: Readonly<Partial<Record<TokenRefusal, ErrorCode>>> = {
  "keys-unavailable": "TENANT_KEYS_UNAVAILABLE",
  overloaded: "ROUTER_OVERLOADED",
};

const texts: Readonly<Record<TokenRefusal, string>> = {
  malformed: "is no signed token (JWT)",
  "too-large": `is longer than ${tokenBytesMax} bytes`,
  issuer: "is not of an issuer that this router believes",
  audience: "is meant for another audience",
  type: "is of another type",
  expired: "has expired",
  "not-yet": "is not valid yet",
  algorithm: "is signed with an algorithm that is not allowed",
  "key-unknown": "is signed with a key that its issuer does not publish",
  signature: "has a signature that does not fit",
  claims: "lacks a claim that is needed, or has one of the wrong kind",
  "keys-unavailable": "cannot be judged: the keys of its issuer have not been read yet",
  overloaded: "cannot be judged now: too many others are being verified",
};

function refusal(place: Place, reason: TokenRefusal, claim: ClaimValue | undefined): TokenFinding {
  return {
    kind: "refused",
    code: codes[reason] ?? "TENANT_TOKEN_INVALID",
    message: `The token in ${place.name} ${texts[reason]}.`,
    claimed: claim?.kind === "text" ? claim.value : undefined,
  };
}
