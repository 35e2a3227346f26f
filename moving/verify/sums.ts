/**
 * Count and checksum of a key's rows in one table, and its foreign keys without a parent, in the snapshot
 * that a session stands in.
 *
 * Always true: the sum does not depend on the order of rows or columns, nor on what either server writes
 * values like; and different rows have different sums. Each row, all its columns together, is hashed twice to
 * 64 bits, with two seeds, and both hashes are added up over the rows, modulo 2^64. So values that were
 * swapped between two rows change two hashes; a row that stands twice is added twice (xor would cancel
 * it, and any two equal changes); and two changes cancel with a chance of 2^-128. This finds faults, not
 * forgers: nobody who could choose rows by their hash writes to a target. A digest such as SHA-256 takes three
 * times as long. PostgreSQL keeps the hash as it is from version to version, for partitions depend on it; it is
 * of the encoded bytes, so the preflight refuses two encodings.
 */
import { escapeIdentifier } from "pg";
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import { rowsOfKeys } from "../key-rows.ts";
import type { MoveTask } from "../ports.ts";
import { noticeGoneClients } from "../store-session.ts";
import type { ComparedTable } from "./tables.ts";

type TableSum = { readonly rows: number; readonly sum: string };
export type Orphans = { readonly name: string; readonly parent: string; readonly rows: number };

/**
 * What the text of a value depends on, and who may see what. `row_security = off`: a policy that hides
 * rows makes an error, not a smaller sum. `lc_monetary` for money, `search_path` for names of tables.
 */
const settings = `
  set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres';
  set local extra_float_digits = 3; set local bytea_output = 'hex'; set local xmloption = 'content';
  set local lc_monetary = 'C'; set local row_security = off; set local search_path = pg_catalog, pg_temp`;

/** In a transaction that is open: for it alone. */
export async function settleText(client: Queryable, statementMsMax: number): Promise<void> {
  await client.query(noticeGoneClients);
  await client.query(`${settings}; set local statement_timeout = ${statementMsMax}`);
}

const seeds = { high: 1, low: 7_305_730_573 } as const;
const sumSchema = z.object({ rows: z.number(), high: z.string(), low: z.string() });

export async function sumTable(
  client: Queryable,
  task: MoveTask,
  table: ComparedTable,
): Promise<TableSum> {
  const columns = table.columns.map(({ name }) => `r.${escapeIdentifier(name)}`).join(", ");
  // `offset 0`: else the planner puts the row's text in twice, and makes it twice.
  const { rows } = await client.query<{ sum: unknown }>(
    `select jsonb_build_object('rows', count(*),
              'high', coalesce(sum(hashtextextended(d.text collate "C", ${seeds.high})), 0)::text,
              'low', coalesce(sum(hashtextextended(d.text collate "C", ${seeds.low})), 0)::text) as sum
       from (select row(${columns})::text as text
               from ${sourceOf(table)} r where ${rowsOfKeys(task, table.key)} offset 0) d`,
  );
  const { rows: count, high, low } = sumSchema.parse(rows[0]?.sum);
  return { rows: count, sum: `${hex64(high)}${hex64(low)}` };
}

const hex64 = (sum: string): string =>
  BigInt.asUintN(64, BigInt(sum)).toString(16).padStart(16, "0");

/** What inherits from a table has a guard, and a line, of its own; partitions are reached through it. */
const sourceOf = ({ schema, table, partitioned }: ComparedTable["foreignKeys"][number]["parent"]) =>
  `${partitioned ? "" : "only "}${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;

/** Of the keys' rows, by foreign key; a row in which any of the columns is null refers to nothing. */
export async function countOrphans(
  client: Queryable,
  task: MoveTask,
  table: ComparedTable,
): Promise<Orphans[]> {
  const found: Orphans[] = [];
  for (const { name, parent, pairs } of table.foreignKeys) {
    const given = pairs.map(({ child }) => `r.${escapeIdentifier(child)} is not null`);
    const meets = pairs.map(
      ({ child, parent: column, operator }) =>
        `p.${escapeIdentifier(column)} ${operator} r.${escapeIdentifier(child)}`,
    );
    const { rows } = await client.query<{ count: unknown }>(
      `select to_jsonb(count(*)) as count from ${sourceOf(table)} r
        where ${rowsOfKeys(task, table.key)} and ${given.join(" and ")}
          and not exists (select from ${sourceOf(parent)} p where ${meets.join(" and ")})`,
    );
    found.push({
      name,
      parent: `${parent.schema}.${parent.table}`,
      rows: z.number().parse(rows[0]?.count),
    });
  }
  return found;
}
