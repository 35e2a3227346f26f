/** A file of tenants is applied whole or not at all, whatever is in it and however it breaks off. */
import { request as httpRequest } from "node:http";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { importResultSchema } from "../../contract/control-api.ts";
import { errorBodySchema } from "../../contract/errors.ts";
import { slotOf } from "../../contract/placement-key.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { tenantImportEndpoints } from "../api/tenant-import.ts";
import {
  type ControlFixture,
  callAgent,
  eventually,
  openCell,
  soleRow,
  startControl,
} from "../control.fixture.ts";
import { insertPending } from "../store/placements.ts";
import { changeRouting } from "../store/routing-change.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let token: string;
let databaseNumber = 0;

beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});
beforeEach(async () => {
  await control?.close();
  databaseNumber += 1;
  control = await startControl(
    await postgres.createDatabase(`import${databaseNumber}`),
    (context) => tenantImportEndpoints(context),
  );
  token = await control.token("operator");
  await openCell(control.database, "cell-01", { tenants: 1000 });
  await openCell(control.database, "cell-02", { tenants: 500 });
});

type Sent = { readonly status: number; readonly body: unknown };

async function send(
  text: string,
  how: { csv?: boolean; query?: string; key?: string } = {},
): Promise<Sent> {
  const response = await fetch(`${control.origin}/v1/tenants/import${how.query ?? ""}`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": how.csv === true ? "text/csv" : "application/x-ndjson",
      ...(how.key === undefined ? {} : { "idempotency-key": how.key }),
    },
    body: text,
  });
  return { status: response.status, body: await response.json() };
}

const result = ({ body }: Sent) => importResultSchema.parse(body);
const refusal = ({ body }: Sent) => errorBodySchema.parse(body).error;
const ndjson = (ids: readonly string[], more: object = {}): string =>
  ids.map((id) => `${JSON.stringify({ id, ...more })}\n`).join("");
