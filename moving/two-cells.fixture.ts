/**
 * Two cells for tests of moves: a store each, on one server or on two, with guarded tables of several
 * kinds, leases that hold, and the role that moves.
 *
 * Tables (all guarded, key column `tenant_id`): `orders` (ids from a sequence), `lines` (refers to orders,
 * a generated column), `notes` (uuid, arrays), `events` (partitioned).
 */
import type pg from "pg";
import type { KeyspaceInCell } from "../cell/store/ownership.ts";
import { protectTable } from "../cell/store/protect.ts";
import type { OwnershipState } from "../contract/cell-protocol.ts";
import { cellIdSchema, epochSchema, opIdSchema, tenantIdSchema } from "../contract/ids.ts";
import { placementKeySchema } from "../contract/placement-key.ts";
import { type RoutedKeyspace, routedKeyspaceSchema } from "../contract/routing-table.ts";
import { type CellStore, createCellStore, storeRoles } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import type { MoveTask, StoreLogin } from "./ports.ts";

export const guardedTables = ["orders", "lines", "notes", "events"] as const;

const tables = `
  create table lines (
    tenant_id text not null, order_id bigint not null, no integer not null, price numeric not null,
    total numeric generated always as (price * 2) stored,
    primary key (tenant_id, order_id, no),
    foreign key (tenant_id, order_id) references orders (tenant_id, id));
  create table notes (
    tenant_id text not null, id uuid not null default gen_random_uuid(), body text not null,
    tags text[] not null default '{}', made_at timestamptz not null default now(),
    primary key (tenant_id, id));
  create table events (
    tenant_id text not null, id bigint generated always as identity, day date not null, body jsonb,
    primary key (tenant_id, id, day)) partition by range (day);
  create table events_old partition of events for values from (minvalue) to ('2026-01-01');
  create table events_new partition of events for values from ('2026-01-01') to (maxvalue);
  grant select, insert, update, delete on lines, notes, events to ${storeRoles.appRole};`;

export type TaskOptions = {
  /** Default 1. Later moves of a test need greater ones. */
  readonly number?: number;
  readonly attempt?: number;
  /** Default: the tenant `acme`. */
  readonly tenants?: readonly string[];
  /** Instead of tenants. */
  readonly keys?: ReadonlyArray<{
    readonly key: string;
    readonly until?: string | null;
    readonly overrides?: readonly string[];
  }>;
  /** At the source. Default 1. */
  readonly epoch?: number;
  /** From b to a. */
  readonly back?: boolean;
  /** Number of the move that is taken back. */
  readonly reverses?: number;
};

export type TwoCells = {
  readonly a: CellStore;
  readonly b: CellStore;
  readonly serverOf: (store: CellStore) => TestPostgres;
  readonly login: (store: CellStore) => StoreLogin;
  readonly task: (options?: TaskOptions) => MoveTask;
  /** Of a key, in one cell, as the control plane would say it before any move. */
  readonly own: (
    store: CellStore,
    key: string,
    state: OwnershipState,
    epoch?: number,
  ) => Promise<void>;
  /** One row in `orders` (quantity as given), two `lines`, a note and two events. */
  readonly write: (client: pg.Client, tenant: string, quantity?: number) => Promise<void>;
  /** Everything of a tenant, per table, in one order: equal texts are equal rows. As the superuser. */
  readonly rowsOf: (store: CellStore, tenant: string) => Promise<Readonly<Record<string, string>>>;
  readonly countOf: (store: CellStore, tenant: string) => Promise<number>;
  readonly close: () => Promise<void>;
};

const defaultKeyspaceOfTests = {
  name: "default",
  strategy: "directory",
  guardMode: "row",
} as const;

