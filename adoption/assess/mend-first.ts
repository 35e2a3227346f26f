/**
 * What can be mended where it is: an index, a pooler, a vacuum. Each of these makes a system look as
 * if it had outgrown its database, and is cured in an afternoon.
 *
 * Pure: facts in, symptoms of the phase `one-database` out.
 */
import type { AssessFacts, TableFacts } from "./facts.ts";
import { count, percent, type Symptom, size, time } from "./symptom.ts";

const connectionsMax = 0.8;
const cacheHitMin = 0.95;
/** Fewer blocks than that say nothing about the memory. */
const cacheBlocksMin = 1_000_000;
const largeRows = 100_000;
const wholeReadsMin = 100;
/** Some twentieth of a core, on common machines. */
const wholeRowsPerSecondMax = 500_000;
const statementShareMax = 0.4;
const deadShareMax = 0.2;
const deadRowsMin = 100_000;
const transactionSecondsMax = 900;
const idleSecondsMax = 300;
const lockWaitSecondsMax = 10;
const tempBytesMax = 1024 ** 2;
const slotBytesMax = 10 * 1024 ** 3;
/** PostgreSQL stops taking writes shortly before 2^31. */
export const xidEnd = 2 ** 31;
const xidWatch = 0.5;
const xidAct = 0.75;

type Finding = Omit<Symptom, "phase" | "weight"> & { readonly weight?: Symptom["weight"] };
const mend = (finding: Finding): Symptom => ({ weight: "act", ...finding, phase: "one-database" });

export function mendFirst(facts: AssessFacts): Symptom[] {
  return [
    ...xidAge(facts),
    ...autovacuum(facts),
    ...connections(facts),
    ...longTransactions(facts),
    ...locks(facts),
    ...facts.tables.flatMap((table) => wholeReads(table, facts.statsS)).slice(0, 3),
    ...statements(facts),
    ...cache(facts),
    ...facts.tables.flatMap(dead).slice(0, 3),
    ...temporary(facts),
    ...slots(facts),
  ];
}

function xidAge({ xidAge: age }: AssessFacts): Symptom[] {
  const share = age / xidEnd;
  if (share < xidWatch) return [];
  return [
    mend({
      id: "xid-wraparound",
      weight: share >= xidAct ? "act" : "watch",
      resource: "xid",
      text: `the oldest transaction id is ${count(age)} transactions old, ${percent(share)} of the way to where PostgreSQL stops writing`,
      value: age,
      limit: xidEnd * xidAct,
      unit: "transactions",
      first:
        "vacuum (freeze, verbose) the oldest tables now, and end what holds them back: long transactions, prepared ones, forgotten slots",
    }),
  ];
}

const autovacuum = ({ autovacuum: on }: AssessFacts): Symptom[] =>
  on
    ? []
    : [
        mend({
          id: "autovacuum-off",
          resource: "io",
          text: "autovacuum is off: tables swell, and transaction ids run out",
          value: 0,
          limit: 1,
          unit: "on",
          first:
            "alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf();",
        }),
      ];

function connections({ connections: { used, max } }: AssessFacts): Symptom[] {
  if (used < max * connectionsMax) return [];
  return [
    mend({
      id: "connections",
      resource: "connections",
      text: `${used} of ${max} connections are used (${percent(used / max)})`,
      value: used,
      limit: max * connectionsMax,
      unit: "connections",
      first:
        "put a pooler in transaction mode (PgBouncer) in front: some 2 to 4 connections per core do the same work",
    }),
  ];
}

function longTransactions({ activity }: AssessFacts): Symptom[] {
  const { oldestTransactionS, oldestIdleInTransactionS } = activity;
  const found: Symptom[] = [];
  if (oldestIdleInTransactionS > idleSecondsMax) {
    found.push(
      mend({
        id: "idle-in-transaction",
        resource: "time",
        text: `a session sits idle inside a transaction for ${time(oldestIdleInTransactionS)}: its locks stay, and vacuum waits`,
        value: oldestIdleInTransactionS,
        limit: idleSecondsMax,
        unit: "seconds",
        first: "set idle_in_transaction_session_timeout = '60s' for the application's role",
      }),
    );
  }
  if (oldestTransactionS > transactionSecondsMax) {
    found.push(
      mend({
        id: "long-transaction",
        resource: "time",
        text: `the oldest transaction runs for ${time(oldestTransactionS)}: nothing that died since can be removed`,
        value: oldestTransactionS,
        limit: transactionSecondsMax,
        unit: "seconds",
        first:
          "run reports on a replica or in pieces, and set a statement_timeout for the application",
      }),
    );
  }
  return found;
}

