/**
 * Salvages as rows: what was read of a returned cell, row by row, and what was decided. A reading that was
 * interrupted begins anew and replaces what stood; a decision is never taken back.
 */
import { and, asc, desc, eq, gt, inArray, lt, ne, notInArray, type SQL, sql } from "drizzle-orm";
import { z } from "zod";
import type {
  Salvage,
  SalvageDecision,
  SalvagedRow,
  SalvageLeft,
  SalvageVerdict,
} from "../../../contract/salvage-api.ts";
import { salvagedRowSchema, salvageSchema } from "../../../contract/salvage-api.ts";
import { effectOf, type LostChange, type RowValues } from "../../core/failover/salvage.ts";
import type { Database, Reader, Tx } from "../database.ts";
import { cell, op } from "../schema.ts";
import { salvage, salvageRow } from "../schema-salvage.ts";
import { countStranded } from "./stranded.ts";

export type SalvageRecord = typeof salvageRow.$inferSelect;

export const insertSalvage = (
  tx: Tx,
  row: { readonly op: string; readonly cell: string; readonly failover: string },
): Promise<unknown> => tx.insert(salvage).values(row);

/** The newest of a cell, of this failover or of any; undefined: none. */
export async function lastSalvage(
  reader: Reader,
  cell: string,
  failover?: string,
): Promise<typeof salvage.$inferSelect | undefined> {
  const [row] = await reader
    .select()
    .from(salvage)
    .where(
      and(
        eq(salvage.cell, cell),
        failover === undefined ? undefined : eq(salvage.failover, failover),
      ),
    )
    .orderBy(desc(salvage.createdAt), desc(salvage.op))
    .limit(1);
  return row;
}

export const forgetRows = (database: Database, id: string) =>
  database.read.delete(salvageRow).where(eq(salvageRow.salvage, id));

/** Several changes of one row become one row: the latest values, and what it all began with. */
export async function recordChange(
  database: Database,
  id: string,
  annex: string,
  change: LostChange,
): Promise<void> {
  const { store, table, tenant, kind, lsn, committedAt } = change;
  const identity = JSON.stringify(change.key);
  const row = change.row === null ? null : JSON.stringify(change.row);
  const theirs = sql.raw("excluded");
  await database.read.execute(sql`
    insert into ${salvageRow} as r
      (salvage, annex, store, table_name, tenant, identity, "row", first, last, lsn, committed_at)
    values (${id}, ${annex}, ${store}, ${table}, ${tenant}, ${identity}::jsonb, ${row}::jsonb,
            ${kind}, ${kind}, ${lsn}, ${committedAt})
    on conflict (salvage, store, table_name, identity) do update set
      last = ${theirs}.last, lsn = ${theirs}.lsn, committed_at = ${theirs}.committed_at,
      changes = r.changes + 1,
      -- An update does not carry large values that it left as they were.
      "row" = case when ${theirs}.last = 'update' then coalesce(r."row", '{}') || ${theirs}."row"
                   else ${theirs}."row" end`);
}

/** Rows that came and went within what was not replicated are nobody's loss. */
export const dropGone = (database: Database, id: string) =>
  database.read
    .delete(salvageRow)
    .where(
      and(
        eq(salvageRow.salvage, id),
        eq(salvageRow.first, "insert"),
        eq(salvageRow.last, "delete"),
      ),
    );

/** In the order in which they were committed first. */
export const pageOfRows = (
  reader: Reader,
  id: string,
  page: {
    readonly after: number;
    readonly limit: number;
    readonly tenant?: string | undefined;
    readonly onlyOpen?: boolean;
  },
): Promise<SalvageRecord[]> =>
  reader
    .select()
    .from(salvageRow)
    .where(
      and(
        eq(salvageRow.salvage, id),
        gt(salvageRow.id, page.after),
        ofTenant(page.tenant),
        page.onlyOpen === true ? openRows : undefined,
      ),
    )
    .orderBy(asc(salvageRow.id))
    .limit(page.limit);

const ofTenant = (tenant: string | undefined): SQL | undefined =>
  tenant === undefined ? undefined : eq(salvageRow.tenant, tenant);
/** What is the same needs no decision. */
const openRows = and(eq(salvageRow.decision, "open"), ne(salvageRow.verdict, "same"));

export const judgeRow = (
  database: Database,
  id: number,
  found: {
    readonly key: string;
    readonly verdict: SalvageVerdict;
    readonly theirs: RowValues | undefined;
    readonly note: string;
  },
) =>
  database.read
    .update(salvageRow)
    .set({ ...found, theirs: found.theirs ?? null })
    .where(eq(salvageRow.id, id));

/** The transaction that changed it last, in its store's log. */
export const commitOf = ({ store, lsn }: Pick<SalvageRecord, "store" | "lsn">): string =>
  `${store} ${lsn}`;

