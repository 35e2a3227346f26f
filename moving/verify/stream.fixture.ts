/**
 * A stream between two stores of one server, as a move makes it, of all guarded tables: for tests of what
 * stands on streams. Rows that were there before are not copied.
 */
import type { CellStore } from "../../tests/cell-store.ts";
import type { TestPostgres } from "../../tests/postgres.ts";
import { guardedTables } from "../two-cells.fixture.ts";

export async function link(options: {
  readonly from: CellStore;
  readonly to: CellStore;
  readonly server: TestPostgres;
  readonly name: string;
  /** Whose markers it carries. */
  readonly op: string;
}): Promise<void> {
  const { from, to, server, name, op } = options;
  await from.admin.query(
    `create publication ${name} for table ${guardedTables.join(", ")}, cellfleet.move_marker where (op = '${op}')
       with (publish = 'insert, update, delete', publish_via_partition_root = true)`,
  );
  await from.admin.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [name]);
  await to.admin.query(
    `create subscription ${name} connection '${server.url(from.name)}' publication ${name}
       with (create_slot = false, slot_name = '${name}', copy_data = false, origin = none, synchronous_commit = on)`,
  );
}
