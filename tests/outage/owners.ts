/** Who owns which key, as every database of a cell or an annex on this machine says it. */
import pg from "pg";
import type { TestFleet } from "../fleet.ts";
import { superuserUrls } from "../moves/cell-databases.ts";

export type Owner = {
  /** Cell, and database in it. */
  readonly where: string;
  readonly epoch: number;
  /** Can it write now: is there a live lease? */
  readonly leased: boolean;
};
const answersWithinMs = 1000;

export type Owners = ReadonlyMap<string, readonly Owner[]>;

/** Of each key, the databases in which it is active. Servers that do not run, or stand still, own nothing. */
export async function ownersIn(
  fleet: Pick<TestFleet, "dataDir" | "endpoints">,
  cells: readonly string[],
): Promise<Owners> {
  const owners = new Map<string, Owner[]>();
  for (const [cell, url] of await superuserUrls(fleet)) {
    if (!cells.includes(cell)) continue;
    for (const name of (await answered(url, databasesOf)) ?? []) {
      const at = new URL(url);
      at.pathname = `/${name}`;
      for (const { key, epoch, leased } of (await answered(at.href, activeOf)) ?? []) {
        const found = { where: `${cell}/${name}`, epoch: Number(epoch), leased };
        owners.set(key, [...(owners.get(key) ?? []), found]);
      }
    }
  }
  return owners;
}

async function answered<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T | undefined> {
  const client = new pg.Client({
    ...{ connectionString: url, connectionTimeoutMillis: answersWithinMs },
    query_timeout: answersWithinMs,
  });
  client.on("error", () => {}); // The query under way has it too.
  try {
    await client.connect();
    return await work(client);
  } catch {
    return undefined;
  } finally {
    void client.end().catch(() => {}); // A server that stands still does not take leave.
  }
}

/** Keys that two databases could write to at this moment. */
export const splitsOf = (owners: Owners): string[] =>
  [...owners].flatMap(([key, all]) => {
    const able = all.filter(({ leased }) => leased);
    const text = able.map(({ where, epoch }) => `${where} at ${epoch}`).join(", ");
    return able.length > 1 ? [`${key}: ${text}`] : [];
  });

async function databasesOf(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    "select datname as name from pg_database where not datistemplate and datallowconn",
  );
  return rows.map(({ name }) => name);
}

async function activeOf(client: pg.Client) {
  const { rows: schema } = await client.query("select to_regclass('cellfleet.ownership') as at");
  if (schema[0]?.at === null) return [];
  const { rows } = await client.query<{ key: string; epoch: string; leased: boolean }>(
    `select key, epoch::text, cellfleet.lease_live() as leased
       from cellfleet.ownership where state = 'active'`,
  );
  return rows;
}
