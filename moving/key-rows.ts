/**
 * Which rows of a table belong to the keys of a move, as a condition in SQL on `r`.
 *
 * Written from the task, not from what a cell's database knows of ownership: the two cells must be asked
 * for the same rows, and the target has never heard of tenants that stand above a container elsewhere.
 * Pure.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import { parsePlacementKey } from "../contract/placement-key.ts";
import type { MoveTask, MovingKey } from "./ports.ts";

export type KeyColumn = {
  readonly name: string;
  /** As SQL writes it, with its schema. */
  readonly type: string;
  /** Of the tenants of the task, those that the type can hold. */
  readonly holds: readonly string[];
};

/** Tenants that are keys of the task themselves. */
export const tenantsOf = (task: Pick<MoveTask, "keys">): string[] =>
  task.keys.flatMap(({ key }) => {
    const parts = parsePlacementKey(key);
    return parts?.kind === "tenant" ? [parts.tenant] : [];
  });

export function rowsOfKeys(task: Pick<MoveTask, "keys" | "keyspace">, column: KeyColumn): string {
  const text = `r.${escapeIdentifier(column.name)}::text collate "C"`;
  const conditions = task.keys.flatMap((key) => containerRows(key, task, text));
  if (column.holds.length > 0) {
    const values = column.holds.map((value) => escapeLiteral(value)).join(", ");
    // By the column's own type, so that its index serves; by the text, for a type may call two texts equal.
    conditions.push(
      `(r.${escapeIdentifier(column.name)} = any (array[${values}]::${column.type}[]) and ${text} = any (array[${values}]::text[]))`,
    );
  }
  return conditions.length === 0 ? "false" : `(${conditions.join(" or ")})`;
}

function containerRows(
  { key, until, overrides }: MovingKey,
  { keyspace }: Pick<MoveTask, "keyspace">,
  text: string,
): string[] {
  const parts = parsePlacementKey(key);
  if (parts === undefined || parts.kind === "tenant") return [];
  const own =
    parts.kind === "slot"
      ? [`cellfleet.slot(${text}, ${keyspace.slotCount ?? 1}) = ${parts.slot}`]
      : [
          `${text} >= ${escapeLiteral(parts.from)}`,
          ...(until === null ? [] : [`${text} < ${escapeLiteral(until)}`]),
        ];
  const above =
    overrides.length === 0
      ? []
      : [
          `${text} <> all (array[${overrides.map((tenant) => escapeLiteral(tenant)).join(", ")}]::text[])`,
        ];
  return [`(${[...own, ...above].join(" and ")})`];
}
