/**
 * Does a stream carry all that it has to? A publication names its tables once, when the move begins; a
 * migration in both cells at once makes none of them differ from the other, and yet the rows of a table
 * that came with it would stay behind.
 *
 * Always true: tables are told apart by what they are, not by their names; one that was dropped and made
 * anew is another one.
 */
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";

const driftSchema = z.object({
  isThere: z.boolean(),
  added: z.array(z.string()),
  released: z.array(z.string()),
});

/**
 * What the publication itself lists: a guarded table that is partitioned stands there for all of its
 * partitions. A table that was dropped is in neither set, whether its name is still among the guarded ones
 * or not: its rows are nowhere any more, so none is lost.
 */
const driftQuery = `
  with guarded as (
    select c.oid
      from cellfleet.guarded_table g
      join pg_namespace n on n.nspname = g.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
     where g.keyspace = $2
    union all select 'cellfleet.move_marker'::regclass::oid),
  published as (
    select r.prrelid as oid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
     where p.pubname = $1),
  differing as (
    select n.nspname || '.' || c.relname as name, c.oid in (select oid from guarded) as added
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid in (select oid from guarded) <> (c.oid in (select oid from published))
       and c.oid in (select oid from guarded union select oid from published))
  select jsonb_build_object(
           'isThere', exists (select from pg_publication where pubname = $1),
           'added', (select coalesce(jsonb_agg(name order by name), '[]') from differing where added),
           'released', (select coalesce(jsonb_agg(name order by name), '[]') from differing where not added)
         ) as drift`;

/** In what the publication differs from the tables that are guarded now; undefined: in nothing. */
export async function unlikePublication(
  client: Queryable,
  name: string,
  keyspace: string,
): Promise<string | undefined> {
  const { rows } = await client.query<{ drift: unknown }>(driftQuery, [name, keyspace]);
  const { isThere, added, released } = driftSchema.parse(rows[0]?.drift);
  if (!isThere) return `publication ${name} is gone`;
  const told = [
    ...added.map(
      (table) => `${table} was added after the move began: its rows are not in the stream`,
    ),
    ...released.map((table) => `${table} is no longer guarded, as it was when the move began`),
  ];
  return told.length === 0 ? undefined : told.join("; ");
}
