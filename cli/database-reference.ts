/** Which of a cell's databases a command means, when it was not told by a reference. */
import type { Cell } from "../contract/control-api.ts";
import { usage } from "./failures.ts";

/** Without its stores of other kinds. */
export const databasesOf = (
  stores: Cell["stores"],
): Readonly<Record<string, { readonly database: string }>> =>
  Object.fromEntries(
    Object.entries(stores).flatMap(([name, { database }]) =>
      database === undefined ? [] : [[name, { database }]],
    ),
  );

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
