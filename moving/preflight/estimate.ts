/**
 * How long a move takes, and how long its requests wait: from measured constants, so that a plan can say
 * it before anything runs. Pure.
 */
import type { MovePlan } from "../../contract/move-api.ts";

/**
 * Of our own COPY from the slot's snapshot, on one machine (design notes, PostgreSQL 18): 1 MB of rows 49 ms
 * until it streams, 100 MB 1.33 s. A network, or indexes that do not fit in memory, make it slower.
 */
const copyFixedMs = 50;
const copyBytesPerMs = 78_000;
/**
 * Fence, marker and activation of one store take about 6 ms. Around them routers hold, gates close, the commit
 * is published and acknowledged: some 10 ms each on one machine, a round trip each elsewhere.
 */
const pauseFixedMs = 40;
const pausePerStoreMs = 6;

export function estimateMove(tables: MovePlan["tables"], storeCount: number): MovePlan["estimate"] {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const bytes = tables.reduce((sum, table) => sum + table.bytes, 0);
  return {
    rows,
    bytes,
    copyMs: Math.round(copyFixedMs * storeCount + bytes / copyBytesPerMs),
    pauseMs: pauseFixedMs + pausePerStoreMs * storeCount,
  };
}
