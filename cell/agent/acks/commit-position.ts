/**
 * Where the cell's write-ahead log stands when the application has answered a write: its commit lies
 * before that. Routers keep it with what they acknowledged, so that a failover can say which of it was lost.
 *
 * What must always be true: the reading begins after the application's answer came; an answer waits for it
 * no longer than `waitMsMax`, and goes out without a position where it cannot be read.
 */
import type pg from "pg";
import type { Clock } from "../../../runtime/clock.ts";
import { withDeadline } from "../../../runtime/lifecycle.ts";
import { SharedReading } from "./shared-reading.ts";

export const waitMsMax = 50;

export type AckStore = {
  /** Empty: the first one. */
  readonly name: string;
  readonly pool: pg.Pool;
};

export class CommitPositions {
  readonly #clock: Clock;
  readonly #stores: ReadonlyArray<{ readonly name: string; readonly lsn: SharedReading<string> }>;

  constructor(clock: Clock, stores: readonly AckStore[]) {
    this.#clock = clock;
    this.#stores = stores.map(({ name, pool }) => ({
      name,
      lsn: new SharedReading(async () => {
        const { rows } = await pool.query<{ lsn: string }>(positionQuery);
        return rows[0]?.lsn ?? "";
      }),
    }));
  }

  /** The header's value; undefined where some store cannot be read in time. Never rejects. */
  async read(): Promise<string | undefined> {
    try {
      const all = await withDeadline(this.#clock, waitMsMax, () =>
        Promise.all(this.#stores.map(({ lsn }) => lsn.next())),
      );
      return all.includes("") ? undefined : this.#text(all);
    } catch {
      // The database's own session says what is wrong with it; the report is less exact.
      return undefined;
    }
  }

  #text([first = "", ...rest]: readonly string[]): string {
    const named = rest.map((lsn, at) => `${this.#stores[at + 1]?.name}=${lsn}`);
    return [first, ...named].join(", ");
  }
}

const positionQuery = "select pg_current_wal_insert_lsn()::text as lsn";
