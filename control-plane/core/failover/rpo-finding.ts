/**
 * What idempotency records say of a write in doubt, where a cell has several stores: the record stands in the
 * store of the effect it was written with, and proves nothing of another store's log.
 *
 * What must always be true: nothing is called found unless every store in doubt has its record.
 */
import type { Finding } from "./rpo-facts.ts";

/** `inDoubt`: empty means the one store that there is. */
export function findingOf(
  inDoubt: readonly string[],
  { asked, found }: { readonly asked: readonly string[]; readonly found: readonly string[] },
): Finding {
  if (inDoubt.length === 0) {
    if (asked.length === 0) return "unasked";
    return found.length > 0 ? "found" : "absent";
  }
  if (inDoubt.every((store) => found.includes(store))) return "found";
  // It has a record in one store: in the others there may have been nothing to write.
  if (found.length > 0) return "unasked";
  return inDoubt.some((store) => asked.includes(store)) ? "absent" : "unasked";
}
