/**
 * An origin and annexes for tests of standbys: real databases on two servers, as the role that moves finds
 * them, with a table of everybody (`currencies`) that every database was migrated with.
 */
import type { Manifest } from "../cell/store/manifest.ts";
import { recordManifest } from "../cell/store/table-classes.ts";
import { cellIdSchema } from "../contract/ids.ts";
import { bucketOf, parsePlacementKey } from "../contract/placement-key.ts";
import { routedKeyspaceSchema } from "../contract/routing-table.ts";
import { eventually } from "../moving/streams.fixture.ts";
import {
  createStore,
  guardedTables,
  startTwoCells,
  type TwoCells,
} from "../moving/two-cells.fixture.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { type CellStore, storeRoles } from "../tests/cell-store.ts";
import { createLogicalStandby } from "./logical.ts";
import type { BucketRange, StandbyPair, StandbyProvider } from "./ports.ts";

export const provider: StandbyProvider = createLogicalStandby({ clock: systemClock });
export const allBuckets: BucketRange = { lo: 0, hi: 255 };

const keyspace = { name: "default", strategy: "directory", guardMode: "row" } as const;

export type StandbyCells = TwoCells & {
  /** The table of everybody, for a cell that has none. */
  readonly migrate: (store: CellStore) => Promise<void>;
  /** On the second server, empty, as the provider of cells would make it. */
  readonly annex: (name: string, on?: CellStore) => Promise<CellStore>;
  readonly pair: (annex: CellStore, buckets?: BucketRange, origin?: CellStore) => StandbyPair;
  /** Of a tenant of the keyspace. */
  readonly bucket: (tenant: string) => number;
  /** Active in the origin, with so many times six rows. */
  readonly tenant: (name: string, times?: number) => Promise<void>;
  /** As the origin's agent does it. */
  readonly beat: (origin?: CellStore) => Promise<number>;
  /** Everything that the origin committed before is applied when this resolves. */
  readonly arrived: (annex: CellStore, origin?: CellStore) => Promise<void>;
  readonly inStep: (pair: StandbyPair) => Promise<void>;
};

const manifest: Manifest = {
  store: "default",
  keyColumn: "tenant_id",
  keyspace: "default",
  tables: [
    ...guardedTables.map((table) => ({
      ...{ schema: "public", table, class: "tenant" as const },
      ...{ keyColumn: "tenant_id", keyspace: "default" },
    })),
    { schema: "public", table: "currencies", class: "reference" as const },
  ],
};

async function addCurrencies(store: CellStore): Promise<void> {
  await store.owner(`create table currencies (
      code text primary key, name text not null, no serial);
    insert into currencies (code, name) values ('EUR', 'from the migration'), ('SEK', 'from the migration');
    grant select, insert, update, delete on currencies to ${storeRoles.appRole};
    grant usage on sequence currencies_no_seq to ${storeRoles.appRole}`);
  await recordManifest(store.admin, manifest);
}

export async function startStandbyCells(): Promise<StandbyCells> {
  const cells = await startTwoCells({ servers: 2 });
  const annexes: CellStore[] = [];
  await addCurrencies(cells.a);
  let beats = 0;
  const beat = async (origin: CellStore = cells.a) => {
    beats += 1;
    await origin.admin.query(
      `insert into cellfleet.heartbeat as h (origin, beat, at) values ($1, $2, clock_timestamp())
       on conflict (origin) do update set beat = excluded.beat, at = excluded.at`,
      [origin.name, beats],
    );
    return beats;
  };
  return {
    ...cells,
    beat,
    migrate: addCurrencies,
    annex: async (name, on = cells.b) => {
      const store = await createStore(cells.serverOf(on), name, keyspace);
      await addCurrencies(store);
      annexes.push(store);
      return store;
    },
    pair: (annex, buckets = allBuckets, origin = cells.a) => ({
      annex: cellIdSchema.parse(annex.name),
      origin: cellIdSchema.parse(origin.name),
      host: cellIdSchema.parse("cell-b"),
      ...{ kind: "logical", buckets },
      keyspaces: [routedKeyspaceSchema.parse(keyspace)],
      stores: [{ name: "main", origin: cells.login(origin), annex: cells.login(annex) }],
    }),
    bucket: (tenant) =>
      bucketOf(must(parsePlacementKey(`default/tenant/${tenant}`), tenant), keyspace),
    tenant: async (name, times = 3) => {
      await cells.own(cells.a, `default/tenant/${name}`, "active");
      for (let row = 0; row < times; row += 1) await cells.write(cells.a.app, name);
    },
    arrived: async (annex, origin = cells.a) => {
      const sent = await beat(origin);
      await eventually(`heartbeat ${sent} of ${origin.name} in ${annex.name}`, async () => {
        const { rowCount } = await annex.admin.query(
          "select from cellfleet.heartbeat where origin = $1 and beat >= $2",
          [origin.name, sent],
        );
        return rowCount === 1;
      });
    },
    inStep: async (pair) => {
      const origin = pair.origin === cells.b.name ? cells.b : cells.a;
      await eventually(`${pair.annex} is in step`, async () => {
        // Else PostgreSQL, with nothing to send, lets half a minute pass before it says that a copy is done.
        await beat(origin);
        const { phase, reason } = await provider.status(pair);
        if (phase === "stopped") throw new Error(reason);
        return phase === "streaming";
      });
    },
    close: async () => {
      await Promise.all(annexes.map((annex) => annex.close()));
      await cells.close();
    },
  };
}
