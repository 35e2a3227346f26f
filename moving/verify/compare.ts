/**
 * Two snapshots of one store, compared table by table. A difference is told, never thrown: the numbers
 * are the evidence.
 */
import { createHash } from "node:crypto";
import type { Queryable } from "../../cell/store/queryable.ts";
import type { MoveVerification } from "../../contract/move-api.ts";
import { compareBytes } from "../../contract/placement-key.ts";
import { must } from "../../runtime/assert.ts";
import type { MoveTask } from "../ports.ts";
import { refusalOf } from "../store-session.ts";
import { countOrphans, type Orphans, settleText, sumTable } from "./sums.ts";
import { type ComparedTable, readComparedTables } from "./tables.ts";

/** Both in a transaction whose snapshot stands. */
export type SnapshotPair = {
  readonly store: string;
  readonly source: Queryable;
  readonly target: Queryable;
};
type Line = MoveVerification["tables"][number];
type TableLook = {
  readonly rows: number;
  readonly sum: string;
  readonly orphans: readonly Orphans[];
};

const absent: TableLook = { rows: 0, sum: "no such table", orphans: [] };

export async function compareSnapshots(
  task: MoveTask,
  { store, source, target }: SnapshotPair,
  statementMsMax: number,
): Promise<{ readonly equal: boolean; readonly lines: readonly Line[] }> {
  const both = asTwo(task, store, source, target);
  const [here, there] = await both(async (client) => {
    await settleText(client, statementMsMax);
    return new Map((await readComparedTables(client, task)).map((table) => [nameOf(table), table]));
  });
  const lines: Line[] = [];
  let equal = true;
  for (const name of [...new Set([...here.keys(), ...there.keys()])].toSorted(compareBytes)) {
    const [left, right] = await both((client) =>
      look(client, task, (client === source ? here : there).get(name)),
    );
    lines.push({
      store,
      table: name,
      sourceRows: left.rows,
      targetRows: right.rows,
      sourceSum: left.sum,
      targetSum: right.sum,
    });
    const strays = orphanLines(store, name, left.orphans, right.orphans);
    lines.push(...strays.map(({ line }) => line));
    equal &&=
      left.rows === right.rows &&
      left.sum === right.sum &&
      left !== absent &&
      right !== absent &&
      strays.every(({ added }) => !added);
  }
  return { equal, lines };
}

const nameOf = ({ schema, table }: ComparedTable): string => `${schema}.${table}`;

/** At once, on two connections; when one fails the other is done before anybody goes on. */
function asTwo(task: MoveTask, store: string, source: Queryable, target: Queryable) {
  const logins = must(
    task.stores.find(({ name }) => name === store),
    "a store of the task",
  );
  return async <T>(work: (client: Queryable) => Promise<T>): Promise<[T, T]> => {
    const [left, right] = await Promise.allSettled([work(source), work(target)]);
    if (left.status === "rejected") throw refusalOf(logins.source, left.reason);
    if (right.status === "rejected") throw refusalOf(logins.target, right.reason);
    return [left.value, right.value];
  };
}

async function look(
  client: Queryable,
  task: MoveTask,
  table: ComparedTable | undefined,
): Promise<TableLook> {
  if (table === undefined) return absent;
  const { rows, sum } = await sumTable(client, task, table);
  const orphans = await countOrphans(client, task, table);
  // What the sum was made of: equal values of other types are a difference, too.
  const columns = table.columns.map(({ name, type }) => `${name} ${type}`).join("\n");
  const shape = createHash("sha256").update(columns).digest("hex").slice(0, 8);
  return { rows, sum: `${shape}:${sum}`, orphans };
}

/**
 * Foreign keys are not checked while rows are copied and streamed. What lacks its parent in the source
 * as well (a constraint that was never validated) is not the move's doing.
 */
function orphanLines(
  store: string,
  table: string,
  source: readonly Orphans[],
  target: readonly Orphans[],
): { readonly line: Line; readonly added: boolean }[] {
  const names = [...new Set([...source, ...target].map(({ name }) => name))].toSorted(compareBytes);
  return names.flatMap((name) => {
    const left = source.find((orphans) => orphans.name === name);
    const right = target.find((orphans) => orphans.name === name);
    const [sourceRows, targetRows] = [left?.rows ?? 0, right?.rows ?? 0];
    if (sourceRows === 0 && targetRows === 0) return [];
    const parent = right?.parent ?? left?.parent ?? "";
    return [
      {
        line: {
          store,
          table: `${table} without its ${parent} (${name})`,
          sourceRows,
          targetRows,
          sourceSum: "",
          targetSum: "",
        },
        added: targetRows > sourceRows,
      },
    ];
  });
}
