/** Keyspaces and the starts of their ranges. */
import { and, asc, eq, sql } from "drizzle-orm";
import { type Keyspace, keyspaceSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import type { GuardMode } from "../../contract/routing-table.ts";
import { didYouMean } from "../core/did-you-mean.ts";
import type { KeyspaceView } from "../core/fleet.ts";
import type { Reader, Tx } from "./database.ts";
import { keyspace, placement } from "./schema.ts";

export type KeyspaceRow = typeof keyspace.$inferSelect;

/** Throws KEYSPACE_UNKNOWN. */
export async function requireKeyspace(reader: Reader, name: string): Promise<KeyspaceView> {
  const [row] = await reader.select().from(keyspace).where(eq(keyspace.name, name));
  if (row !== undefined) return row;
  const names = (await reader.select({ name: keyspace.name }).from(keyspace)).map(
    (one) => one.name,
  );
  throw new CellError("KEYSPACE_UNKNOWN", `There is no keyspace ${name}.`, {
    nextSteps: [
      ...didYouMean(name, names).map((near) => `Did you mean ${near}?`),
      "cellctl keyspace ls",
    ],
  });
}

export async function keyspaceExists(reader: Reader, name: string): Promise<boolean> {
  return (await reader.$count(keyspace, eq(keyspace.name, name))) > 0;
}

export const insertKeyspace = (tx: Tx, row: typeof keyspace.$inferInsert): Promise<unknown> =>
  tx.insert(keyspace).values(row);

/** Neither now nor before: a key that was deleted has rows that cells may still hold. */
export async function placesNothing(reader: Reader, name: string): Promise<boolean> {
  return (await reader.$count(placement, eq(placement.keyspace, name))) === 0;
}

export const setGuardMode = (tx: Tx, name: string, guardMode: GuardMode): Promise<unknown> =>
  tx.update(keyspace).set({ guardMode }).where(eq(keyspace.name, name));

export async function listKeyspaces(reader: Reader): Promise<Keyspace[]> {
  const rows = await reader.select().from(keyspace).orderBy(asc(keyspace.name));
  const starts = await rangeStarts(reader);
  return rows.map((row) => toKeyspace(row, starts.get(row.name) ?? []));
}

async function rangeStarts(reader: Reader): Promise<Map<string, string[]>> {
  const rows = await reader
    .select({ keyspace: placement.keyspace, value: placement.value })
    .from(placement)
    .where(and(eq(placement.kind, "range"), eq(placement.deleted, false)))
    .orderBy(sql`${placement.value} collate "C"`);
  const starts = new Map<string, string[]>();
  for (const row of rows) {
    const list = starts.get(row.keyspace) ?? [];
    starts.set(row.keyspace, list);
    list.push(row.value);
  }
  return starts;
}

const toKeyspace = (row: KeyspaceRow, ranges: readonly string[]): Keyspace =>
  keyspaceSchema.parse({ ...row, id: row.name, ranges, createdAt: row.createdAt.toISOString() });
