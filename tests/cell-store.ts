/**
 * A cell's store for tests: a database with the SQL pack, the orders table of the sample application
 * and its three roles, on a real PostgreSQL.
 *
 * Several stores may lie on one server; the roles are the server's. Connections are closed by
 * `close`, those that a test opened through `connect` too.
 */
import pg from "pg";
import { readFacts, setStage } from "../cell/store/facts.ts";
import { installPack } from "../cell/store/install.ts";
import { setLease } from "../cell/store/lease.ts";
import { letMove } from "../cell/store/let-move.ts";
import { protectTable } from "../cell/store/protect.ts";
import type { Queryable } from "../cell/store/queryable.ts";
import type { OwnershipState } from "../contract/cell-protocol.ts";
import type { CellStage, GuardMode } from "../contract/routing-table.ts";
import type { TestPostgres } from "./postgres.ts";

export const storeRoles = {
  appRole: "shop_app",
  appOwnerRole: "shop_owner",
  agentRole: "shop_agent",
  moverRole: "shop_mover",
} as const;

export const isolationLevels = ["read committed", "repeatable read", "serializable"] as const;
export type IsolationLevel = (typeof isolationLevels)[number];

export type CellStore = {
  readonly name: string;
  /** As the role that moves tenants. */
  readonly moverUrl: string;
  readonly admin: pg.Client;
  readonly agent: pg.Client;
  readonly app: pg.Client;
  /** A further connection, by default as the application. */
  readonly connect: (role?: string) => Promise<pg.Client>;
  readonly owner: (text: string) => Promise<void>;
  /** One key, through `apply_ownership`; each call is a newer command than the last. */
  readonly own: (key: string, state: OwnershipState, epoch?: number) => Promise<string>;
  /** Grants a lease of 20 minutes with the next number. */
  readonly grantLease: (ttlMs?: number) => Promise<string>;
  readonly setMode: (mode: GuardMode) => Promise<void>;
  readonly close: () => Promise<void>;
};

const ordersTable = `create table public.orders (
  id bigserial not null, tenant_id text not null, item text not null, quantity integer not null,
  created_at timestamptz not null default now(), primary key (tenant_id, id))`;

/** Connections that a restart of the server may cut report it as an event. */
export async function openClient(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  return client;
}

export async function createCellStore(
  server: TestPostgres,
  name: string,
  options: { readonly mode?: GuardMode; readonly keyspaces?: readonly unknown[] } = {},
): Promise<CellStore> {
  const admin = await openClient(await server.createDatabase(name));
  await installPack(admin, { ...storeRoles, cellId: name });
  for (const role of [storeRoles.appRole, storeRoles.agentRole, storeRoles.moverRole]) {
    await admin.query(`alter role ${role} login password '${server.password}'`);
  }
  await letMove(admin, storeRoles.moverRole, name);
  await admin.query(`grant create on schema public to ${storeRoles.appOwnerRole}`);
  const opened: pg.Client[] = [admin];
  const connect = async (role: string = storeRoles.appRole) => {
    const client = await openClient(server.url(name, role));
    opened.push(client);
    return client;
  };
  const owner = async (text: string) => {
    await admin.query(`set role ${storeRoles.appOwnerRole}`);
    await admin.query(text).finally(() => admin.query("reset role"));
  };
  await owner(ordersTable);
  await owner(`grant select, insert, update, delete, truncate on orders to ${storeRoles.appRole}`);
  await protectTable(admin, {
    schema: "public",
    table: "orders",
    keyColumn: "tenant_id",
    keyspace: "default",
  });
  const agent = await connect(storeRoles.agentRole);
  const setMode = async (guardMode: GuardMode) => {
    const keyspaces = options.keyspaces ?? [{ name: "default", strategy: "directory", guardMode }];
    await agent.query("select cellfleet.set_keyspaces($1)", [JSON.stringify(keyspaces)]);
  };
  await setMode(options.mode ?? "row");
  await agent.query("select cellfleet.add_id_range('public.orders_id_seq', 1, 1000000)");
  let attempt = 0;
  return {
    name,
    moverUrl: server.url(name, storeRoles.moverRole),
    admin,
    agent,
    app: await connect(),
    connect,
    owner,
    own: async (key, state, epoch = 1) => {
      attempt += 1;
      const change = { key, state, epoch, op: "op_test", attempt };
      const { rows } = await agent.query(
        "select outcome from cellfleet.apply_ownership($1, null, 5000)",
        [JSON.stringify([change])],
      );
      return String(rows[0]?.outcome);
    },
    grantLease: async (ttlMs = 1_200_000) => {
      const { grant, clock, boot } = await readFacts(agent);
      return setLease(agent, { grant: grant + 1, clock, ttlMs, boot, holder: "test" });
    },
    setMode,
    close: async () => {
      await Promise.all(opened.map((client) => client.end().catch(() => {})));
    },
  };
}

/** The next change of stage, as the control plane would count it. */
export async function enterStage(
  client: Queryable,
  stage: CellStage,
  lockTimeoutMs?: number,
): Promise<void> {
  const { stageNumber } = await readFacts(client);
  await setStage(client, { stage, number: stageNumber + 1 }, lockTimeoutMs);
}

/** The SQLSTATE with which the work fails; throws if it does not fail. */
export async function refusalOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error && "code" in error) return String(error.code);
    throw error;
  }
  throw new Error("expected PostgreSQL to refuse");
}
