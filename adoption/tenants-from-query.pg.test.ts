/** `tenant import --from-query`: a real application's table through the real import into a real control plane. */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cellctl } from "../cli/cli.fixture.ts";
import { importResultSchema } from "../contract/control-api.ts";
import { cellEndpoints } from "../control-plane/api/cells.ts";
import { tenantImportEndpoints } from "../control-plane/api/tenant-import.ts";
import { tenantEndpoints } from "../control-plane/api/tenants.ts";
import { type ControlFixture, openCell, startControl } from "../control-plane/control.fixture.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";

let server: TestPostgres;
let control: ControlFixture;
let shop: pg.Client;
let env: Record<string, string>;

beforeAll(async () => {
  server = await startTestPostgres();
  control = await startControl(await server.createDatabase("control"), (context) => [
    ...cellEndpoints(context),
    ...tenantEndpoints(context),
    ...tenantImportEndpoints(context),
  ]);
  await openCell(control.database, "cell-01");
  const url = await server.createDatabase("shop");
  shop = new pg.Client(url);
  await shop.connect();
  await shop.query(`
    create table accounts (id bigint primary key, name text, plan text, disk numeric);
    insert into accounts select n, 'name ' || n, case when n % 2 = 0 then 'gold' else 'free' end, n * 1000
      from generate_series(1, 5000) n;
    insert into accounts values (9007199254740993, 'above what a number holds', 'gold', null)`);
  env = { CELLCTL_ADDR: control.origin, CELLCTL_TOKEN: await control.token("admin"), SHOP: url };
});
afterAll(async () => {
  await shop?.end();
  await control?.close();
  await server?.stop();
});

const importing = (sql: string, ...more: readonly string[]) =>
  cellctl(
    [
      ...["tenant", "import", "--from-query", sql, "--cell", "cell-01"],
      ...["--database-url", "env:SHOP", "--no-wait", "-o", "json", ...more],
    ],
    { env },
  );
const resultOf = async (sql: string, ...more: readonly string[]) => {
  const { code, stdout, stderr } = await importing(sql, ...more);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return importResultSchema.parse(JSON.parse(stdout));
};
const placed = async () => {
  const { stdout } = await cellctl(["tenant", "ls", "-o", "name"], { env });
  return stdout.split("\n").filter((line) => line !== "");
};

test("a dry run counts and changes nothing", async () => {
  const result = await resultOf("select id from accounts", "--dry-run");
  expect(result).toMatchObject({ accepted: 5001, perCell: { "cell-01": 5001 }, op: null });
  expect(await placed()).toEqual([]);
});

test.each([
  "select 5::integer as id",
  "select 5::smallint",
  "select gen_random_uuid()",
  "select 'a'::varchar(9)",
])("%s is an id, as PostgreSQL writes it", async (sql) => {
  expect(await resultOf(sql, "--dry-run")).toMatchObject({ accepted: 1 });
});

test("bad ids and duplicates are told with the number of their row, and nothing is placed", async () => {
  const sql = `select * from (values ('a'), (null), ('b'), ('a'), ('has space'), (''), (E'x\\ny')) v(tenant)`;
  const { code, stderr } = await importing(sql);
  expect(code).toBe(64);
  const { details } = JSON.parse(stderr).error;
  expect(details.badLines.map(({ line }: { line: number }) => line)).toEqual([2, 4, 5, 6, 7]);
  expect(await placed()).toEqual([]);
});

test("columns become what an import line has; a bigint keeps every digit", async () => {
  const result = await resultOf(
    `select 'x' as note, id, plan as tier, disk as bytes, name as "label.name" from accounts
      where id in (1, 2, 9007199254740993) order by id;`,
  );
  expect(result).toMatchObject({ accepted: 3, perCell: { "cell-01": 3 } });
  expect(await placed()).toEqual(["1", "2", "9007199254740993"]);
  const { stdout } = await cellctl(["tenant", "get", "2", "-o", "json"], { env });
  expect(JSON.parse(stdout)).toMatchObject({
    tier: "gold",
    size: { bytes: 2000 },
    labels: { name: "name 2" },
    placement: { cell: "cell-01" },
  });
});

test.each([
  ["delete from accounts returning id", "syntax error"],
  ["select id from accounts; drop table accounts", "cannot insert multiple commands"],
  ["select nextval('s')", "cannot execute nextval() in a read-only transaction"],
  ["select id from acounts", "does not exist"],
  ["select 1 / (id - 4000) from accounts order by id", "division by zero"],
])("%s changes nothing and is told in PostgreSQL's words", async (sql, words) => {
  await shop.query("create sequence if not exists s");
  const before = await placed();
  const { code, stdout, stderr } = await importing(sql);
  expect({ code, stdout }).toEqual({ code: 78, stdout: "" });
  expect(stderr).toContain(words);
  expect(await placed()).toEqual(before);
  const { rows } = await shop.query("select count(*)::integer as rows from accounts");
  expect(rows).toEqual([{ rows: 5001 }]);
});

test.each([
  [["--from-query", "select 1", "file.csv", "--cell", "c"], "not both"],
  [["--from-query", "select 1"], "needs --cell"],
  [["file.csv", "--cell", "c"], "go with --from-query"],
  [[], "name a file"],
])("%j is no command", async (args, words) => {
  const { code, stderr } = await cellctl(["tenant", "import", ...args], { env });
  expect(code).toBe(64);
  expect(stderr).toContain(words);
});

test("without a reference it is the cell's own database; a cell without one says what to do", async () => {
  const { code, stderr } = await cellctl(
    ["tenant", "import", "--from-query", "select 1", "--cell", "cell-01"],
    { env },
  );
  expect(code).toBe(64);
  expect(stderr).toContain("name the database yourself: --database-url");
});

test("a cell that is not known is said before a database is looked for", async () => {
  const args = ["--from-query", "select 1", "--cell", "cell-99", "--database-url", "env:NOWHERE"];
  const { code, stderr } = await cellctl(["tenant", "import", ...args], { env });
  expect(stderr).toContain("CELL_UNKNOWN");
  expect(stderr).not.toContain("NOWHERE");
  expect(code).not.toBe(0);
});
