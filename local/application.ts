/**
 * What one cell's application consists of, as this room sees it: the databases it wants, and the
 * processes that run beside them. The sample application is one; what a `cellfleet.yaml` says is another.
 */
import type pg from "pg";
import type { Manifest } from "../cell/store/manifest.ts";
import type { CellId } from "../contract/ids.ts";
import type { Program } from "./programs.ts";

/** One database of a cell. */
export type LocalStore = {
  readonly name: string;
  readonly database: string;
  readonly keyColumn: string;
  readonly manifest: Manifest;
  /** All that shapes what `migrate` makes, in text. */
  readonly content: string;
  /** What `migrate` reads is not known: it is run again at every start. */
  readonly everyStart: boolean;
  /** Makes the tables as their owner, or brings them up to date. Repeatable. */
  readonly migrate: (place: MigratePlace) => Promise<void>;
};

export type MigratePlace = {
  /** As superuser, in the store's database. */
  readonly client: pg.Client;
  /** As the tables' owner; only of a store whose owner logs in. */
  readonly ownerUrl: string;
  /** Whose database it is, for a log file's name: `cell-01`, `template`. */
  readonly label: string;
};

export type AppProcess = {
  /** In the unit's name (`cell-01-web-1`) and in the note of ports. */
  readonly name: string;
  readonly service: string;
  /** Of a service with a port. */
  readonly listens: boolean;
  readonly program: (place: ProcessPlace) => Program;
};

export type ProcessPlace = {
  readonly cell: CellId;
  /** 0 when it does not listen. */
  readonly port: number;
  /** The agent's admin port: /resolve, /owned. */
  readonly agentUrl: string;
  /** As the application's role, by store. */
  readonly databaseUrls: ReadonlyMap<string, string>;
};

export type LocalApplication = {
  readonly name: string;
  /** At least one; the first is the one that everybody knows as `default`. */
  readonly stores: readonly [LocalStore, ...LocalStore[]];
  readonly processes: readonly AppProcess[];
  /** Path asked by the agent, per service that listens; undefined: the agent's default. */
  readonly services: ReadonlyMap<string, string | undefined>;
  /** The tables' owner logs in, as a team's own migration tool does. */
  readonly ownerLogsIn: boolean;
};

/**
 * The stores that the cell's agent looks after, under guard, lease and ownership: the first, which a cell
 * cannot be without, and every other one that has tables of tenants.
 */
export const guardedStores = ({ stores }: LocalApplication): readonly LocalStore[] =>
  stores.filter((store, index) => index === 0 || hasTenants(store));

export const hasTenants = ({ manifest }: LocalStore): boolean =>
  manifest.tables.some((table) => table.class === "tenant");
