/**
 * Ed25519 signatures with a key id (RFC 8032, by node:crypto). Two keys are valid at once while one
 * is being rotated out: a verifier holds a list, a signer one key of it.
 *
 * Private keys live in files (mode 0600) that a setting refers to; they are never written to a
 * database, a log or an answer.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { z } from "zod";

export const publicKeysSchema = z.object({
  keys: z.array(z.object({ id: z.string().min(1).max(64), spki: z.string().max(200) })).min(1),
});
/** `{keys: [{id, spki: base64 of the DER}]}`: what routers and agents are given. */
export type PublicKeys = z.infer<typeof publicKeysSchema>;

export const privateKeySchema = z.object({
  id: z.string().min(1).max(64),
  pkcs8: z.string().max(400),
});
export type PrivateKey = z.infer<typeof privateKeySchema>;

export type Signer = {
  readonly keyId: string;
  readonly sign: (purpose: string, text: string) => string;
};
export type Verifier = {
  /** False for an unknown key id as well as for a wrong signature. */
  readonly verify: (purpose: string, text: string, keyId: string, signature: string) => boolean;
};

export function generateKey(id: string): {
  readonly privateKey: PrivateKey;
  readonly publicKeys: PublicKeys;
} {
  const pair = generateKeyPairSync("ed25519");
  const spki = pair.publicKey.export({ type: "spki", format: "der" }).toString("base64");
  const pkcs8 = pair.privateKey.export({ type: "pkcs8", format: "der" }).toString("base64");
  return { privateKey: { id, pkcs8 }, publicKeys: { keys: [{ id, spki }] } };
}

/** An id that says which key it is, so that nobody can give it to another one. */
export const keyIdOf = (spki: string): string =>
  hash("sha256", Buffer.from(spki, "base64"), "base64url").slice(0, 22);

/** It is what its id says, and an Ed25519 key. */
export function isPublicKey({ id, spki }: PublicKeys["keys"][number]): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(spki, "base64"), type: "spki", format: "der" });
    return key.asymmetricKeyType === "ed25519" && id === keyIdOf(spki);
  } catch {
    return false; // No key at all.
  }
}

/** The purpose is part of what is signed, so that a signature of one kind is no use for another. */
const message = (purpose: string, text: string): Buffer =>
  Buffer.from(`${purpose}\n${text}`, "utf8");

export function createSigner(key: PrivateKey): Signer {
  const object = createPrivateKey({
    key: Buffer.from(key.pkcs8, "base64"),
    type: "pkcs8",
    format: "der",
  });
  return {
    keyId: key.id,
    sign: (purpose, text) => sign(null, message(purpose, text), object).toString("base64"),
  };
}

export function createVerifier(keys: PublicKeys): Verifier {
  const objects = new Map<string, KeyObject>(
    keys.keys.map(({ id, spki }) => [
      id,
      createPublicKey({ key: Buffer.from(spki, "base64"), type: "spki", format: "der" }),
    ]),
  );
  return {
    verify: (purpose, text, keyId, signature) => {
      const key = objects.get(keyId);
      return (
        key !== undefined &&
        verify(null, message(purpose, text), key, Buffer.from(signature, "base64"))
      );
    },
  };
}

/** What each signature is for. */
export const signaturePurposes = {
  routingTable: "cellfleet.routing-table",
  delta: "cellfleet.delta",
  request: "cellfleet.request",
} as const;
