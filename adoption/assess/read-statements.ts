/** The statements that take most of the database's time, where pg_stat_statements keeps count. */
import { escapeIdentifier } from "pg";
import type { Queryable } from "../../cell/store/queryable.ts";
import { sqlStateOf } from "../../cell/store/queryable.ts";
import type { Statement } from "./facts.ts";

const statementsMax = 5;
const textMax = 160;
/** Not loaded at the server's start, or not ours to read. */
const notThere = ["55000", "42501"];

type Row = {
  readonly text: string;
  readonly calls: string;
  readonly mean: number;
  readonly share: number;
};

/** Null: it is not installed, or this role may not read it. */
export async function readStatements(client: Queryable): Promise<Statement[] | null> {
  const { rows: found } = await client.query<{ schema: string }>(
    "select n.nspname as schema from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements'",
  );
  const [home] = found;
  if (home === undefined) return null;
  await client.query("savepoint statements");
  try {
    const { rows } = await client.query<Row>(
      `select s.query as text, s.calls, s.mean_exec_time as mean,
              s.total_exec_time / nullif(sum(s.total_exec_time) over (), 0) as share
         from ${escapeIdentifier(home.schema)}.pg_stat_statements s
        where s.dbid = (select oid from pg_database where datname = current_database())
        order by s.total_exec_time desc limit ${statementsMax}`,
    );
    return rows.map(({ text, calls, mean, share }) => ({
      text: shortened(text),
      calls: Number(calls),
      meanMs: mean,
      share,
    }));
  } catch (error) {
    const code = sqlStateOf(error);
    if (code === undefined || !notThere.includes(code)) throw error;
    await client.query("rollback to savepoint statements");
    return null;
  }
}

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > textMax ? `${line.slice(0, textMax - 1)}…` : line;
}
