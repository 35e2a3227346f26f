/**
 * What the SQL pack costs: one row written and rows read, without it and with it, in both modes, and
 * in stage `observe` for a tenant that nobody imported: what is let pass and counted.
 *
 * Processor time of the server process, where the system tells it (Linux); else the clock's. Nothing
 * waits for a disk here, so the ratios are the worst that an application can meet. Variants are
 * measured in turn, batch by batch, so that a slow moment of the machine meets all of them.
 */
import { readFileSync } from "node:fs";
import type pg from "pg";
import { type CellStore, createCellStore, enterStage, storeRoles } from "../tests/cell-store.ts";
import { startTestPostgres } from "../tests/postgres.ts";

const tenants = 1000;
const rowsPerTenant = 100;
const batches = 15;

const variants = ["without", "row", "strict", "observed"] as const;
type Variant = (typeof variants)[number];
type Work = {
  readonly name: string;
  /** Rows, or queries, that one round stands for. */
  readonly unit: string;
  readonly perRound: number;
  readonly rounds: number;
  /** Absent: the variant has no such case. */
  readonly round: Partial<Record<Variant, () => Promise<unknown>>>;
};

export async function run(): Promise<void> {
  const server = await startTestPostgres();
  try {
    const guarded = await createCellStore(server, "guarded");
    const plain = await createCellStore(server, "plain");
    try {
      await fill(guarded);
      await fill(plain);
      await plain.owner("select cellfleet.unprotect_table('public', 'orders')");
      await plain.owner(`grant usage on sequence orders_id_seq to ${storeRoles.appRole}`);
      await measureAll(guarded, plain);
    } finally {
      await guarded.close();
      await plain.close();
    }
  } finally {
    await server.stop();
  }
}

async function fill(store: CellStore): Promise<void> {
  await store.grantLease();
  const changes = Array.from({ length: tenants }, (_, index) => ({
    key: `default/tenant/t${index}`,
    state: "active",
    epoch: 1,
    op: "op_bench",
    attempt: 0,
  }));
  await store.agent.query("select cellfleet.apply_ownership($1, 1)", [JSON.stringify(changes)]);
  await store.admin.query("set session_replication_role = replica");
  await store.admin.query(
    `insert into orders (id, tenant_id, item, quantity)
     select 10000000 + i, 't' || i % ${tenants}, 'tea', 1 from generate_series(1, ${tenants * rowsPerTenant}) i`,
  );
  await store.admin.query("reset session_replication_role");
  await store.admin.query("vacuum analyze");
}

const statement = (name: string, text: string, values: unknown[] = []) => ({ name, text, values });
const insertOne = (tenant = "t1") =>
  statement("insert", "insert into orders (tenant_id, item, quantity) values ($1, 'x', 1)", [
    tenant,
  ]);
const updateOne = statement(
  "update",
  "update orders set quantity = quantity + 1 where tenant_id = $1 and id = $2",
  ["t2", 10_000_002],
);
const insertUnknown = insertOne("nobody");
const enter = statement("enter", "select cellfleet.enter($1, $2)", ["default/tenant/t1", 1]);
const insertMany = (tenant: string) =>
  `insert into orders (tenant_id, item, quantity) select '${tenant}', 'x', 1 from generate_series(1, 2000)`;
const readOne = statement("point", "select * from orders where tenant_id = $1 and id = $2", [
  "t3",
  10_000_003,
]);
const readTenant = statement("tenant", "select sum(quantity) from orders where tenant_id = $1", [
  "t4",
]);
const readAll = statement("all", "select sum(quantity) from orders");

async function inTransaction(client: pg.Client, work: () => Promise<unknown>): Promise<void> {
  await client.query("begin");
  await work();
  await client.query("commit");
}

