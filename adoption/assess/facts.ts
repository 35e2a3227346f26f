/**
 * What is looked at before anybody says whether cells are needed: the facts of one running database,
 * as plain values, so that the judgement over them is pure and can be tried on a table of cases.
 */
import { z } from "zod";

const seconds = z.number().nullable();

/** Per second. */
export const ratesSchema = z.object({
  /** Over how many seconds. */
  seconds: z.number(),
  transactions: z.number(),
  rowsRead: z.number(),
  rowsWritten: z.number(),
  walBytes: z.number(),
  tempBytes: z.number(),
  deadlocks: z.number(),
  /** Transaction ids used up. */
  xids: z.number(),
});
export type Rates = z.infer<typeof ratesSchema>;

export const tableSchema = z.object({
  name: z.string(),
  schema: z.string(),
  /** An estimate; -1 where nobody has counted yet. Partitions are counted with their table. */
  rows: z.number(),
  bytes: z.number(),
  dead: z.number(),
  seqScans: z.number(),
  seqRows: z.number(),
  indexScans: z.number(),
  inserts: z.number(),
  updates: z.number(),
  deletes: z.number(),
  /** Since the last vacuum of any kind; null: never. */
  vacuumedS: seconds,
  hasPrimaryKey: z.boolean(),
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
});
export type TableFacts = z.infer<typeof tableSchema>;

export const serverSchema = z.object({
  database: z.string(),
  versionName: z.string(),
  bytes: z.number(),
  isReplica: z.boolean(),
  /** Counters run since then; null: nobody can tell. */
  statsS: seconds,
  mayMonitor: z.boolean(),
  autovacuum: z.boolean(),
  freezeMaxAge: z.number(),
  /** Blocks found in shared buffers, of all that were asked for. */
  cache: z.object({ hit: z.number(), read: z.number() }),
  connections: z.object({ used: z.number(), max: z.number(), users: z.number() }),
  replicas: z.array(
    z.object({
      name: z.string(),
      state: z.string(),
      lagMs: z.number().nullable(),
      lagBytes: z.number().nullable(),
    }),
  ),
  /** Slots that nobody reads, and how much log each keeps. */
  idleSlots: z.array(z.object({ name: z.string(), keptBytes: z.number() })),
  /** The oldest transaction id that is in use anywhere on the server. */
  xidAge: z.number(),
});

export const activitySchema = z.object({
  /** How many looks this is the mean, or the maximum, of. */
  looks: z.number(),
  /** Sessions that work and wait for nothing: about as many cores are busy. The mean. */
  onCpu: z.number(),
  /** The mean. */
  active: z.number(),
  idleInTransaction: z.number(),
  /** Sessions that wait for a lock of another; the most that were seen. */
  waitingForLocks: z.number(),
  longestLockWaitS: z.number(),
  oldestTransactionS: z.number(),
  oldestIdleInTransactionS: z.number(),
});
export type Activity = z.infer<typeof activitySchema>;

export type Statement = {
  readonly text: string;
  readonly calls: number;
  readonly meanMs: number;
  /** Of all time that statements took, 0 to 1. */
  readonly share: number;
};

export type TenantSizes = {
  readonly column: string;
  readonly why: string;
  /** `statistics`: from what ANALYZE keeps of common values. `exact`: counted. */
  readonly how: "statistics" | "exact";
  /** How many there seem to be; null: nobody can tell. */
  readonly tenants: number | null;
  /** In the tables that were looked at. */
  readonly rows: number;
  readonly top: readonly {
    readonly tenant: string;
    readonly rows: number;
    readonly share: number;
  }[];
};

export type AssessFacts = z.infer<typeof serverSchema> & {
  /** Of the machine, as the person said; null: not said. */
  readonly cores: number | null;
  readonly activity: Activity;
  /** Now, when two samples were taken. */
  readonly now: Rates | null;
  /** Since the counters began. */
  readonly average: Rates | null;
  readonly tables: readonly TableFacts[];
  /** Null: pg_stat_statements is not there, or may not be read. */
  readonly statements: readonly Statement[] | null;
  /** Null: no column looks like a tenant's key. */
  readonly tenants: TenantSizes | null;
  /** Bytes per day; null: the counters are too young. */
  readonly growthBytesPerDay: number | null;
};
