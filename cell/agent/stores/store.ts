/**
 * One store (database) of the cell as an agent keeps it: its connections, its lease, the ownership and
 * the stage that it says, the purges that run in it, and what is done in it with an answer of the
 * control plane.
 *
 * Always true: nothing here knows of another store; what only all of them together may say is made in
 * `stores.ts`.
 */
import pg from "pg";
import type { CellId } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Lifecycle } from "../../../runtime/lifecycle.ts";
import { letPrepare } from "../../../runtime/preparing.ts";
import type { Random } from "../../../runtime/random.ts";
import { CoverageLook } from "../coverage-look.ts";
import { DatabaseSession } from "../database-session.ts";
import type { AgentLog } from "../events.ts";
import type { Gate } from "../gate.ts";
import { createGateOrders } from "../gate-orders.ts";
import { LeaseKeeper } from "../lease-keeper.ts";
import { createObedience, type Obey } from "../obedience.ts";
import { OwnershipCache } from "../ownership-cache.ts";
import { Purger } from "../purger.ts";
import { StageKeeper } from "../stage-keeper.ts";
import type { WouldRefuse } from "../would-refuse.ts";

export type Store = {
  /** Empty: the first one, whose sequences and tables are told without a prefix. */
  readonly name: string;
  readonly pool: pg.Pool;
  readonly session: DatabaseSession;
  readonly lease: LeaseKeeper;
  readonly cache: OwnershipCache;
  readonly stage: StageKeeper;
  readonly coverage: CoverageLook;
  readonly purger: Purger;
  readonly obey: Obey;
};

export type StoreOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly instance: string;
  readonly name: string;
  readonly databaseUrl: string;
  readonly gate: Gate;
  /** Agents of a cell tell each other their counts in one store, not in each. */
  readonly wouldRefuse: WouldRefuse | undefined;
  /** May this agent hold the lock of this store, given what it has of the others? */
  readonly mayLead: () => boolean;
  /** Of the whole cell. */
  readonly isPrimary: () => boolean;
  /** The control plane should hear of something now. */
  readonly onNews: () => void;
  readonly onStage: () => void;
  readonly onOwnership: () => void;
};

const statementMs = 30_000;
const connectionsMax = 3;

export function openStore(options: StoreOptions, lifecycle: Lifecycle): Store {
  const { clock, random, name, cell, instance, databaseUrl, isPrimary, onNews } = options;
  const log = name === "" ? options.log : ofStore(options.log, name);
  const titled = (part: string) => (name === "" ? part : `${part} of ${name}`);
  const pool = createPool(databaseUrl);
  lifecycle.onClose(titled("pool"), () => pool.end());
  const cache = new OwnershipCache();
  const lease = new LeaseKeeper(clock, log);
  const stage = new StageKeeper(options.onStage);
  const session = new DatabaseSession({
    ...{ clock, random, log, instance, cell, cache, lease, stage, databaseUrl, onNews },
    gates: createGateOrders(options.gate, instance, name),
    onOwnership: options.onOwnership,
    wouldRefuse: options.wouldRefuse,
    flag: name === "" ? "--database-url" : `--store ${name}=`,
    mayLead: options.mayLead,
  });
  lifecycle.onClose(titled("database session"), () => session.close());
  const purger = new Purger({
    ...{ clock, random, log, databaseUrl, isPrimary },
    onDone: onNews,
  });
  lifecycle.onClose(titled("purger"), () => purger.close());
  const obey = createObedience({
    ...{ pool, log, lease, instance, purger, isPrimary },
    onStageSet: () => session.look(),
  });
  const coverage = new CoverageLook({ clock, log, pool });
  return { name, pool, session, lease, cache, stage, coverage, purger, obey };
}

function createPool(databaseUrl: string): pg.Pool {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: connectionsMax,
    connectionTimeoutMillis: 3000,
    idleTimeoutMillis: 30_000,
    statement_timeout: statementMs,
    query_timeout: statementMs + 5000,
    application_name: "cellfleet-agent",
  });
  // The session says when the database is lost; here it must only not end the process.
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("error", () => {});
    letPrepare(client);
  });
  return pool;
}

/** The same events, with the store that they are about. */
const ofStore = (log: AgentLog, store: string): AgentLog => ({
  ...log,
  event: (name, fields, level) => log.event(name, { ...fields, store }, level),
});
