/** What the preflight finds in real databases, good and bad. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTwoCells, type TwoCells } from "../two-cells.fixture.ts";
import { createPreflight } from "./preflight.ts";

const noHooks = { checks: () => [] };
const preflight = createPreflight(noHooks);
let cells: TwoCells;

beforeAll(async () => {
  cells = await startTwoCells();
  const { a } = cells;
  await cells.own(a, "default/tenant/acme", "active");
  for (let count = 0; count < 3; count += 1) await cells.write(a.app, "acme");
  await a.admin.query("analyze orders, lines, notes, events");
  await preparedFor(cells);
});

afterAll(() => cells.close());

/** As after the roles and classes of a real installation. */
async function preparedFor({ a, b }: TwoCells): Promise<void> {
  for (const { admin } of [a, b]) await admin.query("select cellfleet.set_schema_version('7')");
}

const look = (tenants = ["acme"], more: object = {}) =>
  preflight.look({ ...cells.task({ tenants }), ...more });
const verdicts = async (...args: Parameters<typeof look>) =>
  (await look(...args)).checks
    .filter(({ verdict }) => verdict !== "ok")
    .map(({ id, cell, verdict }) => `${verdict} ${id} ${cell}`);

/** On one side, and taken back. */
async function withFault(
  cell: "a" | "b" | "both",
  fault: string,
  mend: string,
  tenants?: string[],
): Promise<string[]> {
  const stores = cell === "both" ? [cells.a, cells.b] : [cells[cell]];
  for (const store of stores) await store.owner(fault);
  try {
    return await verdicts(tenants);
  } finally {
    for (const store of stores) await store.owner(mend);
  }
}

describe("two cells that are fit", () => {
  it("says ok to everything, and how many rows there are", async () => {
    expect(await verdicts()).toEqual([]);
    const found = await look();
    expect(found.fit).toBe(true);
    expect(found.tables.map(({ table, rows }) => [table, rows])).toEqual([
      ["public.events", 6],
      ["public.lines", 6],
      ["public.notes", 3],
      ["public.orders", 3],
    ]);
    expect(found.estimate).toMatchObject({ rows: 18 });
    expect(found.estimate.bytes).toBeGreaterThan(18 * 28);
    expect(found.checks.every(({ text, fix }) => text !== "" && fix === "")).toBe(true);
  });

  it("counts nothing of a tenant that no key column can hold, or that is not there", async () => {
    const found = await look(["nobody"]);
    expect(found.estimate.rows).toBe(0);
  });
});

