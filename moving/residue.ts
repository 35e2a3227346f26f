/**
 * Removes the rows of a move's keys from one cell's database, in batches, and counts that none is left.
 *
 * What must always be true: only rows of keys that nobody may write here (holdKeys, in each batch's own
 * transaction); no trigger of the application and no guard fires (replica role), so nothing else goes
 * with them; nobody else's stream carries the deletes: whoever calls has dropped the move's streams first.
 */
import type pg from "pg";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { inTransaction, withMover } from "./connection.ts";
import { rowFilter } from "./filters.ts";
import type { MoveTask, StoreLogin } from "./ports.ts";
import { holdKeys } from "./residue-claim.ts";
import { type MovedTable, readTables } from "./streams-tables.ts";

const batchRows = 5_000;
const passesMax = 3;

export type Residue = {
  readonly task: MoveTask;
  readonly login: StoreLogin;
  /** Whose rows these are: copied in for the target, or left behind at the source. */
  readonly state: "importing" | "moved";
  readonly signal: AbortSignal;
};

/** Resolves when no row of the keys is left in any guarded table of the keyspace. */
export async function removeRows(residue: Residue): Promise<void> {
  const { task, login } = residue;
  await withMover(
    login,
    { name: `cellfleet purge ${task.op}`, statementMsMax: 0 },
    async (client) => {
      const tables = await readTables(client, task.keyspace.name);
      await client.query("set session_replication_role = replica");
      await client.query("set synchronous_commit = on");
      for (let pass = 1; pass <= passesMax; pass += 1) {
        for (const table of tables) await removeFrom(client, table, residue);
        const left = await findLeft(client, tables, task);
        if (left.length === 0) return;
        if (pass === passesMax) throw stillThere(left, residue);
      }
    },
  );
}

const partSchema = z.object({ name: z.string() });

/** A place (ctid) is one of a partition, not of its parent. */
async function partsOf(client: pg.Client, table: MovedTable): Promise<string[]> {
  if (!table.partitioned) return [table.name];
  const { rows } = await client.query(
    `select format('%I.%I', n.nspname, c.relname) as name
       from pg_partition_tree($1::regclass) t join pg_class c on c.oid = t.relid
       join pg_namespace n on n.oid = c.relnamespace
      where t.isleaf order by 1`,
    [table.name],
  );
  return rows.map((row) => partSchema.parse(row).name);
}

/**
 * One scan finds the places, whatever index there is or is not; the cursor keeps them without holding a
 * snapshot open. By the time a place is emptied another tenant's row may stand there: so the condition is
 * asked once more.
 */
async function removeFrom(client: pg.Client, table: MovedTable, residue: Residue): Promise<void> {
  const { task, state, signal } = residue;
  const condition = rowFilter(task, table.key);
  for (const part of await partsOf(client, table)) {
    signal.throwIfAborted();
    await inTransaction(client, () =>
      client.query(
        `declare residue cursor with hold for select ctid::text as place from only ${part} where ${condition}`,
      ),
    );
    for (;;) {
      signal.throwIfAborted();
      const { rows } = await client.query<{ place: string }>(`fetch ${batchRows} from residue`);
      if (rows.length === 0) break;
      await inTransaction(client, async () => {
        await holdKeys(client, task, state);
        // Any plan but "go to these places" reads all that is left, in each batch; planners think it cheaper.
        await client.query(
          `select set_config(scan, 'off', true)
             from unnest(array['enable_seqscan', 'enable_indexscan', 'enable_bitmapscan']) s(scan)`,
        );
        await client.query(
          `delete from only ${part} where ctid = any ($1::tid[]) and (${condition})`,
          [rows.map(({ place }) => place)],
        );
      });
    }
    await client.query("close residue");
  }
}

async function findLeft(
  client: pg.Client,
  tables: readonly MovedTable[],
  task: MoveTask,
): Promise<string[]> {
  const left: string[] = [];
  for (const table of tables) {
    const { rows } = await client.query<{ count: string }>(
      `select count(*) as count from ${table.name} where ${rowFilter(task, table.key)}`,
    );
    if (rows[0]?.count !== "0") left.push(`${rows[0]?.count} in ${table.name}`);
  }
  return left;
}

const stillThere = (left: readonly string[], { task, login }: Residue): CellError =>
  new CellError(
    "OP_FAILED",
    `Rows of ${task.keys.map(({ key }) => key).join(", ")} come back in cell ${login.cell}: ${left.join(", ")}`,
    { nextSteps: [`find who writes them past the guard in cell ${login.cell}`] },
  );