/** Transactions of which a row that nobody has decided about is not as the home has it. */
export async function commitsInConflict(reader: Reader, id: string): Promise<ReadonlySet<string>> {
  const rows = await reader
    .selectDistinct({ store: salvageRow.store, lsn: salvageRow.lsn })
    .from(salvageRow)
    .where(
      and(
        ...[eq(salvageRow.salvage, id), eq(salvageRow.verdict, "conflict")],
        ne(salvageRow.decision, "applied"),
      ),
    );
  return new Set(rows.map(commitOf));
}

/** `verdict`: as it was found when it was decided. */
export const decideRow = (
  database: Database,
  id: number,
  decided: {
    readonly decision: SalvageDecision;
    readonly note: string;
    readonly verdict: SalvageVerdict;
  },
) =>
  database.read
    .update(salvageRow)
    .set({ ...decided, ...(decided.decision === "open" ? {} : { decidedAt: sql`now()` }) })
    .where(eq(salvageRow.id, id));

/** Returns how many rows it was. */
export async function decideAll(
  tx: Tx,
  id: string,
  decision: "exported" | "discarded",
  tenant: string | undefined,
): Promise<number> {
  const from: SalvageDecision[] =
    decision === "exported" ? ["applied", "exported", "discarded"] : ["applied", "discarded"];
  const rows = await tx
    .update(salvageRow)
    .set({ decision, decidedAt: sql`now()` })
    .where(
      and(
        ...[eq(salvageRow.salvage, id), ofTenant(tenant), ne(salvageRow.verdict, "same")],
        notInArray(salvageRow.decision, from),
      ),
    )
    .returning({ id: salvageRow.id });
  return rows.length;
}

const keptDays = 7;

/** Rows of tenants are kept for nobody once they were decided about. */
export const forgetDecided = (tx: Tx): Promise<unknown> =>
  tx
    .delete(salvageRow)
    .where(lt(salvageRow.decidedAt, sql`now() - make_interval(days => ${keptDays})`));

export const countOpen = (reader: Reader, id: string): Promise<number> =>
  reader.$count(salvageRow, and(eq(salvageRow.salvage, id), openRows));

export async function readSalvage(
  reader: Reader,
  id: string,
  tenant?: string | undefined,
): Promise<Salvage> {
  const [head] = await reader
    .select({ own: salvage, state: op.state, headline: op.headline, cellState: cell.state })
    .from(salvage)
    .innerJoin(op, eq(op.id, salvage.op))
    .leftJoin(cell, eq(cell.id, salvage.cell))
    .where(inArray(salvage.op, [id]));
  const verdict = (name: SalvageVerdict) =>
    sql<number>`count(*) filter (where ${salvageRow.verdict} = ${name})::int`;
  const tenants = await reader
    .select({
      tenant: salvageRow.tenant,
      rows: sql<number>`count(*)::int`,
      ...{ free: verdict("free"), same: verdict("same") },
      ...{ conflict: verdict("conflict"), homeless: verdict("homeless") },
      open: sql<number>`count(*) filter (where ${openRows})::int`,
    })
    .from(salvageRow)
    .where(and(eq(salvageRow.salvage, id), ofTenant(tenant)))
    .groupBy(salvageRow.tenant)
    .orderBy(salvageRow.tenant);
  const sum = (of: "rows" | "open") => tenants.reduce((total, one) => total + one[of], 0);
  return salvageSchema.parse({
    ...head?.own,
    ...{ id, state: head?.state, headline: head?.headline, tenants },
    ...{ left: await readLeft(reader, id, tenant), cellState: head?.cellState ?? "retired" },
    ...{ rows: sum("rows"), open: sum("open"), createdAt: head?.own.createdAt.toISOString() },
    stranded: await countStranded(reader, head?.own.cell ?? ""),
  });
}

const leftMax = 20;

/** Without what is in the rows: whoever may look at the fleet may see it. */
async function readLeft(
  reader: Reader,
  id: string,
  tenant: string | undefined,
): Promise<SalvageLeft[]> {
  const { tableName: table, verdict, note, first, last } = salvageRow;
  const rows = sql<number>`count(*)::int`;
  const alike = [salvageRow.tenant, table, first, last, verdict, note] as const;
  const found = await reader
    .select({ tenant: salvageRow.tenant, table, first, last, verdict, note, rows })
    .from(salvageRow)
    .where(and(eq(salvageRow.salvage, id), ofTenant(tenant), openRows))
    .groupBy(...alike)
    .orderBy(desc(rows), ...alike)
    .limit(leftMax);
  return found.map(({ first, last, ...one }) => ({
    ...one,
    kind: effectOf(first, last) ?? "delete",
  }));
}

const values = z.record(z.string(), z.string().nullable());

export const toSalvagedRow = (record: SalvageRecord): SalvagedRow =>
  salvagedRowSchema.parse({
    ...record,
    id: String(record.id),
    table: record.tableName,
    kind: effectOf(record.first, record.last) ?? "delete",
  });

export const identityOf = (record: SalvageRecord): RowValues => values.parse(record.identity);
export const rowOf = (record: SalvageRecord): RowValues | null =>
  record.row === null ? null : values.parse(record.row);