function locks({ activity: { waitingForLocks, longestLockWaitS } }: AssessFacts): Symptom[] {
  if (longestLockWaitS <= lockWaitSecondsMax) return [];
  return [
    mend({
      id: "lock-waits",
      resource: "time",
      text: `${count(waitingForLocks)} sessions wait for locks of others, the longest for ${time(longestLockWaitS)}`,
      value: longestLockWaitS,
      limit: lockWaitSecondsMax,
      unit: "seconds",
      first:
        "find the holder: select pid, pg_blocking_pids(pid), query from pg_stat_activity where wait_event_type = 'Lock';",
    }),
  ];
}

/** Read from end to end, again and again, although it is large: an index is missing. */
function wholeReads(table: TableFacts, statsS: number | null): Symptom[] {
  const { name, rows, seqScans, seqRows, indexScans } = table;
  const isWhole = seqScans > 0 && seqRows / seqScans >= rows / 2;
  if (rows < largeRows || seqScans < wholeReadsMin || !isWhole) return [];
  if (seqScans < indexScans / 100) return [];
  // Where nobody knows since when it counts, it counts in full.
  const isFelt = statsS === null || seqRows / statsS >= wholeRowsPerSecondMax;
  return [
    mend({
      id: `whole-reads:${name}`,
      weight: isFelt ? "act" : "watch",
      resource: "cpu",
      text: `${name} (${count(rows)} rows) was read from end to end ${count(seqScans)} times`,
      value: seqScans,
      limit: wholeReadsMin,
      unit: "reads",
      first: `find the query (pg_stat_statements, auto_explain) and give ${name} the index that it misses`,
    }),
  ];
}

function statements({ statements: all }: AssessFacts): Symptom[] {
  const [worst] = all ?? [];
  if (worst === undefined || worst.share < statementShareMax || worst.calls < wholeReadsMin)
    return [];
  return [
    mend({
      id: "one-statement",
      resource: "cpu",
      text: `one statement takes ${percent(worst.share)} of the database's time (${count(worst.calls)} calls, ${worst.meanMs.toFixed(1)} ms each): ${worst.text}`,
      value: worst.share,
      limit: statementShareMax,
      unit: "share of time",
      first: "explain (analyze, buffers) it: an index, a batch instead of a loop, or a cache",
    }),
  ];
}

function cache({ cache: { hit, read } }: AssessFacts): Symptom[] {
  const all = hit + read;
  if (all < cacheBlocksMin || hit / all >= cacheHitMin) return [];
  return [
    mend({
      id: "cache",
      resource: "io",
      text: `only ${percent(hit / all)} of the blocks that are asked for are in shared memory`,
      value: hit / all,
      limit: cacheHitMin,
      unit: "share of blocks",
      first:
        "raise shared_buffers to a quarter of the memory, and look for tables read from end to end",
    }),
  ];
}

function dead(table: TableFacts): Symptom[] {
  const share = table.dead / Math.max(1, table.dead + Math.max(0, table.rows));
  if (table.dead < deadRowsMin || share < deadShareMax) return [];
  const since =
    table.vacuumedS === null ? "never vacuumed" : `vacuumed ${time(table.vacuumedS)} ago`;
  return [
    mend({
      id: `dead-rows:${table.name}`,
      resource: "io",
      text: `${percent(share)} of ${table.name} are dead rows (${count(table.dead)}), ${since}`,
      value: share,
      limit: deadShareMax,
      unit: "share of rows",
      first: `vacuum (analyze) ${table.name}; then let autovacuum come sooner: autovacuum_vacuum_scale_factor = 0.02`,
    }),
  ];
}

function temporary({ now, average }: AssessFacts): Symptom[] {
  const bytes = (now ?? average)?.tempBytes ?? 0;
  if (bytes < tempBytesMax) return [];
  return [
    mend({
      id: "temporary-files",
      resource: "io",
      text: `sorts and hashes write ${size(bytes)} a second to temporary files`,
      value: bytes,
      limit: tempBytesMax,
      unit: "bytes per second",
      first: "raise work_mem for the roles that need it, or sort by an index",
    }),
  ];
}

const slots = ({ idleSlots }: AssessFacts): Symptom[] =>
  idleSlots
    .filter(({ keptBytes }) => keptBytes > slotBytesMax)
    .map(({ name, keptBytes }) =>
      mend({
        id: `idle-slot:${name}`,
        resource: "size",
        text: `nobody reads the replication slot ${name}, which keeps ${size(keptBytes)} of the log`,
        value: keptBytes,
        limit: slotBytesMax,
        unit: "bytes",
        first: "drop the slot, or bring its reader back; set max_slot_wal_keep_size",
      }),
    );
