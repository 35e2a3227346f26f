/**
 * Keys of every type that can be guarded, under column names that need quoting: fenced under writers
 * as in fence-race.pg.test.ts, seen and hidden, purged.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CellStore, createCellStore, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { protectTable } from "./protect.ts";
import { countRowsLeft, purgeRows } from "./purge.ts";
import { sqlStateOf } from "./queryable.ts";

const races = 25;
const writerCount = 6;

let server: TestPostgres;
let store: CellStore;
let pool: pg.Pool;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "types");
  await store.grantLease();
  pool = new pg.Pool({ connectionString: server.url("types", storeRoles.appRole), max: 8 });
});
afterAll(async () => {
  await pool.end();
  await store.close();
  await server.stop();
});

const uuidOf = (n: number): string => `0b5f2a4e-6f7a-4c3e-9d2b-${String(n).padStart(12, "0")}`;
type Kind = {
  readonly type: string;
  readonly column: string;
  readonly nth: (n: number) => string;
};
const kinds: readonly Kind[] = [
  { type: "uuid", column: 'Konto "Id"', nth: uuidOf },
  { type: "bigint", column: "order", nth: (n) => String(9_000_000_000_000 + n) },
  { type: "integer", column: "Ünïcode $1", nth: (n) => String(-n - 1) },
  { type: "text", column: "new", nth: (n) => `Täñant-${n}` },
  { type: "varchar(40)", column: "it's; --", nth: (n) => `v_${n}` },
  {
    type: "character varying",
    column: "x".repeat(63),
    nth: (n) => `${"a".repeat(100)}${n}`,
  },
];

describe.each(kinds.map((kind, index) => ({ ...kind, index })))(
  "$type",
  ({ type, column, nth, index }) => {
    const table = `T${index} "t"`;
    const name = `public.${pg.escapeIdentifier(table)}`;
    const key = pg.escapeIdentifier(column);
    const insert = `insert into ${name} (${key}) values ($1)`;

    beforeAll(async () => {
      await store.owner(`create table ${name} (n bigserial, ${key} ${type} not null)`);
      await store.owner(`grant select, insert, update, delete on ${name} to ${storeRoles.appRole}`);
      await protectTable(store.admin, {
        schema: "public",
        table,
        keyColumn: column,
        keyspace: "default",
      });
      await store.agent.query(
        "select cellfleet.add_id_range(sequence, 1, 1000000) from cellfleet.low_ranges()",
      );
    });

    test(`no row appears after the fence in ${races} races`, async () => {
      const late: number[] = [];
      for (let race = 0; race < races; race += 1) {
        const value = nth(race);
        await store.own(`default/tenant/${value}`, "active");
        const ends = Promise.all(
          Array.from({ length: writerCount }, () => writeUntilRefused(value)),
        );
        while ((await countRows(value)) < 3) await store.admin.query("select pg_sleep(0.001)");
        expect(await store.own(`default/tenant/${value}`, "fenced")).toBe("applied");
        const atFence = await countRows(value);
        expect(new Set(await ends)).toEqual(new Set(["CF001"]));
        late.push((await countRows(value)) - atFence);
      }
      expect(late.filter((rows) => rows !== 0)).toEqual([]);
    });

    async function writeUntilRefused(value: string): Promise<string | undefined> {
      for (;;) {
        const client = await pool.connect();
        try {
          await client.query("begin");
          await client.query(insert, [value]);
          await client.query("select pg_sleep(random() * 0.004)");
          await client.query("commit");
        } catch (error) {
          await client.query("rollback");
          return sqlStateOf(error);
        } finally {
          client.release();
        }
      }
    }

    async function countRows(value: string): Promise<number> {
      const { rows } = await store.admin.query(
        `select count(*)::int as n from ${name} where ${key} = $1`,
        [value],
      );
      return Number(rows[0].n);
    }

    test("only rows of active keys are seen; a changed key is refused; a dropped one is purged", async () => {
      const [mine, other] = [nth(races), nth(races + 1)];
      for (const value of [mine, other]) {
        await store.own(`default/tenant/${value}`, "active");
        await store.app.query(insert, [value]);
      }
      await store.own(`default/tenant/${other}`, "moved");
      const { rows } = await store.app.query(`select ${key}::text as key from ${name}`);
      expect(rows).toEqual([{ key: mine }]);
      const change = store.app.query(`update ${name} set ${key} = $1`, [other]);
      expect(await refusalOf(change)).toBe("CF002");
      await store.own(`default/tenant/${other}`, "dropped");
      const removed = await purgeRows(store.agent, `default/tenant/${other}`);
      expect(Object.values(removed).reduce((sum, count) => sum + count, 0)).toBe(1);
      const left = await countRowsLeft(store.agent, `default/tenant/${mine}`);
      expect(Object.values(left).reduce((sum, count) => sum + count, 0)).toBe(1);
    });
  },
);
