/**
 * What an annex needs before keys become active in it: ids that the origin did not give out already, and
 * statistics without which large tables are read in whole.
 *
 * What must always be true: an id that a row has is not given again; a leased sequence is left alone, for
 * its ranges are disjoint over the whole fleet (cell/sql/070-ids.sql). May be repeated.
 */
import pg from "pg";
import { z } from "zod";
import type { StoreLogin } from "../moving/ports.ts";
import { withKeeper } from "./keeper.ts";

/** Ids that the origin may have given to rows that never arrived: those that are salvaged keep theirs. */
const gap = 10_000;

const smallBytes = 64 * 1024 * 1024;

const sequenceSchema = z.object({
  sequence: z.string(),
  increment: z.number(),
  /** As text: they may be beyond what a double holds. */
  min: z.string(),
  max: z.string(),
  last: z.string().nullable(),
  columns: z.array(z.object({ table: z.string(), column: z.string() })),
});
type Sequence = z.infer<typeof sequenceSchema>;

/**
 * Those that a table of the stream draws from by a default or an identity, and that are not leased; with columns
 * whose edge is found at once. Tables that stay in the origin gave nothing away here, and may lie where the
 * mover may not even look: that must not cost anybody a takeover. A column that no index leads to, in a large
 * table, cannot be unique, and nobody may wait for it here.
 */
const sequencesQuery = `
  with drawn as (
    select d.refobjid as sequence, a.adrelid as tab, a.adnum as col
      from pg_depend d join pg_attrdef a on a.oid = d.objid
     where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
    union
    select d.objid, d.refobjid, d.refobjsubid
      from pg_depend d where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
       and d.deptype in ('a', 'i') and d.refobjsubid > 0)
  select jsonb_build_object('sequence', format('%I.%I', n.nspname, c.relname), 'increment', q.seqincrement,
           'min', q.seqmin::text, 'max', q.seqmax::text, 'last', pg_sequence_last_value(c.oid)::text,
           'columns', jsonb_agg(jsonb_build_object('table', w.tab::regclass::text, 'column', quote_ident(a.attname)))) as item
    from drawn w join pg_class c on c.oid = w.sequence and c.relkind = 'S'
    join pg_namespace n on n.oid = c.relnamespace and n.nspname not in ('pg_catalog', 'information_schema', 'cellfleet')
    join pg_sequence q on q.seqrelid = c.oid
    join pg_class t on t.oid = w.tab and t.relkind in ('r', 'p')
    join pg_attribute a on a.attrelid = w.tab and a.attnum = w.col and not a.attisdropped
     and (pg_table_size(w.tab) < ${smallBytes}
          or exists (select from pg_index i where i.indrelid = w.tab and i.indisvalid and i.indkey[0] = w.col))
   where not exists (select from cellfleet.id_sequence i where i.sequence = c.oid)
     and exists (
       select from pg_class r join pg_namespace m on m.oid = r.relnamespace
        where r.oid = coalesce(pg_partition_root(w.tab), w.tab)
          and (exists (select from cellfleet.guarded_table g
                        where g.schema_name = m.nspname and g.table_name = r.relname)
               or exists (select from cellfleet.classed_table k where k.class in ('tenant', 'reference')
                             and k.schema_name = m.nspname and k.table_name = r.relname)))
   group by n.nspname, c.relname, c.oid, q.seqincrement, q.seqmin, q.seqmax`;

export async function raiseSequences(login: StoreLogin): Promise<void> {
  await withKeeper(login, { name: "cellfleet standby activate" }, async (client) => {
    const { rows } = await client.query<{ item: unknown }>(sequencesQuery);
    for (const { item } of rows) await raise(client, sequenceSchema.parse(item));
  });
}

async function raise(client: pg.Client, sequence: Sequence): Promise<void> {
  const { rows } = await client.query<{ value: string | null }>(
    // A column of another type than a number draws its ids through an expression of its own.
    `select ${sequence.increment > 0 ? "max" : "min"}(v)::bigint::text as value from (
       ${sequence.columns.map(({ table, column }) => edgeOf(table, column, sequence)).join(" union all ")}) e(v)`,
  );
  const value = rows[0]?.value;
  const target = value == null ? undefined : beyond(sequence, BigInt(value));
  if (target === undefined) return;
  // Once more in the statement that sets it: whoever stood still in between sets nothing back.
  const isBehind = sequence.increment > 0 ? "<" : ">";
  await client.query(
    `select setval($1::regclass, $2) where coalesce(pg_sequence_last_value($1::regclass) ${isBehind} $2, true)`,
    [sequence.sequence, String(target)],
  );
}

const edgeOf = (table: string, column: string, { increment }: Sequence): string =>
  `select ${increment > 0 ? "max" : "min"}(${column})::numeric from ${table}
    where pg_typeof(${column}) in ('bigint'::regtype, 'integer'::regtype, 'smallint'::regtype, 'numeric'::regtype)`;

/**
 * Never back. Undefined: it stands there already, or further; somebody may be drawing from it, and setting it to
 * what was read would give ids a second time.
 */
function beyond({ increment, min, max, last }: Sequence, edge: bigint): bigint | undefined {
  const lowest = BigInt(min);
  const highest = BigInt(max);
  const wanted = increment > 0 ? edge + BigInt(gap) : edge - BigInt(gap);
  const target = wanted > highest ? highest : wanted < lowest ? lowest : wanted;
  if (last === null) return target;
  const isFurther = increment > 0 ? target > BigInt(last) : target < BigInt(last);
  return isFurther ? target : undefined;
}

const analyzeMsMax = 600_000;

/** Only what was never analyzed: a copy that has stood for a while has been, by PostgreSQL itself. */
export async function analyzeTables(login: StoreLogin): Promise<void> {
  const options = { name: "cellfleet standby analyze", statementMsMax: analyzeMsMax };
  await withKeeper(login, options, async (client) => {
    const { rows } = await client.query<{ schema: string; table: string }>(
      `select g.schema_name as schema, g.table_name as table
         from cellfleet.guarded_table g
         join pg_stat_user_tables t on t.schemaname = g.schema_name and t.relname = g.table_name
        where t.last_analyze is null and t.last_autoanalyze is null`,
    );
    for (const { schema, table } of rows) {
      await client.query(`analyze ${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`);
    }
  });
}
