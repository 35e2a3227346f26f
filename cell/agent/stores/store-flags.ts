/**
 * Further stores of the cell, from `--store NAME=REF`: pure. The first one is `--database-url`, and is
 * called `default` everywhere.
 */
import { defaultService } from "../../../contract/service-route.ts";
import { parseSecretRef, secretRefRule } from "../../../runtime/secret-ref.ts";

export type StoreConfig = {
  readonly name: string;
  /** A reference, not a secret. */
  readonly databaseUrl: string;
};

const storesMax = 16;
/** As in `cellfleet.yaml`; also what sequences of this store are told by. */
const namePattern = /^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/;

/** In the order of their names, the same for every agent of a cell; and every problem with the flags. */
export function parseStores(
  flags: readonly string[],
  first: string | undefined,
): { readonly stores: readonly StoreConfig[]; readonly problems: readonly string[] } {
  const stores: StoreConfig[] = [];
  const problems: string[] = [];
  for (const raw of flags) {
    const at = raw.indexOf("=");
    const name = raw.slice(0, Math.max(0, at));
    const databaseUrl = raw.slice(at + 1);
    const problem =
      problemOf(name, databaseUrl) ??
      (stores.some((one) => one.name === name) ? `${name} is named twice` : undefined) ??
      ([first, ...stores.map((one) => one.databaseUrl)].includes(databaseUrl)
        ? `${name} is the same database as another store`
        : undefined);
    if (problem === undefined) stores.push({ name, databaseUrl });
    else problems.push(`--store: ${problem}`);
  }
  if (stores.length > storesMax) problems.push(`--store: at most ${storesMax} further stores`);
  return { stores: stores.toSorted((a, b) => (a.name < b.name ? -1 : 1)), problems };
}

/** What was given is not repeated: it may be a secret. */
function problemOf(name: string, databaseUrl: string): string | undefined {
  if (name === defaultService) return `${defaultService} is the store of --database-url`;
  if (!namePattern.test(name) || parseSecretRef(databaseUrl) === undefined) {
    return `must be NAME=REF, the reference ${secretRefRule}`;
  }
  return undefined;
}
