/**
 * Tables that a cell's manifest forgets, as its primary agent tells them with every call (corrections
 * A20). What is told again changes nothing; the first that is found is an event, once.
 */
import { eq } from "drizzle-orm";
import {
  type AgentSyncRequest,
  type UnclassedTables,
  unclassedTablesSchema,
} from "../../contract/cell-protocol.ts";
import { unclassedText } from "../core/stage.ts";
import { recordableJson } from "./audit-chain.ts";
import type { Database } from "./database.ts";
import { recordEvents } from "./events.ts";
import { cell } from "./schema.ts";

/** Null: no agent has told it yet, or what stands there is not ours to understand. */
export const toUnclassed = (stored: unknown): UnclassedTables | null =>
  unclassedTablesSchema.nullable().catch(null).parse(stored);

/** `known`: as the caller read it, so that no transaction is begun for what is known. */
export async function recordUnclassed(
  database: Database,
  said: AgentSyncRequest,
  known: UnclassedTables | null,
): Promise<void> {
  // An agent that could not look says nothing; what was told last stands.
  if (said.stage?.unclassed === undefined || !said.primary) return;
  // The names are the application's: no database takes all of their characters.
  const now = unclassedTablesSchema.parse(recordableJson(said.stage.unclassed));
  if (isSame(known, now)) return;
  await database.transaction(async (tx) => {
    const [row] = await tx
      .select({ unclassed: cell.unclassed })
      .from(cell)
      .where(eq(cell.id, said.cell))
      .for("no key update");
    const before = toUnclassed(row?.unclassed);
    await tx.update(cell).set({ unclassed: now }).where(eq(cell.id, said.cell));
    if (now.count === 0 || (before?.count ?? 0) > 0) return;
    const text = `${said.cell}: ${unclassedText(now)}`;
    await recordEvents(tx, [{ kind: "cell.uncovered", object: said.cell, text }]);
  });
}

const isSame = (a: UnclassedTables | null, b: UnclassedTables): boolean =>
  a !== null && a.count === b.count && a.names.join("\n") === b.names.join("\n");
