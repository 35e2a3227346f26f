/**
 * Objectives as they are set, and what is made of the counts. The leader writes down now and then which budgets
 * are burnt: the safety rules read that one row, under locks that a month of counts would be too long for.
 */
import { eq, sql } from "drizzle-orm";
import { type Objective, objectiveSchema, type Slo } from "../../contract/slo-api.ts";
import { wholeCells } from "../core/fleet.ts";
import { burntOf, judgeSlos } from "../core/slo/judge-slo.ts";
import { windowsToRead } from "../core/slo/windows.ts";
import { databaseNowMs, type Reader, type Tx } from "./database.ts";
import { readCells } from "./fleet-store.ts";
import { sloDesk, sloObjective } from "./schema-slo.ts";
import { type CountedSince, readCounted } from "./slo-counts.ts";

/** What was judged longer ago says nothing any more: nobody has led since. */
const deskMs = 600_000;

export async function readObjectives(reader: Reader): Promise<Objective[]> {
  const rows = await reader.select().from(sloObjective).orderBy(sloObjective.id);
  return rows.map((row) => objectiveSchema.parse({ ...row, since: row.since.toISOString() }));
}

const inService: ReadonlySet<string> = new Set(["active", "cordoned", "draining"]);

/** As people are shown them. */
export const readSlos = (reader: Reader): Promise<readonly Slo[]> => judged(reader, "ever");

/** As the safety rules go by them: what a cell failed by dying stops nothing once it was taken over. */
export const readStopping = (reader: Reader): Promise<readonly Slo[]> =>
  judged(reader, "after-failover");

async function judged(reader: Reader, since: CountedSince): Promise<readonly Slo[]> {
  const objectives = await readObjectives(reader);
  if (objectives.length === 0) return [];
  const windows = windowsToRead(objectives.map(({ windowDays }) => windowDays));
  const counted = await readCounted(reader, await databaseNowMs(reader), windows, since);
  const cells = wholeCells(await readCells(reader)).filter(({ state }) => inService.has(state));
  return judgeSlos(
    objectives,
    counted,
    cells.map(({ id }) => id),
  );
}

/** For the safety rules: of `readStopping`. */
export async function writeBurnt(tx: Tx, slos: readonly Slo[]): Promise<void> {
  const said = { burnt: [...burntOf(slos)], at: sql`clock_timestamp()` };
  await tx
    .insert(sloDesk)
    .values({ one: true, ...said })
    .onConflictDoUpdate({ target: sloDesk.one, set: said });
}

/** In words, as it was written it down last. */
export async function readBurnt(reader: Reader): Promise<readonly string[]> {
  const [row] = await reader
    .select({ burnt: sloDesk.burnt })
    .from(sloDesk)
    .where(sql`${sloDesk.at} > clock_timestamp() - ${deskMs}::float8 * interval '1 millisecond'`);
  return row?.burnt ?? [];
}

export async function setObjective(tx: Tx, one: Omit<Objective, "since">): Promise<void> {
  const { id, ...said } = one;
  const set = { ...said, since: sql`clock_timestamp()` };
  await tx
    .insert(sloObjective)
    .values({ id, ...set })
    .onConflictDoUpdate({ target: sloObjective.id, set });
}

export async function removeObjective(tx: Tx, id: string): Promise<void> {
  await tx.delete(sloObjective).where(eq(sloObjective.id, id));
}
