/**
 * Fills a new key column from the parents, page by page of the table: many short transactions, so
 * that no query of the application waits for one, with a rest between them.
 *
 * Rows that somebody has locked are skipped and come in a later round, so that this never waits for
 * the application and cannot deadlock with it. A row that was changed meanwhile was filled by the
 * trigger. Cut off anywhere, it starts over and finds filled rows filled.
 *
 * A place (ctid) names another row in every table that inherits from this one, so only this table and
 * its partitions are read and written, each by itself; and a row that has its key is never written.
 */
import { sqlStateOf } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import type { LockContext } from "./lock-bounded.ts";
import type { Backfill, Step } from "./step.ts";
import { column, sqlName } from "./table-name.ts";

/** What a batch should take; whoever wants one of its rows waits that long at most. */
const batchTargetMs = 20;
const batchTimeoutMs = 80;
const pagesFirst = 4;
const pagesMax = 512;
/** Rest after each batch, as a multiple of what it took. */
const restFactor = 1;
const roundsMax = 50;
const orphansShown = 5;

type Size = { readonly table: string; readonly pages: number };

export async function runBackfill(context: LockContext, step: Step): Promise<void> {
  const { backfill } = step;
  if (backfill === undefined) throw new Error(`${step.id} says nothing of what is filled`);
  const began = context.clock.monotonicMs();
  let filled = 0;
  for (let round = 1; round <= roundsMax; round += 1) {
    for (const size of await readSizes(context, backfill)) {
      filled += await fillPages(context, step, backfill, size, began, filled);
    }
    const left = await countLeft(context, backfill);
    if (left.fillable === 0) return refuseOrphans(backfill, left.orphans);
    await context.clock.sleep(100 * round, context.signal);
  }
  throw new CellError("STATE_CONFLICT", `${step.id}: rows that are always in use stay unfilled`, {
    nextSteps: ["run the same command again when the application is quieter"],
  });
}

/** Partitions have their own pages. */
async function readSizes({ client }: LockContext, backfill: Backfill): Promise<Size[]> {
  const { rows } = await client.query<{ name: string; pages: number }>(
    `select r.oid::regclass::text as name,
            (pg_relation_size(r.oid) / current_setting('block_size')::bigint)::integer as pages
       from (select t.relid from pg_partition_tree($1::regclass) t where t.isleaf
             union select $1::regclass) u(id) join pg_class r on r.oid = u.id
      where r.relkind = 'r'`,
    [sqlName(backfill)],
  );
  return rows.map(({ name, pages }) => ({ table: name, pages }));
}

async function fillPages(
  context: LockContext,
  step: Step,
  backfill: Backfill,
  { table, pages }: Size,
  beganMs: number,
  before: number,
): Promise<number> {
  const { clock, emit, signal, client } = context;
  const text = batchSql(backfill, table);
  let filled = 0;
  let span = pagesFirst;
  for (let page = 0; page < pages; ) {
    signal.throwIfAborted();
    const batchMs = clock.monotonicMs();
    const upTo = Math.min(pages, page + span);
    const count = await runBatch(client, text, page, upTo);
    const tookMs = clock.monotonicMs() - batchMs;
    if (count === undefined && span > 1) {
      span = Math.max(1, Math.floor(span / 4));
      continue;
    }
    filled += count ?? 0;
    page = upTo;
    if (tookMs < batchTargetMs / 2) span = Math.min(pagesMax, span * 2);
    else if (tookMs > batchTargetMs) span = Math.max(1, Math.floor(span / 2));
    const share = page / pages;
    const elapsed = clock.monotonicMs() - beganMs;
    await emit({
      kind: "step.progress",
      step: step.id,
      text: `${before + filled} rows filled`,
      done: page,
      total: pages,
      etaMs: share > 0 ? (elapsed / share) * (1 - share) : undefined,
    });
    // Nothing to fill costs nobody anything: no rest.
    if ((count ?? 0) > 0) await clock.sleep(tookMs * restFactor, signal);
  }
  return filled;
}

/** Undefined: it took too long, and was undone. */
async function runBatch(
  client: LockContext["client"],
  text: string,
  from: number,
  to: number,
): Promise<number | undefined> {
  try {
    await client.query(
      // The application's own triggers fire, and may count on the search path they were made under.
      `begin; set local statement_timeout = '${batchTimeoutMs}ms'; set local lock_timeout = '${batchTimeoutMs}ms'; set local search_path to default;`,
    );
    const { rowCount } = await client.query(text, [`(${from},0)`, `(${to},0)`]);
    await client.query("commit");
    return rowCount ?? 0;
  } catch (error) {
    await client.query("rollback");
    if (["57014", "55P03", "40P01"].includes(sqlStateOf(error) ?? "")) return undefined;
    throw error;
  }
}

const matches = (backfill: Backfill): string =>
  backfill.on.map(([own, parent]) => `p.${column(parent)} = c.${column(own)}`).join(" and ");

/** Exported: `--dry-run` prints it. `table` is SQL. */
export function batchSql(backfill: Backfill, table: string): string {
  const key = column(backfill.keyColumn);
  return `with batch as (
  select c.ctid as place, p.${column(backfill.parent.column)} as key
    from only ${table} c join ${sqlName(backfill.parent)} p on ${matches(backfill)}
   where c.ctid >= $1::tid and c.ctid < $2::tid and c.${key} is null and p.${column(backfill.parent.column)} is not null
     for update of c skip locked)
update only ${table} c set ${key} = b.key from batch b where c.ctid = b.place and c.${key} is null`;
}

async function countLeft(
  { client }: LockContext,
  backfill: Backfill,
): Promise<{ fillable: number; orphans: number }> {
  const key = column(backfill.keyColumn);
  const { rows } = await client.query<{ fillable: number; orphans: number }>(
    `select count(*) filter (where p.${column(backfill.parent.column)} is not null)::integer as fillable,
            count(*) filter (where p.${column(backfill.parent.column)} is null)::integer as orphans
       from ${sqlName(backfill)} c left join ${sqlName(backfill.parent)} p on ${matches(backfill)}
      where c.${key} is null
        and (c.tableoid = $1::regclass or c.tableoid = any (array(select t.relid from pg_partition_tree($1::regclass) t)))`,
    [sqlName(backfill)],
  );
  return rows[0] ?? { fillable: 0, orphans: 0 };
}

function refuseOrphans(backfill: Backfill, orphans: number): void {
  if (orphans === 0 || backfill.mayBeNull) return;
  const name = `${backfill.schema}.${backfill.table}`;
  throw new CellError(
    "SCHEMA_UNFIT",
    `${name}: ${orphans} rows lead to no row of ${backfill.parent.schema}.${backfill.parent.table} that has a key, so nobody knows whose they are`,
    {
      nextSteps: [
        `select * from ${sqlName(backfill)} where ${column(backfill.keyColumn)} is null limit ${orphansShown};`,
        "give them their tenant or delete them, and run the same command again: it goes on where it stopped",
      ],
    },
  );
}
