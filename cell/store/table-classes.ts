/**
 * The manifest as the cell's database remembers it, and the tables that it forgets (corrections A20).
 *
 * `findGaps` judges a schema when a person asks; this here is read again and again by the agent, so
 * that a table which a later migration adds does not wait for a person.
 */
import { escapeLiteral } from "pg";
import { z } from "zod";
import type { Manifest } from "./manifest.ts";
import type { Queryable } from "./queryable.ts";

/** Named at most; the others are counted. */
export const unclassedNamesMax = 20;

const unclassedSchema = z.object({
  count: z.number(),
  /** For people: `public.notes`, or `public.notes (classed tenant, not guarded)`. In order. */
  names: z.array(z.string()),
});
export type Unclassed = z.infer<typeof unclassedSchema>;

/**
 * As the owner of the application's tables, each time they were put under the guard. Takes the place
 * of what was recorded before, as a whole.
 */
export async function recordManifest(client: Queryable, manifest: Manifest): Promise<void> {
  await client.query(recordManifestSql(manifest));
}

/** The one statement that `recordManifest` runs; for plans that are printed. */
export function recordManifestSql({ tables }: Manifest): string {
  const rows = tables.map(({ schema, table, class: name }) =>
    JSON.stringify({ schema, table, class: name }),
  );
  return `select cellfleet.record_manifest(${escapeLiteral(`[${rows.join(",\n  ")}]`)});`;
}

/** As the agent or the tables' owner. Reads the catalog, and waits for nobody. */
export async function readUnclassed(client: Queryable): Promise<Unclassed> {
  const { rows } = await client.query<{ unclassed: unknown }>(
    `select jsonb_build_object('count', count(*),
              'names', coalesce(jsonb_agg(u.name order by u.name) filter (where u.number <= $1), '[]')) as unclassed
       from (select s.name, row_number() over (order by s.name) as number
               from (select t.schema_name || '.' || t.table_name || case when t.class is null then ''
                              else ' (classed ' || t.class || ', not guarded)' end as name
                       from cellfleet.unclassed_tables() t) s) u`,
    [unclassedNamesMax],
  );
  return unclassedSchema.parse(rows[0]?.unclassed);
}
