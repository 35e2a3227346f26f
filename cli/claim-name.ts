/**
 * `NAMESPACE:NAME`, as people write a name of a tenant: `domain:shop.example`. With `-` for the name it
 * is read from standard input, so that an API key stands neither in a shell's history nor in `ps`.
 */
import { aliasNameMax, aliasNamespacePattern, aliasNamespaceRule } from "../contract/alias.ts";
import { usage } from "./failures.ts";
import type { Session } from "./session.ts";

export type ClaimName = { readonly namespace: string; readonly value: string };

export async function readClaimName(session: Session, raw: string): Promise<ClaimName> {
  const at = raw.indexOf(":");
  const namespace = raw.slice(0, Math.max(0, at));
  const given = raw.slice(at + 1);
  // What was typed is not said again: it may be a secret that stands in the wrong place.
  if (at === -1) throw usage("a name is NAMESPACE:NAME, such as domain:shop.example");
  if (!aliasNamespacePattern.test(namespace)) {
    throw usage(`a namespace is ${aliasNamespaceRule}`, "cellctl claim namespaces");
  }
  const value = given === "-" ? await fromStdin(session) : given;
  if (value.trim() === "") throw usage("the name after the colon is empty");
  return { namespace, value };
}

async function fromStdin(session: Session): Promise<string> {
  let text = "";
  for await (const chunk of session.io.stdin) {
    text += String(chunk);
    if (text.length > aliasNameMax * 4) throw usage("standard input holds more than a name");
  }
  return text.trim();
}
