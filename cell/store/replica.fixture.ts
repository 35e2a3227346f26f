/**
 * A physical standby of a test's server, streaming: made with PostgreSQL's backup API, because the
 * binaries bring no pg_basebackup. Stop it before its primary.
 */
import { chown, mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";
import { findPostgres } from "../../local/postgres/binaries.ts";
import { type RunAs, runCommand } from "../../local/postgres/command.ts";
import { startServer, superuser, urlFor } from "../../local/postgres/server.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import type { TestPostgres } from "../../tests/postgres.ts";

export type TestReplica = {
  readonly url: (database: string, user?: string) => string;
  /** Resolves when everything that is committed on the primary now can be read here. */
  readonly caughtUp: () => Promise<void>;
  /** Ends the stream and makes it a primary of its own. */
  readonly promote: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

export async function startReplica(primary: TestPostgres): Promise<TestReplica> {
  const installation = await findPostgres({ env: process.env, random: systemRandom });
  const source = new pg.Client(primary.adminUrl);
  source.on("error", () => {});
  await source.connect();
  const { rows } = await source.query<{ folder: string }>(
    "select current_setting('data_directory') as folder",
  );
  // Inside the primary's own folder, which goes with it whatever happens to this test.
  const folder = join(dirname(String(rows[0]?.folder)), `replica-${systemRandom.hex(4)}`);
  const dataDir = join(folder, "postgres");
  await mkdir(folder, { mode: 0o711 });
  await mkdir(dataDir, { mode: 0o700 });
  await giveTo([dataDir], installation);
  await source.query("select pg_backup_start('replica', true)");
  await runCommand("/bin/cp", ["-R", `${rows[0]?.folder}/.`, dataDir], installation);
  const { rows: stopped } = await source.query<{ label: string }>(
    "select labelfile as label from pg_backup_stop(false)",
  );
  await writeFile(join(folder, "password"), primary.password, { mode: 0o600 });
  const connection = `host=127.0.0.1 port=${primary.port} user=${superuser} password=${primary.password}`;
  const files = {
    "local.conf": `primary_conninfo = '${connection}'\n`,
    backup_label: String(stopped[0]?.label),
    "standby.signal": "",
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(dataDir, name), text);
  await giveTo(
    Object.keys(files).map((name) => join(dataDir, name)),
    installation,
  );
  await rm(join(dataDir, "postmaster.pid"), { force: true });
  const server = await startServer({
    folder,
    name: "replica",
    installation,
    clock: systemClock,
    random: systemRandom,
    logFile: join(folder, "postgres.log"),
    durable: false,
  });
  const url = (database: string, user = superuser) =>
    urlFor({ port: server.port, user, password: primary.password, database });
  const own = new pg.Client(url("postgres"));
  await own.connect();
  return {
    url,
    caughtUp: async () => {
      const { rows: here } = await source.query("select pg_current_wal_flush_lsn()::text as lsn");
      await until(own, "pg_last_wal_replay_lsn() >= $1::pg_lsn", [here[0].lsn]);
    },
    promote: async () => {
      await own.query("select pg_promote()");
      await until(own, "not pg_is_in_recovery()", []);
    },
    stop: async () => {
      await own.end();
      await source.end();
      await server.stop("immediate");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The server runs as another user when we are root. */
async function giveTo(
  paths: readonly string[],
  { runAs }: { readonly runAs: RunAs | undefined },
): Promise<void> {
  if (runAs === undefined) return;
  for (const path of paths) await chown(path, runAs.uid, runAs.gid);
}

async function until(client: pg.Client, condition: string, values: unknown[]): Promise<void> {
  for (;;) {
    const { rows } = await client.query(`select ${condition} as done`, values);
    if (rows[0].done === true) return;
    await systemClock.sleep(10);
  }
}
