/**
 * Names of tenants that are no tenant ids: mail addresses, custom domains, API keys, accounts of
 * webhooks. Only their hashes are kept and travel; the same name gives the same hash everywhere.
 *
 * The hash is an HMAC-SHA-256 with the fleet's salt over namespace and name, cut to 128 bits: two of
 * a billion names meet with a probability below 10^-20. It hides names from whoever reads a backup,
 * a log or a disk of a router; who also holds the salt can try out names that are easy to guess.
 */
import { createHmac, createSecretKey } from "node:crypto";
import { z } from "zod";

export const aliasNamespacePattern = /^[a-z][a-z0-9-]{0,38}[a-z0-9]$/;
export const aliasNamespaceRule =
  "2 to 40 characters: a lower-case letter, then lower-case letters, digits and dashes, no dash at the end";
export const aliasNamespaceSchema = z.string().regex(aliasNamespacePattern, aliasNamespaceRule);

/** 128 bits, base64url. */
export const aliasHashSchema = z.string().regex(/^[A-Za-z0-9_-]{22}$/);

/** Longest name in characters; a longer one is nobody's. */
export const aliasNameMax = 1024;

/**
 * One spelling for what people mean as one name: Unicode NFC, no space around it, and where the
 * namespace folds, lower case. Undefined: empty, too long, or with control characters.
 */
export function normaliseAlias(raw: string, fold: boolean): string | undefined {
  const name = raw.normalize("NFC").trim();
  if (name === "" || name.length > aliasNameMax || /\p{Cc}/u.test(name)) return undefined;
  return fold ? name.toLowerCase() : name;
}

/** Hashes a name of a namespace, spelled as `normaliseAlias` does. */
export type AliasHasher = (namespace: string, name: string) => string;

/** For many names under one salt (hex): the key is made once, which costs more than a hash. */
export function createAliasHasher(salt: string): AliasHasher {
  const key = createSecretKey(Buffer.from(salt, "hex"));
  return (namespace, name) =>
    createHmac("sha256", key)
      .update(`${namespace}\n${name}`, "utf8")
      .digest()
      .subarray(0, 16)
      .toString("base64url");
}

/** `name` as `normaliseAlias` gives it; `salt` in hex. */
export const hashAlias = (salt: string, namespace: string, name: string): string =>
  createAliasHasher(salt)(namespace, name);
