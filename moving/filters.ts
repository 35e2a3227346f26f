/**
 * Which rows of a table belong to the keys of a move, as a condition on its key column that PostgreSQL also
 * accepts as the row filter of a publication: no function of ours, nothing that is not immutable, no cast
 * through text. The same condition chooses what is copied and what is removed, so the three agree. Pure.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import { compareBytes, parsePlacementKey, slotCountMax } from "../contract/placement-key.ts";
import { must } from "../runtime/assert.ts";
import type { MoveTask, MovingKey } from "./ports.ts";

/** Types that can be guarded (cellfleet.check_guardable). */
export const keyTypes = ["text", "character varying", "uuid", "bigint", "integer"] as const;
export type KeyType = (typeof keyTypes)[number];
export type FilterColumn = { readonly name: string; readonly type: KeyType };

export function rowFilter(task: Pick<MoveTask, "keys" | "keyspace">, column: FilterColumn): string {
  const tenants: string[] = [];
  const slots: number[] = [];
  const ranges: string[] = [];
  for (const moving of task.keys) {
    const parts = must(parsePlacementKey(moving.key), "a placement key");
    if (parts.kind === "tenant") tenants.push(parts.tenant);
    else if (parts.kind === "slot") slots.push(parts.slot);
    else ranges.push(rangeCondition(parts.from, moving, column));
  }
  const containers = [
    ...(slots.length > 0 ? [slotCondition(slots, task.keyspace.slotCount, column)] : []),
    ...ranges,
  ];
  const above = task.keys.flatMap(({ overrides }) => overrides);
  return anyOf([
    ...(tenants.length > 0 ? [oneOf(tenants, column)] : []),
    ...(containers.length > 0
      ? [allOf([anyOf(containers), ...noneOf([...new Set(above)], column)])]
      : []),
  ]);
}

/** Of one stream, among those of other moves. */
export const markerFilter = (ops: readonly string[]): string =>
  `op = any (array[${ops.map((op) => escapeLiteral(op)).join(", ")}]::text[])`;

const anyOf = (conditions: readonly string[]): string =>
  conditions.length === 1 ? must(conditions[0], "one") : `(${conditions.join(" or ")})`;
const allOf = (conditions: readonly string[]): string =>
  conditions.length === 1 ? must(conditions[0], "one") : `(${conditions.join(" and ")})`;

/** Equality of a text column is that of its bytes: filters refuse the collations of which that is not true. */
function oneOf(values: readonly string[], column: FilterColumn): string {
  const list = listOf(values, column);
  return list === undefined ? "false" : `${escapeIdentifier(column.name)} = any (${list})`;
}

function noneOf(values: readonly string[], column: FilterColumn): string[] {
  const list = listOf(values, column);
  return list === undefined ? [] : [`${escapeIdentifier(column.name)} <> all (${list})`];
}

function listOf(values: readonly string[], { type }: FilterColumn): string | undefined {
  const held = values.filter((value) => canHold(type, value));
  if (held.length === 0) return undefined;
  const cast = type === "character varying" ? "text" : type;
  return `array[${held.map((value) => escapeLiteral(value)).join(", ")}]::${cast}[]`;
}

/** Does some value of the type read exactly like this? Another spelling names no row: the guard compares texts. */
function canHold(type: KeyType, value: string): boolean {
  if (type === "uuid") return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value);
  if (type === "bigint") return isNumberBelow(value, 9_223_372_036_854_775_807n);
  if (type === "integer") return isNumberBelow(value, 2_147_483_647n);
  return true;
}

const isNumberBelow = (value: string, max: bigint): boolean =>
  /^(0|[1-9]\d{0,18})$/.test(value) && BigInt(value) <= max;

/** The expression of cellfleet.slot(), written out: filters refuse functions of users. */
function slotCondition(
  slots: readonly number[],
  slotCount: number | undefined,
  column: FilterColumn,
): string {
  return `${slotNumber(slotCount ?? slotCountMax, column)} = any (array[${slots.join(", ")}])`;
}

/** `slotOf` of the column's value; `slotCount` is a power of two. */
export function slotNumber(slotCount: number, column: FilterColumn): string {
  const digest = `decode(md5(${textOf(column)}), 'hex')`;
  return `((get_byte(${digest}, 0) * 256 + get_byte(${digest}, 1)) & ${slotCount - 1})`;
}

function rangeCondition(from: string, { until }: MovingKey, column: FilterColumn): string {
  const text = `${textOf(column)} collate "C"`;
  if (until !== null && compareBytes(until, from) <= 0) return "false";
  const bounds = [
    ...(from === "" ? [] : [`${text} >= ${escapeLiteral(from)}`]),
    ...(until === null ? [] : [`${text} < ${escapeLiteral(until)}`]),
  ];
  return bounds.length === 0 ? "true" : allOf(bounds);
}

/** The value as PostgreSQL writes it, without the cast to text: filters refuse that for all but text itself. */
function textOf({ name, type }: FilterColumn): string {
  const column = escapeIdentifier(name);
  if (type === "uuid") {
    return `regexp_replace(encode(uuid_send(${column}), 'hex'), '^(.{8})(.{4})(.{4})(.{4})', '\\1-\\2-\\3-\\4-')`;
  }
  if (type === "bigint") return decimalOf(column, 19);
  return type === "integer" ? decimalOf(column, 10) : column;
}

/** Digit by digit. Division cuts towards zero, so the smallest number does not overflow either. */
function decimalOf(column: string, digitCount: number): string {
  const digits = Array.from({ length: digitCount }, (_, place) => {
    const power = 10n ** BigInt(digitCount - 1 - place);
    return `chr(48 + abs(${column} / ${power} % 10)::integer)`;
  });
  const text = `coalesce(nullif(ltrim(${digits.join(" || ")}, '0'), ''), '0')`;
  return `(case when ${column} < 0 then '-' || ${text} else ${text} end)`;
}
