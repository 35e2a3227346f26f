/**
 * From the messages of a slot to rows that somebody can judge: which table, which tenant, which key. Pure.
 */
import { isoTime } from "../runtime/clock.ts";
import {
  PgoutputFault,
  type PgoutputMessage,
  type RelationMessage,
  type RowMessage,
  type TupleValue,
} from "./pgoutput.ts";
import type { SalvagedChange } from "./ports.ts";

/** The heartbeat is nobody's row. */
const packSchema = "cellfleet";

/** What a cell knows of a table of tenants. */
export type KeyedTable = { readonly column: string; readonly keyspace: string };

/**
 * Feed it the messages of one slot, in order. `keyed`: guarded tables, by `schema.table`; tables of
 * everybody are none of them.
 */
export function createSalvagedRows(
  store: string,
  keyed: ReadonlyMap<string, KeyedTable>,
): (message: PgoutputMessage) => SalvagedChange | undefined {
  const relations = new Map<number, RelationMessage>();
  let commit: Pick<SalvagedChange, "lsn" | "committedAt"> | undefined;
  const rowOf = (message: RowMessage): SalvagedChange | undefined => {
    const relation = relations.get(message.relation);
    if (relation === undefined) throw new PgoutputFault("a row of a table that was not named");
    if (commit === undefined) throw new PgoutputFault("a row outside of a transaction");
    if (relation.schema === packSchema) return undefined;
    return { store, ...changeOf(message, relation, keyed), ...commit };
  };
  return (message) => {
    if (message.kind === "begin") {
      const committedAt = isoTime(Number(message.committedAtUs / 1000n));
      commit = { lsn: message.lsn, committedAt };
    } else if (message.kind === "relation") {
      relations.set(message.id, message);
    } else if ("relation" in message) {
      return rowOf(message);
    }
    return undefined;
  };
}

function changeOf(
  message: RowMessage,
  relation: RelationMessage,
  keyed: ReadonlyMap<string, KeyedTable>,
): Pick<SalvagedChange, "table" | "keyspace" | "kind" | "tenant" | "key" | "row"> {
  const table = `${relation.schema}.${relation.table}`;
  const before = message.old === undefined ? undefined : named(relation, message.old.values);
  const after = message.new === undefined ? undefined : named(relation, message.new);
  const keyNames = relation.columns.filter(({ isKey }) => isKey).map(({ name }) => name);
  // The row as it was called before: an update may have given it another key.
  const identified = before ?? after ?? {};
  const key = Object.fromEntries(
    keyNames.flatMap((name) => (name in identified ? [[name, identified[name] ?? null]] : [])),
  );
  const { column, keyspace } = keyed.get(table) ?? { column: undefined, keyspace: "" };
  const tenant = column === undefined ? "" : (after?.[column] ?? before?.[column] ?? "");
  return { table, keyspace, kind: message.kind, tenant, key, row: after ?? null };
}

/** Without values that were not sent. */
function named(
  { schema, table, columns }: RelationMessage,
  values: readonly TupleValue[],
): Record<string, string | null> {
  if (values.length !== columns.length) {
    throw new PgoutputFault(
      `a row of ${schema}.${table} has ${values.length} values for ${columns.length} columns`,
    );
  }
  return Object.fromEntries(
    columns.flatMap(({ name }, index) => {
      const value = values[index];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
