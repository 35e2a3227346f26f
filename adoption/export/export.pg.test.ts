/** `tenant export`: a real cell's database, a real control plane, files that are read back. */
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { protectTable } from "../../cell/store/protect.ts";
import { cellctl, type RunOptions } from "../../cli/cli.fixture.ts";
import { auditEndpoints } from "../../control-plane/api/audit.ts";
import { cellEndpoints } from "../../control-plane/api/cells.ts";
import { tenantLifeEndpoints } from "../../control-plane/api/tenant-life.ts";
import { tenantEndpoints } from "../../control-plane/api/tenants.ts";
import {
  type ControlFixture,
  openCell,
  startControl,
} from "../../control-plane/control.fixture.ts";
import { cell } from "../../control-plane/store/schema.ts";
import { systemRandom } from "../../runtime/random.ts";
import { type CellStore, createCellStore, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { exportTenant } from "./export-tenant.ts";

let server: TestPostgres;
let control: ControlFixture;
let store: CellStore;
let env: Record<string, string>;
let folder: string;

/** What a file can get wrong: escapes, line breaks in json, numbers beyond what JavaScript holds. */
const nasty = 'back\\slash "quote" line\nbreak\ttab ünïcode \u2028';
const bigNumber = "12345678901234567890.123456789";

beforeAll(async () => {
  server = await startTestPostgres();
  control = await startControl(await server.createDatabase("control"), (context) => [
    ...cellEndpoints(context),
    ...tenantEndpoints(context),
    ...tenantLifeEndpoints(context),
    ...auditEndpoints(context),
  ]);
  await openCell(control.database, "cell-01");
  await control.database.read
    .update(cell)
    .set({ stores: { default: { database: "env:SHOP", keyColumn: "tenant_id" } } })
    .where(eq(cell.id, "cell-01"));
  store = await createCellStore(server, "cell_01");
  await store.owner(`
    create table notes (tenant_id text not null, id uuid not null default gen_random_uuid(), body text, doc json,
                        amount numeric, seen timestamptz, raw bytea, primary key (tenant_id, id));
    create table counters (tenant_id bigint primary key, n integer not null);
    create table "Odd/name" (tenant_id text primary key);
    grant select, insert, update, delete on notes, counters, "Odd/name" to ${storeRoles.appRole}`);
  for (const table of ["notes", "counters", "Odd/name"]) {
    const place = { schema: "public", keyColumn: "tenant_id", keyspace: "default" };
    await protectTable(store.admin, { ...place, table });
  }
  await store.grantLease();
  for (const id of ["acme", "globex", "7", "07"]) await store.own(`default/tenant/${id}`, "active");
  await store.app.query(
    `insert into notes (tenant_id, body, doc, amount, seen, raw) values
       ('acme', $1, E'{"a" :\\n\\t1}', $2, '2026-01-02 03:04:05.678901+02', '\\x00ff'),
       ('globex', 'not acme''s', null, 1, null, null), ('acme', null, null, null, null, null)`,
    [nasty, bigNumber],
  );
  await store.app.query(
    "insert into orders (tenant_id, item, quantity) select t, 'item ' || n, n from generate_series(1, 3000) n, unnest(array['acme', 'globex']) t",
  );
  await store.app.query("insert into counters values (7, 1)");
  await store.app.query(`insert into "Odd/name" values ('acme')`);
  env = {
    CELLCTL_ADDR: control.origin,
    CELLCTL_TOKEN: await control.token("admin"),
    SHOP: server.url("cell_01", storeRoles.appRole),
    OWNER: server.url("cell_01", "postgres"),
  };
  for (const id of ["acme", "globex", "7", "07", "gone"]) {
    const created = await run(["tenant", "create", id, "--cell", "cell-01", "--no-wait"]);
    expect(created.code).toBe(0);
  }
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellctl-export-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));
afterAll(async () => {
  await store?.close();
  await control?.close();
  await server?.stop();
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  cellctl(args, { ...options, cwd: folder, env });
const exporting = (tenant: string, ...more: readonly string[]) =>
  run(["tenant", "export", tenant, "-O", "out", "-o", "json", ...more]);

const rowSchema = z.object({
  store: z.string(),
  table: z.string(),
  row: z.record(z.string(), z.unknown()),
});
const endSchema = z.object({
  end: z.object({
    tables: z.array(z.object({ table: z.string(), rows: z.number() })),
    rows: z.number(),
    bytes: z.number(),
    sha256: z.string(),
  }),
});

async function readExport() {
  const text = await readFile(join(folder, "out"), "utf8");
  const lines = text.trimEnd().split("\n");
  const last = lines.at(-1) ?? "";
  const body = text.slice(0, text.length - last.length - 1);
  return {
    text,
    head: JSON.parse(lines[0] ?? ""),
    rows: lines.slice(1, -1).map((line) => rowSchema.parse(JSON.parse(line))),
    end: endSchema.parse(JSON.parse(last)).end,
    body,
  };
}

describe("one file", () => {
  test("has every row of the tenant and of no other, and sums that hold", async () => {
    const { code, stdout, stderr } = await exporting("acme", "--reason", "asked by acme");
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const { head, rows, end, body, text } = await readExport();
    expect(head.export).toMatchObject({
      tenant: "acme",
      key: "default/tenant/acme",
      cell: "cell-01",
      epoch: 1,
    });
    expect(rows.every(({ row }) => row["tenant_id"] === "acme")).toBe(true);
    expect(end.tables.map(({ table, rows: count }) => [table, count])).toEqual([
      ["public.Odd/name", 1],
      ["public.counters", 0],
      ["public.notes", 2],
      ["public.orders", 3000],
    ]);
    expect(rows).toHaveLength(3003);
    expect(end.bytes).toBe(Buffer.byteLength(body));
    expect(end.sha256).toBe(createHash("sha256").update(body).digest("hex"));
    expect(JSON.parse(stdout)).toMatchObject({
      id: "acme",
      rows: 3003,
      sha256: end.sha256,
      snapshots: [{ store: "default", at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*\+00:00$/) }],
    });
    // To the last digit, which a parser of JSON would round.
    expect(text).toContain(`"amount":${bigNumber}`);
    const note = rows.find(({ row }) => row["body"] !== null && "body" in row)?.row;
    expect(note).toMatchObject({
      body: nasty,
      doc: { a: 1 },
      seen: "2026-01-02T01:04:05.678901+00:00",
      raw: "\\x00ff",
    });
    expect((await stat(join(folder, "out"))).mode & 0o777).toBe(0o600);
    expect(await readdir(folder)).toEqual(["out"]);
  });

  test("is on record in the audit log before a row is read, with its reason", async () => {
    await exporting("globex", "--reason", "court order 17");
    const { stdout } = await run(["audit", "ls", "--limit", "1", "-o", "json"]);
    expect(JSON.parse(stdout).items).toMatchObject([
      { action: "tenant.export", object: "globex", reason: "court order 17" },
    ]);
  });

  test("finds a number's rows in a number's column, and never '07' for 7", async () => {
    expect((await exporting("7")).code).toBe(0);
    const { end } = await readExport();
    expect(end.tables.find(({ table }) => table === "public.counters")?.rows).toBe(1);
    expect(end.rows).toBe(1);
    await rm(join(folder, "out"));
    expect((await exporting("07")).code).toBe(0);
    expect((await readExport()).end.rows).toBe(0);
  });

  test("is of one moment: what is committed while it is read is in no table of it", async () => {
    let late = false;
    const summary = await exportTenant({
      ...{ tenant: "acme", keyspace: "default", key: "default/tenant/acme" },
      ...{ cell: "cell-01", epoch: 1, schemaVersion: "", manifest: undefined, format: "ndjson" },
      stores: [{ name: "default", database: { reference: "env:SHOP", env } }],
      path: join(folder, "out"),
      random: systemRandom,
      signal: new AbortController().signal,
      // Between two tables: one is read, the other not yet.
      onProgress: async (text) => {
        if (late || !text.startsWith("public.notes")) return;
        late = true;
        await store.app.query(
          "insert into orders (tenant_id, item, quantity) values ('acme', 'late', 1)",
        );
      },
    });
    await store.app.query("delete from orders where tenant_id = 'acme' and item = 'late'");
    expect(late).toBe(true);
    expect(summary.rows).toBe(3003);
    expect((await readExport()).text).not.toContain('"late"');
  });
});

describe("a folder of CSV", () => {
  test("has a file per table with a header, and the sums of all", async () => {
    const { code, stdout } = await exporting("acme", "--format", "csv-dir");
    expect(code).toBe(0);
    expect((await readdir(join(folder, "out"))).toSorted()).toEqual([
      "default.public.Odd%2Fname.csv",
      "default.public.counters.csv",
      "default.public.notes.csv",
      "default.public.orders.csv",
      "export.json",
    ]);
    const [index = ""] = (await readFile(join(folder, "out", "export.json"), "utf8")).split("\n");
    for (const { file, sha256 } of JSON.parse(index).files) {
      const content = await readFile(join(folder, "out", file));
      expect(createHash("sha256").update(content).digest("hex")).toBe(sha256);
    }
    const orders = await readFile(join(folder, "out", "default.public.orders.csv"), "utf8");
    expect(orders).toMatch(/^id,tenant_id,item,quantity,created_at\n/);
    expect(orders.trimEnd().split("\n")).toHaveLength(3001);
    expect(JSON.parse(stdout)).toMatchObject({ rows: 3003 });
  });
});

describe("refused, with no file left", () => {
  afterEach(async () => {
    expect(await readdir(folder)).toEqual([]);
  });

  test("a tenant that this cell's database does not own at the epoch that is on record", async () => {
    await store.own("default/tenant/globex", "active", 2);
    const { code, stderr } = await exporting("globex");
    expect(code).toBe(6);
    expect(stderr).toContain("active here, at epoch 2; cell-01 should own it at epoch 1");
    const gone = await exporting("gone");
    expect(gone.stderr).toContain("gone is not active here");
  });

  test("a role from which the application's own row security hides rows", async () => {
    await store.owner(`
      create policy own_rows on orders to ${storeRoles.appRole} using (item = 'item 1')`);
    const { code, stderr } = await exporting("acme");
    await store.owner("drop policy own_rows on orders");
    expect(code).toBe(4);
    expect(stderr).toContain("bound by row security of the application on public.orders");
  });

  test("a role that may not read a table", async () => {
    await store.owner(`revoke select on notes from ${storeRoles.appRole}`);
    const { code, stderr } = await exporting("acme");
    await store.owner(`grant select on notes to ${storeRoles.appRole}`);
    expect(code).toBe(4);
    expect(stderr).toContain("may not read public.notes");
  });

  test("interrupted in the middle", async () => {
    const interrupt = new AbortController();
    const { code, stderr } = await run(["tenant", "export", "acme", "-O", "out"], {
      terminal: true,
      interrupted: interrupt.signal,
      onStderr: (text) => {
        if (text.includes("copied")) interrupt.abort();
      },
    });
    expect(code).toBe(130);
    expect(stderr).toContain("no file was written");
  });

  test("a folder that is not there", async () => {
    const { code, stderr } = await run(["tenant", "export", "acme", "-O", "no/such/out"]);
    expect(code).toBe(78);
    expect(stderr).toContain("cannot write");
  });

  test("a tenant that nobody registered", async () => {
    expect((await exporting("nobody")).code).toBe(5);
  });
});

test("a file that exists is left as it is", async () => {
  await writeFile(join(folder, "out"), "precious");
  const { code } = await exporting("acme");
  expect(code).toBe(6);
  expect(await readFile(join(folder, "out"), "utf8")).toBe("precious");
});

test("a suspended tenant is exported by the tables' owner, who sees its fenced rows", async () => {
  await store.own("default/tenant/acme", "fenced");
  const asApp = await exporting("acme");
  expect(asApp.code).toBe(6);
  expect(asApp.stderr).toContain("needs the URL of the tables' owner");
  const asOwner = await exporting("acme", "--database-url", "env:OWNER");
  expect(asOwner.code).toBe(0);
  expect((await readExport()).end.rows).toBe(3003);
});

test("before anything is installed the manifest names the tables", async () => {
  const url = await server.createDatabase("legacy");
  const { Client } = (await import("pg")).default;
  const legacy = new Client(url);
  await legacy.connect();
  await legacy.query("create table things (id bigserial primary key, account text not null)");
  await legacy.query("insert into things (account) values ('acme'), ('globex'), ('acme')");
  await legacy.end();
  await writeFile(join(folder, "m.yaml"), "keyColumn: account\ntables:\n  things: tenant\n");
  env["LEGACY"] = url;
  const without = await exporting("acme", "--database-url", "env:LEGACY");
  expect(without.code).toBe(4);
  const more = ["--database-url", "env:LEGACY", "--manifest", "m.yaml"];
  expect((await exporting("acme", ...more)).code).toBe(0);
  expect((await readExport()).rows.map(({ row }) => row["id"])).toEqual([1, 3]);
});
