/**
 * Kinds of names, and the salt that names are hashed with. A namespace never changes: hashes that
 * stand in the table rest on it.
 */
import { asc, eq } from "drizzle-orm";
import type { ClaimNamespace } from "../../contract/claims-api.ts";
import { claimNamespaceSchema } from "../../contract/claims-api.ts";
import { CellError } from "../../contract/errors.ts";
import { must } from "../../runtime/assert.ts";
import { isoTime } from "../../runtime/clock.ts";
import { firstNamespaces, type NamespaceView } from "../core/claims.ts";
import { didYouMean } from "../core/did-you-mean.ts";
import type { Reader, Tx } from "./database.ts";
import { fleet } from "./schema.ts";
import { claimNamespace } from "./schema-adoption.ts";

export async function listNamespaces(reader: Reader): Promise<ClaimNamespace[]> {
  const rows = await reader.select().from(claimNamespace).orderBy(asc(claimNamespace.name));
  return rows.map((row) =>
    claimNamespaceSchema.parse({
      ...row,
      id: row.name,
      createdAt: isoTime(row.createdAt.getTime()),
    }),
  );
}

/** Throws NOT_FOUND, with the names nearest to it. */
export async function requireNamespace(reader: Reader, name: string): Promise<NamespaceView> {
  const all = await reader.select().from(claimNamespace);
  const found = all.find((one) => one.name === name);
  if (found !== undefined) return found;
  const near = didYouMean(
    name,
    all.map((one) => one.name),
  );
  throw new CellError("NOT_FOUND", `There is no namespace ${name} for names of tenants.`, {
    nextSteps: [
      ...near.map((other) => `Did you mean ${other}?`),
      "cellctl claim namespaces",
      `cellctl claim namespaces add ${name} --cardinality one`,
    ],
  });
}

/** Hex; of this fleet, for ever. */
export async function readSalt(reader: Reader): Promise<string> {
  const [row] = await reader.select({ salt: fleet.aliasSalt }).from(fleet);
  return must(row, "fleet row").salt;
}

export async function namespaceExists(reader: Reader, name: string): Promise<boolean> {
  return (await reader.$count(claimNamespace, eq(claimNamespace.name, name))) > 0;
}

export async function insertNamespace(tx: Tx, row: NamespaceView): Promise<void> {
  await tx.insert(claimNamespace).values(row);
}

/** True: the fleet did not have all of them yet. */
export async function insertFirstNamespaces(tx: Tx): Promise<boolean> {
  const added = await tx
    .insert(claimNamespace)
    .values([...firstNamespaces])
    .onConflictDoNothing()
    .returning({ name: claimNamespace.name });
  return added.length > 0;
}