describe("what keeps a move from beginning", () => {
  it("is a source that does not own the key, or at another epoch", async () => {
    expect(await verdicts(["nobody"])).toEqual(["refused owner cell-a"]);
    const task = cells.task({ epoch: 5 });
    const { checks } = await preflight.look(task);
    expect(checks.find(({ verdict }) => verdict === "refused")?.text).toContain(
      "active at epoch 1, not active at 5",
    );
  });

  it("is a target that owns the key", async () => {
    await cells.own(cells.a, "default/tenant/both", "active");
    await cells.own(cells.b, "default/tenant/both", "active");
    expect(await verdicts(["both"])).toEqual(["refused not-owner cell-b"]);
  });

  it("is a database that is not there, or lets nobody in", async () => {
    const { stores } = cells.task();
    const gone = stores.map((store) => ({
      ...store,
      target: { ...store.target, url: store.target.url.replace(/cell-b/, "cell-x") },
    }));
    const found = await look(undefined, { stores: gone });
    expect(found.fit).toBe(false);
    const refusal = found.checks.filter(({ verdict }) => verdict === "refused");
    expect(refusal).toMatchObject([{ id: "reachable", cell: "cell-b" }]);
    const [wrong] = stores;
    expect(JSON.stringify(refusal)).not.toContain(new URL(wrong?.target.url ?? "").password);
  });

  it("is the database of another cell", async () => {
    const { stores } = cells.task();
    const crossed = stores.map((store) => ({
      ...store,
      target: { ...store.target, url: store.source.url },
    }));
    expect(await verdicts(undefined, { stores: crossed })).toContain("refused cell cell-b");
  });

  it("is a cell whose guard lets everything pass", async () => {
    await cells.b.admin.query("update cellfleet.stage set stage = 'observe'");
    expect(await verdicts()).toEqual(["refused stage cell-b"]);
    await cells.b.admin.query("update cellfleet.stage set stage = 'enforce'");
  });

  it("is a target that holds no lease", async () => {
    await cells.b.agent.query("select cellfleet.expire_lease(9223372036854775807)");
    expect(await verdicts()).toEqual(["refused lease cell-b"]);
    await cells.b.grantLease();
    expect(await verdicts()).toEqual([]);
  });

  it("is a role that may not do all that moving needs", async () => {
    const { admin } = cells.a;
    const name = cells.a.moverUrl.replace(/^.*\/\/([^:]+):.*$/, "$1");
    await admin.query(`alter role ${name} noreplication`);
    const { checks } = await look();
    expect(checks.filter(({ verdict }) => verdict === "refused")).toMatchObject([
      { id: "mover-rights", fix: expect.stringContaining("replication;") },
      { id: "mover-rights" },
    ]);
    await admin.query(`alter role ${name} replication`);
  });

  it("is a table of an owner for whom the mover may not act", async () => {
    const { admin } = cells.a;
    await admin.query("create role stranger; alter table public.notes owner to stranger");
    const { checks, tables } = await look();
    await admin.query("alter table public.notes owner to shop_owner; drop role stranger");
    expect(checks.filter(({ verdict }) => verdict === "refused")).toMatchObject([
      { id: "table-owner", cell: "cell-a", fix: expect.stringContaining('grant "stranger" to') },
    ]);
    expect(tables).toEqual([]);
  });

  it("is a schema that differs, told line by line", async () => {
    const column = "alter table notes add column extra integer not null default 0";
    const back = "alter table notes drop column extra";
    await cells.b.owner(column);
    const { checks } = await look();
    await cells.b.owner(back);
    expect(checks.filter(({ verdict }) => verdict === "refused")).toMatchObject([
      {
        id: "schema",
        text: expect.stringContaining("only in the target: public.notes: column extra integer"),
      },
    ]);
    expect(await verdicts()).toEqual([]);
  });

  it("is another version of the schema, with both told", async () => {
    await cells.b.admin.query("select cellfleet.set_schema_version('8')");
    const { checks } = await look();
    await cells.b.admin.query("select cellfleet.set_schema_version('7')");
    expect(checks.filter(({ verdict }) => verdict === "refused")).toMatchObject([
      { id: "schema-version", text: expect.stringContaining("cell-a 7, cell-b 8") },
    ]);
  });

  it("is a table that nobody has classed", async () => {
    expect(
      await withFault("both", "create table forgotten (tenant_id text)", "drop table forgotten"),
    ).toEqual(["refused classes cell-a", "refused classes cell-b"]);
  });
});

