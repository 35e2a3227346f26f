/** What is signed, how long a signature is used, and that another text gets another one. */
import { describe, expect, test } from "vitest";
import {
  parseSignature,
  requestText,
  type SignedRequest,
  signedText,
} from "../../contract/request-signature.ts";
import { createVerifier, signaturePurposes } from "../../runtime/signing.ts";
import { makeKey } from "./own-keys.ts";
import { RequestSigner } from "./request-signer.ts";

const start = 1_800_000_000_000;
const request: SignedRequest = {
  ...{ fleet: "fleet-1", cell: "cell-a", routeClass: "tenant", service: "default" },
  tenant: { keyspace: "default", tenant: "acme" },
  placement: { key: "default/tenant/acme", epoch: 3 },
};

function signing() {
  let nowMs = start;
  let made = 0;
  const key = makeKey(nowMs);
  const signer = new RequestSigner({ nowMs: () => nowMs, onSigned: () => (made += 1) });
  signer.use(key);
  const verifier = createVerifier({ keys: [key] });
  const holds = (value: string | undefined, of: SignedRequest) => {
    const parts = parseSignature(value ?? "");
    if (parts === undefined) return false;
    const text = signedText(parts.keyId, parts.expiresSeconds, requestText(of));
    return verifier.verify(signaturePurposes.request, text, parts.keyId, parts.signature);
  };
  return { signer, holds, at: (ms: number) => (nowMs = start + ms), made: () => made };
}

test("holds for the request it was made for, and for no other", () => {
  const { signer, holds } = signing();
  const value = signer.sign(request);
  expect(holds(value, request)).toBe(true);
  const others: SignedRequest[] = [
    { ...request, fleet: "fleet-2" },
    { ...request, cell: "cell-b" },
    { ...request, tenant: { keyspace: "default", tenant: "globex" } },
    { ...request, tenant: { keyspace: "other", tenant: "acme" } },
    { ...request, tenant: undefined },
    { ...request, placement: { key: "default/tenant/globex", epoch: 3 } },
    { ...request, placement: { key: "default/tenant/acme", epoch: 4 } },
    { ...request, placement: undefined },
    { ...request, routeClass: "any-cell" },
    { ...request, service: "admin" },
  ];
  for (const other of others) expect(holds(value, other)).toBe(false);
  // Each has its own, at the same instant: nothing is taken from another's.
  for (const other of others) expect(holds(signer.sign(other), other)).toBe(true);
});

describe("a signature is used again", () => {
  test("for half of its life", () => {
    const { signer, at, made } = signing();
    const value = signer.sign(request);
    at(29_999);
    expect(signer.sign({ ...request })).toBe(value);
    at(30_000);
    expect(signer.sign(request)).not.toBe(value);
    expect(made()).toBe(2);
  });

  test("not when the clock was set back", () => {
    const { signer, at } = signing();
    const value = signer.sign(request);
    at(-3_600_000);
    expect(signer.sign(request)).not.toBe(value);
  });

  test("not with another key", () => {
    const { signer } = signing();
    const value = signer.sign(request);
    const next = makeKey(start);
    signer.use(next);
    expect(parseSignature(signer.sign(request) ?? "")?.keyId).toBe(next.id);
    expect(signer.sign(request)).not.toBe(value);
  });
});

test("without a key nothing is signed", () => {
  const signer = new RequestSigner({ nowMs: () => start, onSigned: () => {} });
  expect(signer.sign(request)).toBeUndefined();
});
