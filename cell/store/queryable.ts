/**
 * What the calls of this room need of a connection: a `pg` client, a client of a pool, or a pool.
 * Where a function says "one connection", a pool will not do.
 */
import type pg from "pg";

export type Queryable = {
  readonly query: <Row extends pg.QueryResultRow = pg.QueryResultRow>(
    text: string,
    values?: unknown[],
  ) => Promise<pg.QueryResult<Row>>;
};

/** PostgreSQL's code of an error (SQLSTATE), if it is one of PostgreSQL's. */
export function sqlStateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