describe("tables", () => {
  const both = (what: string) => [`${what} cell-a`, `${what} cell-b`];

  it.each([
    [
      "refused replica-identity",
      "alter table notes drop constraint notes_pkey; alter table notes add primary key (id)",
      "alter table notes drop constraint notes_pkey; alter table notes add primary key (tenant_id, id)",
    ],
    [
      "refused replica-identity",
      "alter table notes drop constraint notes_pkey; alter table notes add primary key (tenant_id, id) deferrable",
      "alter table notes drop constraint notes_pkey; alter table notes add primary key (tenant_id, id)",
    ],
    [
      "refused replica-identity",
      "alter table events_new replica identity nothing",
      "alter table events_new replica identity default",
    ],
    [
      "refused uniques",
      "create unique index body_once on notes (body, made_at)",
      "drop index body_once",
    ],
    [
      "refused ids",
      "create sequence numbers; alter table notes add column number bigint default nextval('numbers')",
      "alter table notes drop column number; drop sequence numbers",
    ],
    [
      "refused large-objects",
      "alter table notes add column file oid",
      "alter table notes drop column file",
    ],
    ["refused unlogged", "alter table notes set unlogged", "alter table notes set logged"],
    [
      "warning row-security",
      "alter table notes force row level security",
      "alter table notes no force row level security",
    ],
    [
      "warning apply-triggers",
      "create function hear() returns trigger language plpgsql as 'begin return new; end'; create trigger hear before insert on notes for each row execute function hear(); alter table notes enable always trigger hear",
      "drop function hear() cascade",
    ],
    [
      "refused exclusions",
      "alter table notes add exclude (made_at with =)",
      "alter table notes drop constraint notes_made_at_excl",
    ],
  ])("%s: %s", async (what, fault, mend) => {
    expect(await withFault("both", fault, mend)).toEqual(both(what));
  });

  it("lets what is different in each cell by itself be unique", async () => {
    expect(
      await withFault("both", "create unique index id_once on notes (id)", "drop index id_once"),
    ).toEqual([]);
    expect(
      await withFault("both", "create unique index id_once on orders (id)", "drop index id_once"),
    ).toEqual([]);
  });

  it("misses a partition of the source in the target", async () => {
    await cells.b.owner("alter table events detach partition events_new");
    const { checks, fit } = await look();
    await cells.b.owner(
      "alter table events attach partition events_new for values from ('2026-01-01') to (maxvalue)",
    );
    expect(checks.filter(({ verdict }) => verdict !== "ok")).toMatchObject([
      { id: "classes", cell: "cell-b", verdict: "refused" },
      { id: "same-partitions", verdict: "warning", text: expect.stringContaining("2026-01-01") },
    ]);
    expect(fit).toBe(false);
    expect(await verdicts()).toEqual([]);
  });

  it("tells what is generated, and lets it move", async () => {
    const { checks } = await look();
    expect(checks.find(({ id }) => id === "generated")?.text).toContain("public.lines.total");
  });
});

describe("what may go on", () => {
  it("is told of rows that stand in the way and will be removed", async () => {
    const { admin } = cells.b;
    await admin.query(
      "set session_replication_role = replica; insert into notes (tenant_id, body) values ('acme', 'old'); reset session_replication_role",
    );
    const { checks, fit } = await look();
    expect(fit).toBe(true);
    expect(checks.filter(({ verdict }) => verdict !== "ok")).toMatchObject([
      {
        id: "residue",
        cell: "cell-b",
        verdict: "warning",
        text: expect.stringContaining("public.notes: 1"),
      },
    ]);
    await admin.query(
      "set session_replication_role = replica; delete from notes where tenant_id = 'acme'; reset session_replication_role",
    );
  });

  it("is told which transactions the slot and the fence would wait for", async () => {
    const slow = await cells.a.connect();
    await slow.query("begin");
    await cells.write(slow, "acme");
    const { rows } = await slow.query<{ pid: number }>("select pg_backend_pid() as pid");
    expect(await verdicts()).toEqual([]);
    const impatient = createPreflight(noHooks, { longTransactionMs: 0, keyTransactionMs: 0 });
    const { checks, fit } = await impatient.look(cells.task());
    await slow.query("rollback");
    expect(fit).toBe(true);
    const told = checks.filter(({ verdict }) => verdict === "warning");
    // Both cells are on one server here.
    expect(told.map(({ id, cell }) => `${id} ${cell}`)).toEqual([
      "long-transactions cell-a",
      "key-transactions cell-a",
      "long-transactions cell-b",
    ]);
    for (const { text, fix } of told) {
      expect(text).toContain(`${rows[0]?.pid} (shop_app`);
      expect(fix).toBe(`select pg_terminate_backend(${rows[0]?.pid});`);
    }
  });

  it("is refused, and not held up, while somebody has locked a table", async () => {
    const other = await cells.a.connect("postgres");
    await other.query("begin; lock table orders in access exclusive mode");
    const { checks, fit } = await look();
    await other.query("commit");
    expect(fit).toBe(false);
    expect(checks.find(({ verdict }) => verdict === "refused")).toMatchObject({
      id: "reachable",
      text: expect.stringContaining("55P03"),
    });
    expect(await verdicts()).toEqual([]);
  });

  it("is told of another move that left a publication of the same tenant", async () => {
    const { admin } = cells.a;
    await admin.query(
      "create publication mv_1moveother0_0 for table notes where (tenant_id = any (array['acme', 'x']))",
    );
    expect(await verdicts()).toEqual(["refused other-moves cell-a"]);
    await admin.query("drop publication mv_1moveother0_0");
  });
});
