/**
 * A physical standby for tests: a real second server that follows the origin's, made as this machine's
 * provider makes it, and a desk for its agent on a third.
 */
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type pg from "pg";
import { serverSlot } from "../contract/annex.ts";
import { cellIdSchema } from "../contract/ids.ts";
import { letStreamsGo, settleStore } from "../local/annex-settle.ts";
import { findPostgres } from "../local/postgres/binaries.ts";
import { copyServer, endFollowing } from "../local/postgres/copy-server.ts";
import {
  type PostgresServer,
  type StopMode,
  startServer,
  urlFor,
} from "../local/postgres/server.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { type CellStore, openClient, storeRoles } from "../tests/cell-store.ts";
import { createPhysicalStandby } from "./physical.ts";
import type { StandbyPair, StandbyProvider } from "./ports.ts";
import type { StandbyCells } from "./standby.fixture.ts";

export type PhysicalCopy = {
  readonly pair: StandbyPair;
  readonly provider: StandbyProvider;
  /** Where the annex's agent stands until the takeover. */
  readonly desk: CellStore;
  /** In the standby's server, in the database of the origin's only store. */
  readonly connect: (role?: string) => Promise<pg.Client>;
  readonly halt: (mode: StopMode) => Promise<void>;
  readonly start: () => Promise<void>;
  /** How often the provider of cells was asked for a copy. */
  readonly copies: () => number;
  /** Resolves when everything that is committed in the origin now can be read in the standby. */
  readonly arrived: () => Promise<void>;
  readonly close: () => Promise<void>;
};

export async function newPhysicalCopy(cells: StandbyCells, name: string): Promise<PhysicalCopy> {
  const annex = cellIdSchema.parse(name);
  const desk = await cells.annex(name);
  const server = await newServer(cells, name);
  const pair: StandbyPair = {
    ...cells.pair(desk),
    kind: "physical",
    // Its port is another one after each copy.
    get stores() {
      const url = server.url(storeRoles.moverRole);
      return [
        { name: "main", origin: cells.login(cells.a), annex: { cell: annex, store: "main", url } },
      ];
    },
  };
  const provider = createPhysicalStandby({
    clock: systemClock,
    servers: {
      copy: server.copy,
      settle: async () => {
        const own = server.url("postgres");
        await settleStore({ annex, desk: cells.serverOf(cells.b).url(name), own });
        await letStreamsGo((database = "postgres") => server.url("postgres", database));
        await server.halt("fast");
        await endFollowing(server.folder, server.installation);
        await server.start();
      },
    },
  });
  const opened: pg.Client[] = [];
  const open = async (role: string) => {
    const client = await openClient(server.url(role));
    opened.push(client);
    return client;
  };
  return {
    ...{ pair, provider, desk, halt: server.halt, start: server.start, copies: server.copies },
    connect: (role = "postgres") => open(role),
    arrived: async () => {
      // A commit flushes what nobody else would for seconds, and only what is flushed is sent.
      await cells.a.admin.query("select pg_logical_emit_message(true, 'arrived', '')");
      const { rows } = await cells.a.admin.query("select pg_current_wal_flush_lsn() as lsn");
      const own = await open("postgres");
      const isThere = "select where pg_last_wal_replay_lsn() >= $1::pg_lsn";
      while ((await own.query(isThere, [rows[0].lsn])).rowCount === 0) await systemClock.sleep(5);
    },
    close: async () => {
      await provider.close();
      await Promise.all(opened.map((client) => client.end().catch(() => {})));
      await server.halt("immediate");
      await rm(server.folder, { recursive: true, force: true });
    },
  };
}

/** Inside the origin's own folder, which goes with it whatever happens to a test. */
async function newServer(cells: StandbyCells, name: string) {
  const installation = await findPostgres({ env: process.env, random: systemRandom });
  const primary = cells.serverOf(cells.a);
  const { password } = primary;
  const { rows } = await cells.a.admin.query<{ folder: string }>(
    "select current_setting('data_directory') as folder",
  );
  const folder = join(dirname(String(rows[0]?.folder)), name);
  const clock = systemClock;
  let server: PostgresServer | undefined;
  // Before there is a server: nobody listens there.
  let port = 1;
  let copies = 0;
  const start = async () => {
    server = await startServer({
      ...{ folder, name, installation, clock, random: systemRandom, durable: false },
      logFile: `${folder}.log`,
    });
    port = server.port;
  };
  const halt = async (mode: StopMode) => {
    await server?.stop(mode);
    server = undefined;
  };
  return {
    ...{ folder, installation, start, halt },
    url: (user: string, database = cells.a.name) => urlFor({ port, user, password, database }),
    copies: () => copies,
    copy: async () => {
      copies += 1;
      await halt("immediate");
      await copyServer({
        ...{ folder, installation, clock, slot: serverSlot(cellIdSchema.parse(name)) },
        source: {
          ...{ url: primary.adminUrl, password },
          connection: `host=127.0.0.1 port=${primary.port} user=${storeRoles.moverRole} password=${password}`,
        },
      });
      await start();
    },
  };
}