const names = (count: number, prefix = "t"): string[] =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}`);

async function count(table: string): Promise<number> {
  const { rows } = await control.database.read.execute<{ n: number }>(
    sql`select count(*)::int as n from ${sql.raw(`cellfleet_control.${table}`)}`,
  );
  return soleRow(rows).n;
}

test("tenants are spread by room, pending until their cells apply them, under one commit", async () => {
  const answer = await send(ndjson(names(300)));
  expect(answer.status).toBe(202);
  const { accepted, perCell, op } = result(answer);
  expect(accepted).toBe(300);
  expect(perCell).toEqual({ "cell-01": 200, "cell-02": 100 });
  expect(op).toMatchObject({ kind: "tenant.import", state: "running", step: "applying" });
  const agent = await control.client("agent", "cell-01");
  const page = await callAgent(agent, "cell-01");
  expect(page.changes).toHaveLength(200);
  await callAgent(agent, "cell-01", { appliedRevision: page.revision });
  const { rows } = await control.database.read.execute(
    sql`select cell, state, count(*)::int as n from cellfleet_control.placement group by 1, 2 order by 1`,
  );
  expect(rows).toEqual([
    { cell: "cell-01", state: "active", n: 200 },
    { cell: "cell-02", state: "pending", n: 100 },
  ]);
});

test("one bad line stops everything, and is named with its number and what is wrong", async () => {
  const good = ndjson(names(3));
  const answer = await send(
    `${good}{"id":"../etc"}\nnot json\n${ndjson(["t1"])}{"id":"x","cell":"cell-77"}\n`,
  );
  expect(answer.status).toBe(422);
  expect(refusal(answer)).toMatchObject({
    code: "IMPORT_INVALID",
    changed: false,
    details: {
      skipped: 4,
      badLines: [
        { line: 4, error: expect.stringContaining("id: must be 1 to 128 characters") },
        { line: 5, error: "not JSON" },
        { line: 6, error: "the id t1 stands in the file before" },
        { line: 7, error: "there is no cell cell-77" },
      ],
    },
  });
  expect(await count("tenant")).toBe(0);
  expect(await count("placement")).toBe(0);
});

test("bad lines are skipped when asked to, and counted", async () => {
  await send(ndjson(["before"]));
  const text = `${ndjson(["before", "fresh", "fresh"])}{"id":"x","keyspace":"nowhere"}\n`;
  const answer = result(await send(text, { query: "?skipBadLines=true" }));
  expect(answer).toMatchObject({ accepted: 1, skipped: 3 });
  expect(answer.badLines.map(({ error }) => error)).toEqual([
    "a tenant with the id before exists",
    "the id fresh stands in the file before",
    "there is no keyspace nowhere",
  ]);
  expect(await count("tenant")).toBe(2);
});

test("CSV with quotes, labels and sizes says the same as NDJSON", async () => {
  const csv = [
    "id,tier,bytes,rps,label.team,cell",
    'acme,gold,1000,1.5,"sales, east",cell-02',
    "globex,,,,,",
    "",
  ].join("\r\n");
  expect(result(await send(csv, { csv: true }))).toMatchObject({ accepted: 2 });
  const { rows } = await control.database.read.execute(
    sql`select t.id, t.tier, t.size_bytes::int as bytes, t.size_rps as rps, t.labels, p.cell
          from cellfleet_control.tenant as t
          join cellfleet_control.placement as p on p.key = t.placement_key order by 1`,
  );
  expect(rows[0]).toEqual({
    id: "acme",
    tier: "gold",
    bytes: 1000,
    rps: 1.5,
    labels: { team: "sales, east" },
    cell: "cell-02",
  });
  expect(rows[1]).toMatchObject({ id: "globex", tier: "standard", bytes: 0, labels: {} });
});

test("hostile CSV is bad lines or a refusal, never half an import", async () => {
  const unknown = await send("id,password\nacme,x\n", { csv: true });
  expect(refusal(unknown).message).toContain("unknown columns password");
  const ragged = await send("id,tier\nacme\nglobex,gold,extra\n", { csv: true });
  expect(refusal(ragged)).toMatchObject({
    details: {
      badLines: [
        { line: 2, error: "1 fields, the header has 2" },
        { line: 3, error: "3 fields, the header has 2" },
      ],
    },
  });
  const huge = await send(`id\n${"a".repeat(100_000)}\nfine\n`, { csv: true });
  expect(huge.status).toBe(422);
  const control1 = await send("id,label.a\nacme,\u0007\n", { csv: true });
  expect(refusal(control1).code).toBe("IMPORT_INVALID");
  const long = await send(`{"id":"a","labels":{"x":"${"y".repeat(70_000)}"}}\n{"id":"b"}\n`);
  expect(refusal(long)).toMatchObject({
    details: { badLines: [{ line: 1, error: "longer than 65536 bytes" }] },
  });
  const kind = await fetch(`${control.origin}/v1/tenants/import`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/zip" },
    body: "PK",
  });
  expect(kind.status).toBe(400);
  expect(await count("tenant")).toBe(0);
});

test("good lines behind a CSV record without an end are never swallowed, also when skipping", async () => {
  for (const endless of ["a".repeat(66_000), `"${"a\n".repeat(40_000)}`]) {
    const sent = await send(`id\nbefore\n${endless}\nok1\nok2\n`, {
      csv: true,
      query: "?skipBadLines=true",
    });
    expect(sent.status).toBe(422);
    const { error } = errorBodySchema.parse(sent.body);
    expect(error.code).toBe("IMPORT_INVALID");
    expect(error.message).toContain("longer than");
  }
  const { rows } = await control.database.pool.query("select id from cellfleet_control.tenant");
  expect(rows).toEqual([]);
});

test("more than fits is refused before anything is placed, with the numbers", async () => {
  const answer = await send(ndjson(names(1501)));
  expect(answer.status).toBe(409);
  expect(refusal(answer)).toMatchObject({ code: "CAPACITY_EXHAUSTED", details: { unplaced: 1 } });
  expect(await count("placement")).toBe(0);
  expect((await send(ndjson(names(1500)))).status).toBe(202);
  const { rows } = await control.database.read.execute<{ used: number }>(
    sql`select used_tenants::int as used from cellfleet_control.cell order by id`,
  );
  expect(rows.map(({ used }) => used)).toEqual([1000, 500]);
});

test("a dry run counts and places, and changes nothing", async () => {
  const answer = await send(ndjson(names(30)), { query: "?dryRun=true" });
  expect(answer.status).toBe(200);
  expect(result(answer)).toMatchObject({ accepted: 30, op: null });
  expect(await count("tenant")).toBe(0);
  expect(await count("op")).toBe(0);
});

