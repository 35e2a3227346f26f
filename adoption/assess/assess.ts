/**
 * `cellctl assess`: looks at a running database for a few seconds and says in which phase the system
 * is. Reads statistics; rows only with `exact`. Changes nothing.
 */
import type pg from "pg";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import { readOnly, type UserDatabase, withUserDatabase } from "../connection.ts";
import type { Activity, AssessFacts, Rates, TableFacts, TenantSizes } from "./facts.ts";
import { type Assessment, judge } from "./judge.ts";
import {
  averageRates,
  growthPerDay,
  merged,
  ratesBetween,
  readActivity,
  readCounters,
  readServer,
  readTables,
} from "./read-server.ts";
import { readStatements } from "./read-statements.ts";
import {
  guessKeyColumn,
  hasColumn,
  type KeyColumn,
  tenantsCounted,
  tenantsFromStatistics,
} from "./read-tenants.ts";

export type AssessQuestion = {
  readonly database: UserDatabase;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** How long to look for; 0: one look. */
  readonly sampleMs: number;
  readonly cores: number | null;
  readonly keyColumn: string | undefined;
  /** Count the rows of tenants, instead of believing the statistics. */
  readonly exact: boolean;
  readonly onProgress: (text: string) => Promise<void>;
};

const lookMsMax = 30_000;
const countMsMax = 900_000;
const lookEveryMs = 500;

export function assess(question: AssessQuestion): Promise<Assessment> {
  return withUserDatabase(question.database, async (client) => {
    const look = { statementMsMax: lookMsMax };
    const tables = await readOnly(client, look, () => readTables(client));
    // A column that is not there is told before anybody waits for a sample.
    const key = chooseKey(question.keyColumn, tables);
    const sample = await watch(client, question);
    const read = await readOnly(client, look, async () => ({
      server: await readServer(client),
      counters: await readCounters(client),
      statements: await readStatements(client),
    }));
    const facts: AssessFacts = {
      ...read.server,
      ...sample,
      cores: question.cores,
      average: averageRates(read.counters, read.server.statsS),
      tables,
      statements: read.statements,
      tenants: key === undefined ? null : await readTenants(client, question, { key, tables }),
      growthBytesPerDay: growthPerDay(tables, read.server.statsS),
    };
    return judge(facts);
  });
}

/** Two readings of the counters, and looks at the sessions between them. */
async function watch(
  client: pg.Client,
  { sampleMs, clock, signal, onProgress }: AssessQuestion,
): Promise<{ readonly activity: Activity; readonly now: Rates | null }> {
  const look = { statementMsMax: lookMsMax };
  const before = await readOnly(client, look, () => readCounters(client));
  const looks: Activity[] = [];
  const endMs = clock.monotonicMs() + sampleMs;
  for (;;) {
    looks.push(await readOnly(client, look, () => readActivity(client)));
    const leftMs = endMs - clock.monotonicMs();
    if (leftMs <= 0 || signal.aborted) break;
    await onProgress(`looking at the sessions, ${Math.ceil(leftMs / 1000)} s more`);
    await clock.sleep(Math.min(lookEveryMs, leftMs), signal);
  }
  signal.throwIfAborted();
  const after = await readOnly(client, look, () => readCounters(client));
  return { activity: merged(looks), now: sampleMs > 0 ? ratesBetween(before, after) : null };
}

async function readTenants(
  client: pg.Client,
  { exact, onProgress }: AssessQuestion,
  { key, tables }: { readonly key: KeyColumn; readonly tables: readonly TableFacts[] },
): Promise<TenantSizes> {
  const statementMsMax = exact ? countMsMax : lookMsMax;
  if (exact) await onProgress(`counting rows by ${key.name}`);
  return readOnly(client, { statementMsMax }, () =>
    exact ? tenantsCounted(client, key, tables) : tenantsFromStatistics(client, key, tables),
  );
}

function chooseKey(
  given: string | undefined,
  tables: readonly TableFacts[],
): KeyColumn | undefined {
  if (given === undefined) return guessKeyColumn(tables);
  const having = tables.filter((table) => hasColumn(table, given)).length;
  if (having > 0) return { name: given, why: `${having} of ${tables.length} tables have it` };
  throw new CellError("CONFIG_INVALID", `no table of this database has a column ${given}`, {
    nextSteps: ["leave --key-column out, and see what is guessed"],
  });
}
