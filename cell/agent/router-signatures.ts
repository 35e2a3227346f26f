/**
 * Did a request come through a router of this fleet? Its signature (`contract/request-signature.ts`) is
 * checked against the routers' keys of the signed table that this agent follows.
 *
 * What must always be true: a signature counts for exactly what this request says of fleet, cell, tenant,
 * placement, epoch, class and service, and only while it is valid by this machine's clock; a key counts
 * only while the table names it. A key that the table does not name yet is waited for, shortly.
 */
import {
  parseSignature,
  requestText,
  type SignedRequest,
  signatureLifeMs,
  signedText,
} from "../../contract/request-signature.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Counter } from "../../runtime/metrics.ts";
import { createVerifier, signaturePurposes, type Verifier } from "../../runtime/signing.ts";

/** `observe` counts what `require` refuses. */
export const signatureModes = ["require", "observe", "off"] as const;
export type SignatureMode = (typeof signatureModes)[number];

export const signatureVerdicts = [
  "valid",
  /** The fleet's control plane publishes no keys: nothing can be asked for. */
  "no-keys",
  "no-table",
  "missing",
  "malformed",
  "unknown-key",
  "expired",
  /** Valid for longer than any router signs for: its clock or its maker is wrong. */
  "too-long",
  "forged",
] as const;
export type SignatureVerdict = (typeof signatureVerdicts)[number];
export const isAccepted = (verdict: SignatureVerdict): boolean =>
  verdict === "valid" || verdict === "no-keys";

/** Clocks of routers and cells differ by this much at most. */
const toleranceMs = 30_000;
/** Verified signatures that are remembered; a router makes one per placement and half minute. */
const verifiedMax = 65_536;
/** Longest wait for the table to bring a key, and requests that may wait at once. */
const keyWaitMs = 1000;
const waitingMax = 1000;

export type SignatureCheck = {
  /** `raw`: the header's values. A promise only when a key is waited for, which takes patience. */
  readonly check: (
    request: Omit<SignedRequest, "fleet">,
    raw: readonly string[],
    patient: boolean,
  ) => SignatureVerdict | Promise<SignatureVerdict>;
  /** After each change of the table. */
  readonly follow: (table: TableState) => void;
};

type Keys = {
  readonly fleet: string;
  /** Undefined: this control plane publishes none. */
  readonly list: TableState["lists"]["routerKeys"];
  readonly byId: ReadonlyMap<string, Verifier>;
};
/** What a signature was verified for. */
type Verified = { readonly text: string; readonly expiresMs: number };

export function createSignatureCheck(options: {
  readonly clock: Clock;
  readonly counter: Counter;
}): SignatureCheck {
  const { clock, counter } = options;
  let keys: Keys | undefined;
  /** Oldest first. */
  const verified = new Map<string, Verified>();
  const waiting = new Set<() => void>();

  function judge(request: Omit<SignedRequest, "fleet">, raw: readonly string[]): SignatureVerdict {
    if (keys === undefined) return "no-table";
    if (keys.list === undefined) return "no-keys";
    const [value, second] = raw;
    if (value === undefined) return "missing";
    if (second !== undefined) return "malformed";
    const text = requestText({ ...request, fleet: keys.fleet });
    const known = verified.get(value);
    if (known?.text === text) return timeVerdict(known.expiresMs, clock.nowMs()) ?? "valid";
    return verify(keys, value, text);
  }

  function verify({ byId }: Keys, value: string, text: string): SignatureVerdict {
    const parts = parseSignature(value);
    if (parts === undefined) return "malformed";
    const { keyId, expiresSeconds, signature } = parts;
    const expiresMs = expiresSeconds * 1000;
    const late = timeVerdict(expiresMs, clock.nowMs());
    if (late !== undefined) return late;
    const verifier = byId.get(keyId);
    if (verifier === undefined) return "unknown-key";
    const signed = signedText(keyId, expiresSeconds, text);
    if (!verifier.verify(signaturePurposes.request, signed, keyId, signature)) return "forged";
    const [oldest] = verified.keys();
    if (verified.size >= verifiedMax && oldest !== undefined) verified.delete(oldest);
    verified.set(value, { text, expiresMs });
    return "valid";
  }

  /** Until the table names the key, or it is too late. */
  async function waitForKey(
    request: Omit<SignedRequest, "fleet">,
    raw: readonly string[],
  ): Promise<SignatureVerdict> {
    const enough = new AbortController();
    let verdict: SignatureVerdict;
    const wake = () => {
      verdict = judge(request, raw);
      if (!isAwaited(verdict)) enough.abort();
    };
    verdict = judge(request, raw);
    waiting.add(wake);
    await clock.sleep(keyWaitMs, enough.signal);
    waiting.delete(wake);
    return verdict;
  }

  const counted = (verdict: SignatureVerdict): SignatureVerdict => {
    counter.inc({ verdict });
    return verdict;
  };

  return {
    check: (request, raw, patient) => {
      const verdict = judge(request, raw);
      const waits = patient && isAwaited(verdict) && waiting.size < waitingMax;
      if (!waits) return counted(verdict);
      return waitForKey(request, raw).then(counted);
    },
    follow: ({ fleet, lists: { routerKeys: list } }) => {
      if (keys !== undefined && keys.list === list && keys.fleet === fleet) return;
      keys = { fleet, list, byId: new Map((list ?? []).flatMap(verifierOf)) };
      // A key that is gone takes with it what it has signed.
      verified.clear();
      for (const wake of waiting) wake();
    },
  };
}

const isAwaited = (verdict: SignatureVerdict): boolean =>
  verdict === "unknown-key" || verdict === "no-table";

function timeVerdict(expiresMs: number, nowMs: number): SignatureVerdict | undefined {
  if (nowMs > expiresMs + toleranceMs) return "expired";
  return expiresMs > nowMs + signatureLifeMs + toleranceMs ? "too-long" : undefined;
}

function verifierOf({ id, spki }: { readonly id: string; readonly spki: string }) {
  try {
    return [[id, createVerifier({ keys: [{ id, spki }] })] as const];
  } catch {
    return []; // The control plane checks keys; one that is none signs nothing.
  }
}