test("a repeated file with the same Idempotency-Key is applied once; another file is a mismatch", async () => {
  const first = result(await send(ndjson(["a", "b"]), { key: "k1" }));
  const again = result(await send(ndjson(["a", "b"]), { key: "k1" }));
  expect(again.op?.id).toBe(first.op?.id);
  expect(refusal(await send(ndjson(["c"]), { key: "k1" })).code).toBe("IDEMPOTENCY_MISMATCH");
  expect(await count("tenant")).toBe(2);
});

test("tenants of hash slots and ranges go to the cell of their container", async () => {
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: true });
    await tx.execute(sql`insert into cellfleet_control.keyspace (name, strategy, slot_count, guard_mode)
      values ('users', 'slots', 2, 'strict'), ('logs', 'range', null, 'strict')`);
    const row = { op: "op_0000000001", revision, epochMin: 1 };
    await insertPending(tx, [
      { ...row, key: "users/slot/0", keyspace: "users", kind: "slot", value: "0", cell: "cell-01" },
      { ...row, key: "users/slot/1", keyspace: "users", kind: "slot", value: "1", cell: "cell-02" },
      { ...row, key: "logs/range/", keyspace: "logs", kind: "range", value: "", cell: "cell-01" },
      { ...row, key: "logs/range/m", keyspace: "logs", kind: "range", value: "m", cell: "cell-02" },
    ]);
  });
  const users = names(20, "u");
  const text =
    ndjson(users, { keyspace: "users" }) + ndjson(["alpha", "m", "Zulu"], { keyspace: "logs" });
  const answer = result(await send(text));
  expect(answer.accepted).toBe(23);
  const { rows } = await control.database.read.execute<{ id: string; key: string }>(
    sql`select id, placement_key as key from cellfleet_control.tenant order by id`,
  );
  const keys = new Map(rows.map(({ id, key }) => [id, key]));
  for (const id of users) expect(keys.get(id)).toBe(`users/slot/${slotOf(id, 2)}`);
  expect([keys.get("alpha"), keys.get("m"), keys.get("Zulu")]).toEqual([
    "logs/range/",
    "logs/range/m",
    "logs/range/",
  ]);
  const wrong = await send('{"id":"elsewhere","keyspace":"logs","cell":"cell-02"}\n');
  expect(refusal(wrong)).toMatchObject({
    details: { badLines: [{ line: 1, error: "logs/range/ belongs to cell-01, not to cell-02" }] },
  });
});

test("a deleted tenant that comes back gets a greater epoch", async () => {
  await send(ndjson(["phoenix"], { cell: "cell-01" }));
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await tx.execute(
      sql`update cellfleet_control.placement set deleted = true, revision = ${revision}`,
    );
    await tx.execute(sql`delete from cellfleet_control.tenant`);
  });
  await send(ndjson(["phoenix"], { cell: "cell-02" }));
  const { rows } = await control.database.read.execute(
    sql`select cell, epoch::int as epoch, state, deleted from cellfleet_control.placement`,
  );
  expect(rows).toEqual([{ cell: "cell-02", epoch: 2, state: "pending", deleted: false }]);
});

test("an upload that breaks off leaves nothing, and the next import goes through", async () => {
  const { hostname, port } = new URL(control.origin);
  const upload = httpRequest({
    hostname,
    port,
    method: "POST",
    path: "/v1/tenants/import",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/x-ndjson" },
  });
  upload.on("error", () => undefined);
  upload.write(ndjson(names(100)));
  await eventually(
    async () => {
      const { rows } = await control.database.read.execute(
        sql`select 1 from pg_stat_activity where query like 'copy import_line%' and datname = current_database()`,
      );
      return rows.length;
    },
    (running) => running > 0,
  );
  const second = await send(ndjson(["second"]));
  expect(refusal(second).code).toBe("STATE_CONFLICT");
  upload.destroy();
  const third = await eventually(
    () => send(ndjson(["third"])),
    ({ status }) => status !== 409,
  );
  expect(third.status).toBe(202);
  expect(await count("tenant")).toBe(1);
});

test("a large file that is refused at its first line gets its answer, not a broken connection", async () => {
  const chunk = "x,y\n".repeat(16_384);
  const parts = ["id,nonsense\n", ...Array.from({ length: 300 }, () => chunk)];
  const answer = await fetch(`${control.origin}/v1/tenants/import`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "text/csv" },
    body: new Blob(parts).stream(),
    duplex: "half",
  });
  expect(answer.status).toBe(422);
  expect(errorBodySchema.parse(await answer.json()).error.message).toContain("nonsense");
});
