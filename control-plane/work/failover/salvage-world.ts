/** What the executor of salvage, apply and wipe works with, and the homes of rows. */
import type pg from "pg";
import { cellIdSchema, parseTenantId } from "../../../contract/ids.ts";
import { tenantKey } from "../../../contract/placement-key.ts";
import { openMover } from "../../../moving/connection.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Random } from "../../../runtime/random.ts";
import type { StandbyProvider } from "../../../standby/ports.ts";
import type { Database, Reader } from "../../store/database.ts";
import { cellStores } from "../../store/fleet-store.ts";
import { listKeyspaces, requireKeyspace } from "../../store/keyspaces.ts";
import { findContainer, findPlacement, type PlacementRow } from "../../store/placements.ts";
import type { ResolveSecret } from "../moving/task.ts";
import type { Provider } from "../provider.ts";
import { keyspacesOfTables, readShape, type TableShape } from "./salvage-rows.ts";

export type SalvageEvents = {
  "salvage.ended": { op: string; kind: string; cell: string; headline: string };
  "salvage.failing": { op: string; error: string };
};

export type SalvageWorld = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<SalvageEvents>;
  readonly resolve: ResolveSecret;
  readonly standby: StandbyProvider;
  readonly provider: Provider;
};

/** Where a row belongs now. */
export type Home = {
  readonly key: string;
  readonly epoch: number;
  readonly client: pg.Client;
  readonly shape: TableShape;
};

export type Homes = {
  /** A text says why there is none. */
  readonly of: (row: {
    readonly store: string;
    readonly table: string;
    readonly tenant: string;
  }) => Promise<Home | string>;
  readonly close: () => Promise<void>;
};

const served: ReadonlySet<string> = new Set(["active", "hold", "pending", "suspended"]);

/** Connections are kept until `close`; each store of each cell is asked for its tables once. */
export function openHomes(world: Pick<SalvageWorld, "database" | "resolve">): Homes {
  const { database, resolve } = world;
  const clients = new Map<string, Promise<OpenStore>>();
  const shapes = new Map<string, Promise<TableShape | undefined>>();

  function storeOf(cell: string, store: string): Promise<OpenStore> {
    const name = `${cell}/${store}`;
    const opened = clients.get(name) ?? openStore(database.read, resolve, cell, store);
    clients.set(name, opened);
    return opened;
  }

  function shapeOf(name: string, client: pg.Client, table: string) {
    const shape = shapes.get(name) ?? readShape(client, table);
    shapes.set(name, shape);
    return shape;
  }

  return {
    of: async ({ store, table, tenant }) => {
      const placed = await placementsOf(database.read, tenant);
      let why = "no cell has a tenant of this name";
      for (const row of placed) {
        if (!served.has(row.state)) {
          why = `${row.key} is ${row.state}: nobody serves it`;
          continue;
        }
        const { client, keyspaces } = await storeOf(row.cell, store);
        why = `${table} is no table of tenants in ${row.cell}`;
        // Two keyspaces may have a tenant of one name: the table says which is meant.
        if (keyspaces.get(table) !== row.keyspace) continue;
        const shape = await shapeOf(`${row.cell}/${store}/${table}`, client, table);
        if (shape !== undefined) return { key: row.key, epoch: row.epoch, client, shape };
      }
      return why;
    },
    close: async () => {
      const all = await Promise.allSettled(clients.values());
      for (const one of all) {
        if (one.status === "fulfilled") await one.value.client.end().catch(() => {}); // The server may have.
      }
    },
  };
}

type OpenStore = { readonly client: pg.Client; readonly keyspaces: ReadonlyMap<string, string> };

async function openStore(
  reader: Reader,
  resolve: ResolveSecret,
  cell: string,
  store: string,
): Promise<OpenStore> {
  const mover = (await cellStores(reader, cell))[store]?.mover;
  if (mover === undefined) throw new Error(`${cell} names no login of the mover for ${store}`);
  const login = { cell: cellIdSchema.parse(cell), store, url: await resolve(mover) };
  const client = await openMover(login, { name: "cellfleet salvage" });
  return { client, keyspaces: await keyspacesOfTables(client) };
}

/** In each keyspace that has it: of the tenant's own key, or of its container. */
async function placementsOf(reader: Reader, raw: string): Promise<readonly PlacementRow[]> {
  const tenant = parseTenantId(raw);
  if (tenant === undefined) return [];
  const found: PlacementRow[] = [];
  for (const { name } of await listKeyspaces(reader)) {
    const keyspace = await requireKeyspace(reader, name);
    const row =
      (await alive(findPlacement(reader, tenantKey(name, tenant)))) ??
      (await alive(findContainer(reader, keyspace, name, tenant)));
    if (row !== undefined) found.push(row);
  }
  return found;
}

async function alive(found: Promise<PlacementRow | undefined>): Promise<PlacementRow | undefined> {
  const row = await found;
  return row === undefined || row.deleted ? undefined : row;
}
