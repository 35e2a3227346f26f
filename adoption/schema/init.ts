/** `schema init`: proposes a manifest from a database's catalog. Changes nothing there. */
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { type Proposal, proposeManifest } from "./propose.ts";
import { writeManifest } from "./write-manifest.ts";

export type InitOptions = {
  readonly keyColumn: string | undefined;
  readonly store: string;
  readonly keyspace: string;
};

/** Throws SCHEMA_UNFIT when no column looks like a tenant's key. */
export async function initManifest(
  client: Queryable,
  options: InitOptions,
): Promise<{ readonly text: string; readonly proposal: Proposal }> {
  const catalog = await readAppCatalog(client);
  if (catalog.tables.length === 0) {
    throw new CellError(
      "SCHEMA_UNFIT",
      `The database ${catalog.database} has no tables that ${catalog.user} can see`,
      {
        nextSteps: ["run your migrations first, or log in as a role that sees the tables"],
      },
    );
  }
  const proposal = proposeManifest(catalog, options.keyColumn);
  if (proposal === undefined) {
    throw new CellError("SCHEMA_UNFIT", "No column looks like the key of a tenant", {
      nextSteps: ["name it: cellctl schema init --key-column COLUMN"],
    });
  }
  return { text: writeManifest(proposal, options.store, options.keyspace), proposal };
}
