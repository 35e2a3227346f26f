/**
 * How a command is told which database is meant: `env:NAME`, `file:PATH`, `exec:COMMAND`. A URL as it
 * is works too, for a look; if it holds a password, the person is told where that can be read.
 */
import { loadConnection } from "./adoption.ts";
import { usage } from "./failures.ts";
import type { Session } from "./session.ts";

export async function noteExposedPassword(session: Session, reference: string): Promise<void> {
  const { exposesPassword } = await loadConnection();
  if (!exposesPassword(reference)) return;
  await session.note(
    "Warning: the list of processes shows this password to everybody here. Better: --database-url env:DATABASE_URL",
  );
}

/** The database of a cell: by its one store, or by the name of one of several. */
export function storeReference(
  cell: string,
  stores: Readonly<Record<string, { readonly database: string }>>,
  name: string | undefined,
): string {
  const names = Object.keys(stores);
  const wanted = name ?? (names.length === 1 ? names[0] : "default");
  const found = wanted === undefined ? undefined : stores[wanted];
  if (found !== undefined) return found.database;
  const known = names.length === 0 ? "none" : names.join(", ");
  throw usage(
    `${cell} has no store ${name === undefined ? "that is the only one" : `"${name}"`} (known: ${known})`,
    "name the database yourself: --database-url env:NAME, file:PATH or exec:COMMAND",
  );
}
