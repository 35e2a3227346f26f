/**
 * What the pack would say if it were installed, for `--dry-run`: it is installed in a transaction that is
 * rolled back. That touches no table of the application, and leaves nothing.
 */
import { installPack, type PackOptions } from "../../cell/store/install.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";

const inside: Readonly<Record<string, string>> = {
  begin: "savepoint rehearsal",
  commit: "release savepoint rehearsal",
  rollback: "rollback to savepoint rehearsal",
};

/** `work` sees the pack. Undefined where this role may not install it: the real run will say what is missing. */
export async function rehearse<T>(
  client: Queryable,
  options: PackOptions,
  work: () => Promise<T>,
): Promise<T | undefined> {
  // The installer begins and commits by itself, which must not end our transaction.
  const nested: Queryable = {
    query: (text, values) => client.query(inside[text] ?? text, values),
  };
  await client.query("begin");
  try {
    await installPack(nested, options);
    return await work();
  } catch (error) {
    if (error instanceof CellError) return undefined;
    throw error;
  } finally {
    await client.query("rollback");
  }
}