function worksOf(guarded: pg.Client, plain: pg.Client): readonly Work[] {
  const both = (query: pg.QueryConfig) => ({
    without: () => plain.query(query),
    row: () => guarded.query(query),
  });
  const write = (client: pg.Client) => () => inTransaction(client, () => client.query(insertOne()));
  return [
    {
      name: "insert, autocommit",
      unit: "row",
      perRound: 1,
      rounds: 200,
      round: { ...both(insertOne()), observed: () => guarded.query(insertUnknown) },
    },
    { name: "update, autocommit", unit: "row", perRound: 1, rounds: 200, round: both(updateOne) },
    {
      name: "begin, (enter,) insert, commit",
      unit: "transaction",
      perRound: 1,
      rounds: 100,
      round: {
        without: write(plain),
        row: write(guarded),
        strict: () =>
          inTransaction(guarded, async () => {
            await guarded.query(enter);
            await guarded.query(insertOne());
          }),
      },
    },
    {
      name: "insert of 2000 rows at once",
      unit: "row",
      perRound: 2000,
      rounds: 1,
      round: {
        without: () => plain.query(insertMany("t1")),
        row: () => guarded.query(insertMany("t1")),
        observed: () => guarded.query(insertMany("nobody")),
        strict: () =>
          inTransaction(guarded, async () => {
            await guarded.query(enter);
            await guarded.query(insertMany("t1"));
          }),
      },
    },
    {
      name: "read one row by key",
      unit: "query",
      perRound: 1,
      rounds: 200,
      round: { ...both(readOne), observed: () => guarded.query(readOne) },
    },
    {
      name: `read a tenant's ${rowsPerTenant} rows`,
      unit: "query",
      perRound: 1,
      rounds: 100,
      round: both(readTenant),
    },
    {
      name: `read all ${tenants * rowsPerTenant} rows`,
      unit: "row",
      perRound: tenants * rowsPerTenant,
      rounds: 1,
      round: both(readAll),
    },
  ];
}

type Times = Record<Variant, number[]>;
/** Microseconds that the server has spent on this connection so far. */
type Meter = () => number;

async function measureAll(guarded: CellStore, plain: CellStore): Promise<void> {
  const meters = { guarded: await meterOf(guarded.app), plain: await meterOf(plain.app) };
  const lines: string[][] = [
    ["", "per", "without", "row", "ratio", "strict", "ratio", "observed", "ratio"],
  ];
  for (const work of worksOf(guarded.app, plain.app)) {
    const times: Times = { without: [], row: [], strict: [], observed: [] };
    for (let batch = 0; batch < batches; batch += 1) {
      await measureBatch(work, times, guarded, meters);
      for (const { admin } of [guarded, plain]) await removeNew(admin);
    }
    lines.push(lineOf(work, times));
  }
  const what = meters.plain === wallClock ? "of time" : "of the server's processor time";
  console.log(
    `SQL pack, ${tenants} active keys: medians of ${batches} batches, microseconds ${what}\n`,
  );
  console.log(asTable(lines));
}

async function measureBatch(
  work: Work,
  times: Times,
  guarded: CellStore,
  meters: { readonly guarded: Meter; readonly plain: Meter },
): Promise<void> {
  for (const variant of variants) {
    const round = work.round[variant];
    if (round === undefined) continue;
    await enterStage(guarded.agent, variant === "observed" ? "observe" : "enforce");
    await guarded.setMode(variant === "strict" ? "strict" : "row");
    const meter = variant === "without" ? meters.plain : meters.guarded;
    await round(); // Plans and caches: not what is measured.
    const start = meter();
    for (let count = 0; count < work.rounds; count += 1) await round();
    times[variant].push((meter() - start) / work.rounds / work.perRound);
  }
}

const wallClock: Meter = () => performance.now() * 1000;

async function meterOf(client: pg.Client): Promise<Meter> {
  const { rows } = await client.query("select pg_backend_pid() as pid");
  const path = `/proc/${rows[0].pid}/schedstat`;
  const processor: Meter = () => Number(readFileSync(path, "utf8").split(" ")[0]) / 1000;
  try {
    processor();
    return processor;
  } catch {
    return wallClock; // Another system, or a server elsewhere.
  }
}

/** Past the guard, as only a superuser can: tables stay as large as they were. */
async function removeNew(admin: pg.Client): Promise<void> {
  await admin.query("set session_replication_role = replica");
  await admin.query("delete from orders where id < 10000000");
  await admin.query("reset session_replication_role");
  await admin.query("vacuum orders");
}

function lineOf(work: Work, times: Times): string[] {
  const without = median(times.without);
  const show = (values: readonly number[]): [string, string] => {
    if (values.length === 0) return ["-", "-"];
    const value = median(values);
    return [format(value), `x${(value / without).toFixed(2)}`];
  };
  return [
    work.name,
    work.unit,
    format(without),
    ...show(times.row),
    ...show(times.strict),
    ...show(times.observed),
  ];
}

const format = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function asTable(lines: readonly (readonly string[])[]): string {
  const width = (column: number) => Math.max(...lines.map((line) => (line[column] ?? "").length));
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(width(column)) : cell.padStart(width(column));
  return lines.map((line) => line.map(pad).join("  ")).join("\n");
}
