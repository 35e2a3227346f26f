import { describe, expect, test } from "vitest";
import { createSigner, createVerifier, generateKey, signaturePurposes } from "./signing.ts";

const { privateKey, publicKeys } = generateKey("key-1");
const signer = createSigner(privateKey);
const purpose = signaturePurposes.delta;

describe("a signature", () => {
  const verifier = createVerifier(publicKeys);
  const signature = signer.sign(purpose, "text");

  test("holds for its text, purpose and key", () => {
    expect(verifier.verify(purpose, "text", "key-1", signature)).toBe(true);
  });

  test.each([
    ["another text", purpose, "text.", "key-1", signature],
    ["another purpose", signaturePurposes.routingTable, "text", "key-1", signature],
    ["an unknown key", purpose, "text", "key-2", signature],
    ["no signature", purpose, "text", "key-1", ""],
    ["rubbish", purpose, "text", "key-1", "%%%"],
    ["a changed signature", purpose, "text", "key-1", `A${signature.slice(1)}B`],
  ] as const)("does not hold for %s", (_what, usedPurpose, text, keyId, used) => {
    expect(verifier.verify(usedPurpose, text, keyId, used)).toBe(false);
  });

  test("cannot be moved over the border between purpose and text", () => {
    const moved = signer.sign("a", "b\nc");
    expect(verifier.verify("a\nb", "c", "key-1", moved)).toBe(true);
    expect(Object.values(signaturePurposes).some((name) => name.includes("\n"))).toBe(false);
  });
});

test("two keys are valid at once while one is rotated out", () => {
  const next = generateKey("key-2");
  const both = createVerifier({ keys: [...publicKeys.keys, ...next.publicKeys.keys] });
  const onlyNext = createVerifier(next.publicKeys);
  const old = signer.sign(purpose, "text");
  const fresh = createSigner(next.privateKey).sign(purpose, "text");
  expect(both.verify(purpose, "text", "key-1", old)).toBe(true);
  expect(both.verify(purpose, "text", "key-2", fresh)).toBe(true);
  expect(onlyNext.verify(purpose, "text", "key-1", old)).toBe(false);
  expect(both.verify(purpose, "text", "key-2", old)).toBe(false);
});