export async function startTwoCells(
  options: {
    /** A server of its own for each cell, so that one can die. */
    readonly servers?: 1 | 2;
    readonly keyspace?: KeyspaceInCell;
  } = {},
): Promise<TwoCells> {
  const keyspace = options.keyspace ?? defaultKeyspaceOfTests;
  const first = await startTestPostgres();
  const second = options.servers === 2 ? await startTestPostgres() : first;
  const a = await createStore(first, "cell-a", keyspace);
  const b = await createStore(second, "cell-b", keyspace);
  const serverOf = (store: CellStore) => (store === a ? first : second);
  const login = (store: CellStore): StoreLogin => ({
    cell: cellIdSchema.parse(store.name),
    store: "main",
    url: store.moverUrl,
  });
  let attempt = 0;
  return {
    a,
    b,
    serverOf,
    login,
    task: (wanted = {}) =>
      taskOf(
        wanted,
        routedKeyspaceSchema.parse(keyspace),
        wanted.back === true ? [b, a] : [a, b],
        login,
      ),
    own: async (store, key, state, epoch = 1) => {
      attempt += 1;
      // Smaller than the ids of moves, as an earlier operation's would be.
      const change = { key, state, epoch, op: "op_0createdkey", attempt };
      const { rows } = await store.agent.query(
        "select outcome from cellfleet.apply_ownership($1, null, 5000)",
        [JSON.stringify([change])],
      );
      if (rows[0]?.outcome !== "applied") throw new Error(`${key}: ${rows[0]?.outcome}`);
    },
    write: writeRows,
    rowsOf: async ({ admin }, tenant) => {
      const texts: Record<string, string> = {};
      for (const table of guardedTables) {
        const { rows } = await admin.query<{ rows: string }>(
          `select coalesce(string_agg(t::text, e'\n' order by t::text collate "C"), '') as rows
             from ${table} t where tenant_id = $1`,
          [tenant],
        );
        texts[table] = rows[0]?.rows ?? "";
      }
      return texts;
    },
    countOf: async ({ admin }, tenant) => {
      const parts = guardedTables.map(
        (table) => `(select count(*) from ${table} where tenant_id = $1)`,
      );
      const { rows } = await admin.query(`select (${parts.join(" + ")})::integer as count`, [
        tenant,
      ]);
      return Number(rows[0]?.count);
    },
    close: async () => {
      await Promise.all([a.close(), b.close()]);
      await first.stop();
      if (second !== first) await second.stop();
    },
  };
}

/** A further one: its id ranges are those of `cell-b`. */
export async function createStore(
  server: TestPostgres,
  name: string,
  keyspace: KeyspaceInCell,
): Promise<CellStore> {
  const store = await createCellStore(server, name, { keyspaces: [keyspace] });
  await store.owner(tables);
  for (const table of guardedTables) {
    await protectTable(store.admin, {
      schema: "public",
      table,
      keyColumn: "tenant_id",
      keyspace: keyspace.name,
    });
  }
  // Ids of the two cells never meet, as the control plane would see to it.
  const first = name === "cell-a" ? 2_000_001 : 4_000_001;
  await store.admin.query("delete from cellfleet.id_range");
  for (const sequence of ["public.orders_id_seq", "public.events_id_seq"]) {
    await store.agent.query("select cellfleet.add_id_range($1, $2, $3)", [
      sequence,
      first,
      first + 999_999,
    ]);
  }
  await store.grantLease();
  return store;
}

async function writeRows(client: pg.Client, tenant: string, quantity = 1): Promise<void> {
  await client.query(
    `with o as (insert into orders (tenant_id, item, quantity) values ($1, 'tea', $2) returning id),
          n as (insert into notes (tenant_id, body, tags) values ($1, 'short', array['x', 'y z'])),
          e as (insert into events (tenant_id, day, body)
                values ($1, '2025-06-01', '{"n": 1}'), ($1, '2026-06-01', null))
     insert into lines (tenant_id, order_id, no, price) select $1, o.id, g, g from o, generate_series(1, 2) g`,
    [tenant, quantity],
  );
}

function taskOf(
  options: TaskOptions,
  keyspace: RoutedKeyspace,
  [source, target]: readonly [CellStore, CellStore],
  login: (store: CellStore) => StoreLogin,
): MoveTask {
  const keys =
    options.keys ??
    (options.tenants ?? ["acme"]).map((tenant) => ({ key: `${keyspace.name}/tenant/${tenant}` }));
  const opOf = (number: number) => opIdSchema.parse(`op_1move${String(number).padStart(6, "0")}`);
  return {
    op: opOf(options.number ?? 1),
    attempt: options.attempt ?? 1,
    keyspace,
    keys: keys.map((moving: NonNullable<TaskOptions["keys"]>[number]) => ({
      key: placementKeySchema.parse(moving.key),
      epoch: epochSchema.parse(options.epoch ?? 1),
      until: moving.until ?? null,
      overrides: (moving.overrides ?? []).map((tenant) => tenantIdSchema.parse(tenant)),
    })),
    source: cellIdSchema.parse(source.name),
    target: cellIdSchema.parse(target.name),
    stores: [{ name: "main", source: login(source), target: login(target) }],
    external: [],
    reverses: options.reverses === undefined ? null : opOf(options.reverses),
  };
}
